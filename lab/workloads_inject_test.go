//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/trust"
)

// injectables are one object of each kind that has caBundles, with an annotation.
func injectables(annotation string) string {
	return strings.ReplaceAll(`---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: injected, annotations: {ANNOTATION}}
webhooks:
- &hook
  name: one.injected.example
  clientConfig: {service: {namespace: default, name: none}}
  rules: [{apiGroups: [injected.example], apiVersions: [v1], operations: [CREATE], resources: [none]}]
  failurePolicy: Ignore
  sideEffects: None
  admissionReviewVersions: [v1]
- <<: *hook
  name: two.injected.example
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: injected, annotations: {ANNOTATION}}
webhooks:
- name: one.injected.example
  clientConfig: {service: {namespace: default, name: none}}
  rules: [{apiGroups: [injected.example], apiVersions: [v1], operations: [CREATE], resources: [none]}]
  failurePolicy: Ignore
  sideEffects: None
  admissionReviewVersions: [v1]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.injected.example, annotations: {ANNOTATION}}
spec: {group: injected.example, version: v1, groupPriorityMinimum: 10, versionPriority: 10, service: {namespace: default, name: none}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.converted.example, annotations: {ANNOTATION}}
spec:
  group: converted.example
  scope: Cluster
  names: {kind: Thing, plural: things}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
  conversion: {strategy: Webhook, webhook: {clientConfig: {service: {namespace: default, name: none}}, conversionReviewVersions: [v1]}}
`, "ANNOTATION", annotation)
}

// bundlePaths are the caBundles of the injectables.
var bundlePaths = map[string][]string{
	"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/injected":   {"webhooks.0.clientConfig", "webhooks.1.clientConfig"},
	"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/injected":     {"webhooks.0.clientConfig"},
	"/apis/apiregistration.k8s.io/v1/apiservices/v1.injected.example":                  {"spec"},
	"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.converted.example": {"spec.conversion.webhook.clientConfig"},
}

// bundles reads the caBundles of the injectables.
func (w *workloads) bundles(ctx context.Context) (map[string][]byte, error) {
	all := map[string][]byte{}
	for path, fields := range bundlePaths {
		data, err := w.client.CoreV1().RESTClient().Get().AbsPath(path).SetHeader("Accept", "application/json").Do(ctx).Raw()
		if err != nil {
			return nil, err
		}
		for _, f := range fields {
			var o any
			if err := json.Unmarshal(data, &o); err != nil {
				return nil, err
			}
			for step := range strings.SplitSeq(f, ".") {
				switch v := o.(type) {
				case map[string]any:
					o = v[step]
				case []any:
					o = v[int(step[0]-'0')]
				}
			}
			text, _ := o.(map[string]any)["caBundle"].(string)
			bundle, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				return nil, err
			}
			all[path+" "+f] = bundle
		}
	}
	return all, nil
}

// hold waits until all caBundles hold certificates, and no other.
func (w *workloads) hold(t *testing.T, what string, wanted ...*x509.Certificate) {
	t.Helper()
	eventually(t, what, func(ctx context.Context) error {
		all, err := w.bundles(ctx)
		if err != nil {
			return err
		}
		for where, bundle := range all {
			if len(wanted) == 0 && len(bundle) == 0 {
				continue
			}
			list, err := trust.ParseCertificates(bundle)
			if err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
			if len(list) != len(wanted) || slices.ContainsFunc(wanted, func(c *x509.Certificate) bool { return !slices.ContainsFunc(list, c.Equal) }) {
				return fmt.Errorf("%s has %d certificates", where, len(list))
			}
		}
		return nil
	})
}

func (w *workloads) testInjection(t *testing.T) {
	secrets := w.client.CoreV1().Secrets("default")
	_, web := w.atRevision(t, "root", 1)
	root := chain(t, web)[0]
	server, err := trust.ParseCertificates(read(t, filepath.Join(w.nodes[0].Root, "etc/kubernetes/pki/ca.crt")))
	if err != nil {
		t.Fatal(err)
	}
	w.apply(t, leaf("hook", ofECDSA)+injectables("cert-manager.io/inject-ca-from: default/hook"))
	w.hold(t, "the authority of a Certificate is there", root)

	// A Secret that does not allow it changes nothing; that it allows it now, is seen.
	w.apply(t, injectables("cert-manager.io/inject-ca-from-secret: default/anchors")+
		"---\napiVersion: v1\nkind: Secret\nmetadata: {name: anchors, namespace: default}\nstringData: {ca.crt: nothing}\n")
	eventually(t, "it is said that the Secret does not allow it", func(context.Context) error {
		if n := strings.Count(w.log(t), "Secret default/anchors does not allow it"); n != len(bundlePaths) {
			return fmt.Errorf("said %d times", n)
		}
		return nil
	})
	patch := func(body string) {
		t.Helper()
		if _, err := secrets.Patch(t.Context(), "anchors", types.MergePatchType, []byte(body), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	patch(`{"metadata":{"annotations":{"cert-manager.io/allow-direct-injection":"true"}}}`)
	eventually(t, "it is said that ca.crt is no certificate", func(context.Context) error {
		if !strings.Contains(w.log(t), "ca.crt: no PEM block") {
			return fmt.Errorf("it is not")
		}
		return nil
	})
	w.hold(t, "what was there is there still", root)
	data, err := json.Marshal(map[string]any{"data": map[string][]byte{"ca.crt": trust.EncodeCertificates(server...)}})
	if err != nil {
		t.Fatal(err)
	}
	patch(string(data))
	w.hold(t, "the next authority comes beside the one of before", append(server, root)...)

	// Somebody who applies without bundles, as package managers do, loses them.
	for path, fields := range bundlePaths {
		for _, f := range fields {
			body := `[{"op":"remove","path":"/` + strings.ReplaceAll(f, ".", "/") + `/caBundle"}]`
			if err := w.client.CoreV1().RESTClient().Patch(types.JSONPatchType).AbsPath(path).Body([]byte(body)).Do(t.Context()).Error(); err != nil {
				t.Fatal(path, err)
			}
		}
	}
	w.hold(t, "a bundle that was lost is there again", server...)
	w.apply(t, injectables("cert-manager.io/inject-apiserver-ca: \"true\""))
	w.hold(t, "the API server's authority is there", server...)
}

// log is what the controller has said since it runs.
func (w *workloads) log(t *testing.T) string {
	t.Helper()
	return string(read(t, w.process.LogFile()))
}

func gatewayCRDs(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "config", "crd", "standard")
}

const annotatedIngress = `---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, namespace: default, annotations: {cert-manager.io/issuer: ca, cert-manager.io/private-key-algorithm: ECDSA}}
spec:
  defaultBackend: {service: {name: shop, port: {number: 80}}}
  tls:
  - {secretName: shop, hosts: [shop.example.org]}
  - {secretName: web, hosts: [web.example.org]}
`

const annotatedGateway = `---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gate, namespace: default, annotations: {cert-manager.io/issuer: ca, cert-manager.io/private-key-algorithm: ECDSA}}
spec:
  gatewayClassName: none
  listeners:
  - {name: a, hostname: gate.example.org, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: gate}]}}
  - {name: b, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: none}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: set, namespace: default, annotations: {cert-manager.io/issuer: ca, cert-manager.io/private-key-algorithm: ECDSA}}
spec:
  parentRef: {name: gate}
  listeners:
  - {name: c, hostname: set.example.org, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: set}]}}
`

func (w *workloads) testShims(t *testing.T) {
	before := w.certificate(t, "web")
	w.apply(t, annotatedIngress+annotatedGateway)
	named := func(name string, n int, host string) {
		t.Helper()
		w.exists(t, name)
		_, secret := w.atRevision(t, name, n)
		if err := chain(t, secret)[0].VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	named("shop", 1, "shop.example.org")
	w.event(t, "shop", "CreateCertificate", `Certificate "shop"`)
	w.event(t, "shop", "BadConfig", `Certificate "web" is there and is not of this Ingress`)
	if after := w.certificate(t, "web"); after.ResourceVersion != before.ResourceVersion {
		t.Error("a Certificate of another was changed")
	}
	named("gate", 1, "gate.example.org")
	named("set", 1, "set.example.org")
	w.event(t, "gate", "BadConfig", "spec.listeners[1].hostname")

	// What changes is issued anew, what goes is removed, what is removed by hand comes back.
	w.apply(t, strings.ReplaceAll(annotatedIngress, "[shop.example.org]", "[store.example.org]")+
		strings.ReplaceAll(annotatedGateway, "name: gate}]", "name: gate2}]"))
	named("shop", 2, "store.example.org")
	named("gate2", 1, "gate.example.org")
	w.gone(t, "gate")
	if err := w.cm.Delete().Namespace("default").Resource("certificates").Name("shop").Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it comes back", func(ctx context.Context) error {
		return w.cm.Get().Namespace("default").Resource("certificates").Name("shop").Do(ctx).Error()
	})
	w.apply(t, annotatedIngress[:strings.Index(annotatedIngress, "  tls:")]+strings.ReplaceAll(annotatedGateway, "name: b, port", "name: b, hostname: b.example.org, port"))
	w.gone(t, "shop")
	named("none", 1, "b.example.org")
}

// installGateways installs the Gateway API, after the controller has begun without it.
func (w *workloads) installGateways(t *testing.T) {
	t.Helper()
	for _, name := range []string{"gateways", "listenersets"} {
		file := filepath.Join(gatewayCRDs(t), "gateway.networking.k8s.io_"+name+".yaml")
		if out, err := kubectl(t, w.controlPlane, "apply", "--server-side", "-f", file); err != nil {
			t.Fatalf("%v\n%s%s", err, out.stdout, out.stderr)
		}
	}
	if out, err := kubectl(t, w.controlPlane, "wait", "--for=condition=Established", "crd", "gateways.gateway.networking.k8s.io", "listenersets.gateway.networking.k8s.io"); err != nil {
		t.Fatalf("%v\n%s%s", err, out.stdout, out.stderr)
	}
}

// exists waits for a Certificate.
func (w *workloads) exists(t *testing.T, name string) {
	t.Helper()
	eventually(t, name+" is there", func(ctx context.Context) error {
		return w.cm.Get().Namespace("default").Resource("certificates").Name(name).Do(ctx).Error()
	})
}

func (w *workloads) gone(t *testing.T, name string) {
	t.Helper()
	eventually(t, name+" is gone", func(ctx context.Context) error {
		err := w.cm.Get().Namespace("default").Resource("certificates").Name(name).Do(ctx).Into(&cmapi.Certificate{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there: %w", err)
	})
}

// event waits for an Event on an object.
func (w *workloads) event(t *testing.T, name, reason, message string) {
	t.Helper()
	eventually(t, "an Event tells "+message, func(ctx context.Context) error {
		all, err := w.client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + name + ",reason=" + reason})
		if err != nil {
			return err
		}
		var said bytes.Buffer
		for _, e := range all.Items {
			fmt.Fprintln(&said, e.Message)
			if strings.Contains(e.Message, message) {
				return nil
			}
		}
		return fmt.Errorf("there are: %s", &said)
	})
}
