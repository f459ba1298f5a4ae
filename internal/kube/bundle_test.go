package kube

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery/fake"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"
)

const certText = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func holder(apiVersion, kind, namespace, name string, rest map[string]any) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: rest}
	o.SetAPIVersion(apiVersion)
	o.SetKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

// bundlesWith is a cluster with some objects that serves ClusterTrustBundles of a
// version, "" none.
func bundlesWith(version string, objects ...runtime.Object) (*Bundles, *dynamicfake.FakeDynamicClient) {
	client := dynamicfake.NewSimpleDynamicClient(runtime.NewScheme(), objects...)
	d := &fake.FakeDiscovery{Fake: &clienttesting.Fake{}}
	if version != "" {
		d.Resources = []*metav1.APIResourceList{{GroupVersion: "certificates.k8s.io/" + version, APIResources: []metav1.APIResource{{Name: "clustertrustbundles"}}}}
	}
	return &Bundles{client, d}, client
}

func TestNamesOfBundlesOfTheAPI(t *testing.T) {
	for text, want := range map[string]string{
		"configmap/default/roots":              "configmap/default/roots",
		"cm/default/roots/ca.crt":              "configmap/default/roots/ca.crt",
		"Secret/default/web":                   "secret/default/web",
		"ctb/example.com:shop:roots":           "clustertrustbundle/example.com:shop:roots",
		"apiservice/v1.shop.example.com":       "apiservice/v1.shop.example.com",
		"crd/shops.example.com":                "customresourcedefinition/shops.example.com",
		"validatingwebhookconfiguration/a/b.c": "validatingwebhookconfiguration/a/b.c",
		"mutatingwebhookconfigurations/a":      "mutatingwebhookconfiguration/a",
		"kube-apiserver/client-ca-file":        "-",
		"cp1/kube-apiserver/client-ca-file":    "-",
		"configmap/roots":                      "",
		"configmap/default/roots/ca.crt/x":     "",
		"configmap//roots":                     "",
		"clustertrustbundle/a/b":               "",
		"apiservice/":                          "",
		"secret":                               "",
		"validatingwebhookconfiguration/a/b/c": "",
	} {
		ref, ofAPI, err := ParseBundleRef(text)
		got := ref.String()
		switch {
		case err != nil:
			got = ""
		case !ofAPI:
			got = "-"
		}
		if got != want {
			t.Errorf("%s is read as %q (%v), want %q", text, got, err, want)
		}
	}
}

func TestWhichBundlesAnObjectHolds(t *testing.T) {
	webhook := func(name, bundle string) any {
		return map[string]any{"name": name, "clientConfig": map[string]any{"caBundle": b64(bundle)}}
	}
	bundles, _ := bundlesWith("v1beta1",
		holder("v1", "ConfigMap", "d", "one", map[string]any{"data": map[string]any{"note": "x", "any.pem": certText}}),
		holder("v1", "ConfigMap", "d", "two", map[string]any{"data": map[string]any{"a.crt": certText, "b.crt": certText}}),
		holder("v1", "ConfigMap", "d", "none", map[string]any{"data": map[string]any{"note": "x"}}),
		holder("v1", "Secret", "d", "tls", map[string]any{"data": map[string]any{"ca.crt": b64(certText), "tls.crt": b64(certText), "tls.key": b64("-----BEGIN PRIVATE KEY-----\n")}}),
		holder("v1", "Secret", "d", "ca", map[string]any{"data": map[string]any{"ca.pem": b64(certText + "-----BEGIN EC PRIVATE KEY-----\n"), "bad-ca": "!"}}),
		holder("certificates.k8s.io/v1beta1", "ClusterTrustBundle", "", "roots", map[string]any{"spec": map[string]any{"trustBundle": certText}}),
		holder("apiregistration.k8s.io/v1", "APIService", "", "v1.", map[string]any{"spec": map[string]any{}}),
		holder("apiregistration.k8s.io/v1", "APIService", "", "v1.x", map[string]any{"spec": map[string]any{"service": map[string]any{"name": "x"}}}),
		holder("apiregistration.k8s.io/v1", "APIService", "", "v1.open", map[string]any{"spec": map[string]any{"service": map[string]any{"name": "x"}, "insecureSkipTLSVerify": true}}),
		holder("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "plain", map[string]any{"spec": map[string]any{"conversion": map[string]any{"strategy": "None"}}}),
		holder("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "hooked", map[string]any{"spec": map[string]any{"conversion": map[string]any{"webhook": map[string]any{"clientConfig": map[string]any{"caBundle": b64(certText)}}}}}),
		holder("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "", "policy", map[string]any{"webhooks": []any{webhook("a.x", certText), webhook("b.x", "")}}),
	)
	for target, want := range map[string]string{
		"configmap/d/one":                           "data[any.pem]",
		"configmap/d/two/b.crt":                     "data[b.crt]",
		"configmap/d/two":                           "several keys hold certificates: name one of a.crt, b.crt",
		"configmap/d/none":                          "no key holds a bundle: it has note",
		"configmap/d/none/ca.crt":                   "data[ca.crt] absent", // the first anchor makes it
		"secret/d/tls":                              "data[ca.crt]",
		"secret/d/tls/tls.crt":                      "does not look like a bundle by its name",
		"secret/d/tls/tls.key":                      "holds a private key",
		"secret/d/ca/ca.pem":                        "data[bad-ca] is not base64",
		"clustertrustbundle/roots":                  "spec.trustBundle",
		"apiservice/v1.":                            "is served by kube-apiserver itself",
		"apiservice/v1.x":                           "spec.caBundle empty",
		"apiservice/v1.open":                        "has insecureSkipTLSVerify",
		"crd/plain":                                 "has no webhook for conversion",
		"crd/hooked":                                "spec.conversion.webhook.clientConfig.caBundle",
		"validatingwebhookconfiguration/policy":     "webhooks[a.x].clientConfig.caBundle, webhooks[b.x].clientConfig.caBundle empty",
		"validatingwebhookconfiguration/policy/b.x": "webhooks[b.x].clientConfig.caBundle empty",
		"validatingwebhookconfiguration/policy/c.x": "no such webhook: it has a.x, b.x",
	} {
		ref, _, err := ParseBundleRef(target)
		if err != nil {
			t.Fatal(err)
		}
		o, err := bundles.Get(t.Context(), ref)
		got := ""
		var wrong *BundleError
		switch {
		case errors.As(err, &wrong):
			got = err.Error()
		case err != nil:
			t.Errorf("%s: %v", target, err)
			continue
		default:
			var all []string
			for _, f := range o.Fields {
				name := f.Field
				if f.Default {
					name += " empty"
				}
				if absent := o.Absent(); absent != nil {
					name += " absent"
					if !strings.HasSuffix(absent.Error(), "is not there: it has note") {
						t.Errorf("%s: %v", target, absent)
					}
				}
				all = append(all, name)
			}
			got = strings.Join(all, ", ")
		}
		if !strings.Contains(got, want) || err == nil && got != want {
			t.Errorf("%s: %q, want %q", target, got, want)
		}
	}
	none, _ := bundlesWith("")
	if _, err := none.Get(t.Context(), BundleRef{Resource: "clustertrustbundle", Name: "roots"}); err == nil || !strings.Contains(err.Error(), "serves no clustertrustbundles") {
		t.Errorf("without ClusterTrustBundles: %v", err)
	}
}

func TestWhoElseWritesAnObject(t *testing.T) {
	marked := holder("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "", "m", map[string]any{})
	marked.SetAnnotations(map[string]string{"cert-manager.io/inject-ca-from": "a/b"})
	ours := holder("certificates.k8s.io/v1", "ClusterTrustBundle", "", "b", map[string]any{})
	ours.SetLabels(map[string]string{"app.kubernetes.io/managed-by": "kubepki"})
	issued := holder("v1", "Secret", "d", "tls", map[string]any{})
	issued.SetAnnotations(map[string]string{"cert-manager.io/certificate-name": "tls"})
	argo := holder("v1", "ConfigMap", "d", "argo", map[string]any{})
	argo.SetAnnotations(map[string]string{"argocd.argoproj.io/tracking-id": "app:/ConfigMap:d/argo"})
	flux := holder("v1", "ConfigMap", "d", "flux", map[string]any{})
	flux.SetLabels(map[string]string{"kustomize.toolkit.fluxcd.io/name": "apps"})
	signed := func(signer string) *unstructured.Unstructured {
		return holder("certificates.k8s.io/v1", "ClusterTrustBundle", "", "b", map[string]any{"spec": map[string]any{"signerName": signer}})
	}
	if got := writer(BundleRef{Resource: "clustertrustbundle", Name: "b"}, signed("example.com/serving")); got != "" {
		t.Errorf("a bundle of a signer of one's own is written by %q", got)
	}
	for want, o := range map[string]struct {
		target string
		object *unstructured.Unstructured
	}{
		"cert-manager": {"secret/d/tls", issued},
		"Argo CD":      {"configmap/d/argo", argo},
		"Flux":         {"configmap/d/flux", flux},
		"kube-controller-manager, from its --roo": {"clustertrustbundle/b", signed("kubernetes.io/kube-apiserver-serving")},
		"cainjector":              {"mutatingwebhookconfiguration/m", marked},
		"kubepki controller":      {"clustertrustbundle/b", ours},
		"kube-controller-manager": {"configmap/any/kube-root-ca.crt", holder("v1", "ConfigMap", "any", "kube-root-ca.crt", map[string]any{})},
		"kube-apiserver":          {"configmap/kube-system/extension-apiserver-authentication", holder("v1", "ConfigMap", "kube-system", "extension-apiserver-authentication", map[string]any{})},
		"":                        {"configmap/default/extension-apiserver-authentication", holder("v1", "ConfigMap", "default", "extension-apiserver-authentication", map[string]any{})},
	} {
		ref, _, _ := ParseBundleRef(o.target)
		if got := writer(ref, o.object); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%s is written by %q, want %q", o.target, got, want)
		}
	}
}

// What another writes between reading and writing is read again, not overwritten; and
// who never stops is not waited for.
func TestAConflictIsReadAgain(t *testing.T) {
	resource := schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	for name, c := range map[string]struct {
		conflicts int
		ok        bool
	}{"none": {0, true}, "one": {1, true}, "as many as are tried again": {maxConflicts - 1, true}, "one that never ends": {1000, false}} {
		t.Run(name, func(t *testing.T) {
			bundles, client := bundlesWith("", holder("v1", "ConfigMap", "d", "roots", map[string]any{"data": map[string]any{"ca.crt": certText, "other": "keep"}}))
			left, updates := c.conflicts, 0
			client.PrependReactor("update", "configmaps", func(a clienttesting.Action) (bool, runtime.Object, error) {
				updates++
				if left == 0 {
					return false, nil, nil
				}
				left--
				// Another was faster: what it wrote must be there in the end.
				o, err := client.Tracker().Get(resource, "d", "roots")
				if err != nil {
					t.Fatal(err)
				}
				u := o.(*unstructured.Unstructured).DeepCopy()
				_ = unstructured.SetNestedField(u.Object, certText+"# theirs\n", "data", "ca.crt")
				if err := client.Tracker().Update(resource, u, "d"); err != nil {
					t.Fatal(err)
				}
				return true, nil, apierrors.NewConflict(resource.GroupResource(), "roots", errors.New("changed"))
			})
			ref := BundleRef{Resource: "configmap", Namespace: "d", Name: "roots"}
			_, changed, err := bundles.Edit(t.Context(), ref, false, func(_ *BundleObject, f BundleField) ([]byte, error) {
				return append(append([]byte{}, f.PEM...), "# ours\n"...), nil
			})
			if (err == nil) != c.ok || updates > maxConflicts {
				t.Fatalf("%d updates: %v", updates, err)
			}
			o, _ := client.Resource(resource).Namespace("d").Get(t.Context(), "roots", metav1.GetOptions{})
			data, _, _ := unstructured.NestedStringMap(o.Object, "data")
			want := certText
			if c.conflicts > 0 {
				want += "# theirs\n"
			}
			if c.ok {
				want += "# ours\n"
			}
			if data["ca.crt"] != want || data["other"] != "keep" || changed != true {
				t.Errorf("it holds %q", data)
			}
		})
	}
}

func TestAnEditOfOneWebhookLeavesTheOthers(t *testing.T) {
	hook := func(name string) any {
		return map[string]any{"name": name, "timeoutSeconds": int64(7), "clientConfig": map[string]any{"caBundle": b64(certText), "url": "https://x"}}
	}
	bundles, client := bundlesWith("", holder("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "", "m", map[string]any{"webhooks": []any{hook("a.x"), hook("b.x")}}))
	ref := BundleRef{Resource: "mutatingwebhookconfiguration", Name: "m", Key: "b.x"}
	if _, changed, err := bundles.Edit(t.Context(), ref, false, func(_ *BundleObject, f BundleField) ([]byte, error) { return f.PEM, nil }); changed || err != nil {
		t.Errorf("an edit that changes nothing: %t, %v", changed, err)
	}
	for _, a := range client.Actions() {
		if a.GetVerb() == "update" {
			t.Error("it was written all the same")
		}
	}
	if _, changed, err := bundles.Edit(t.Context(), ref, false, func(*BundleObject, BundleField) ([]byte, error) { return []byte("new"), nil }); !changed || err != nil {
		t.Errorf("%t, %v", changed, err)
	}
	o, err := client.Resource(ref.resource()).Get(t.Context(), "m", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	list, _, _ := unstructured.NestedSlice(o.Object, "webhooks")
	for i, want := range []string{b64(certText), b64("new")} {
		m := list[i].(map[string]any)
		config := m["clientConfig"].(map[string]any)
		if config["caBundle"] != want || config["url"] != "https://x" || m["timeoutSeconds"] != int64(7) {
			t.Errorf("webhook %d: %v", i, m)
		}
	}
}
