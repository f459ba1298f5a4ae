package kube

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
)

// Bundles reads and changes bundles that objects of the API hold. It is safe for
// concurrent use.
type Bundles struct {
	objects   dynamic.Interface
	discovery discovery.DiscoveryInterface
}

// NewBundles makes one for a cluster.
func NewBundles(config *rest.Config) (*Bundles, error) {
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return &Bundles{objects, d}, nil
}

// BundleField is one bundle of an object.
type BundleField struct {
	Field string // such as data[ca.crt], webhooks[a.example.com].clientConfig.caBundle
	PEM   []byte
	// Default tells that the field is empty and that kube-apiserver trusts the
	// roots of its own machine then.
	Default bool
	// Others are the keys that there are where this one is not there yet; nil where it
	// is.
	Others []string

	path []string // within its holder
	list int      // index in the list webhooks, -1: none
	text bool     // PEM as it is, not in base64
}

// BundleObject is an object with its bundles.
type BundleObject struct {
	Ref    BundleRef
	Fields []BundleField
	// Writer names who else keeps the object as it wants it, so that what another
	// writes there does not stay; "": nobody is known.
	Writer string

	object *unstructured.Unstructured
}

// BundleError tells that an object holds no bundle that could be meant. It names
// nothing that the object holds but keys.
type BundleError struct {
	Ref    BundleRef
	Reason string
}

// Error names the object.
func (e *BundleError) Error() string { return e.Ref.String() + ": " + e.Reason }

// Get reads an object. That it is not there, or may not be read, is the API's own
// error, wrapped; that it holds no bundle is a [*BundleError].
func (b *Bundles) Get(ctx context.Context, ref BundleRef) (*BundleObject, error) {
	client, err := b.client(ref)
	if err != nil {
		return nil, err
	}
	o, err := client.Get(ctx, ref.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	found := &BundleObject{Ref: ref, object: o, Writer: writer(ref, o)}
	if found.Fields, err = bundleFields(ref, o); err != nil {
		return nil, err
	}
	return found, nil
}

func (b *Bundles) client(ref BundleRef) (dynamic.ResourceInterface, error) {
	resource := ref.resource()
	if resource.Version == "" {
		for _, version := range []string{"v1", "v1beta1", "v1alpha1"} {
			list, err := b.discovery.ServerResourcesForGroupVersion(resource.Group + "/" + version)
			if err != nil && !apierrors.IsNotFound(err) {
				return nil, fmt.Errorf("%s: %w", ref, err)
			}
			if err == nil && slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == resource.Resource }) {
				resource.Version = version
				break
			}
		}
		if resource.Version == "" {
			return nil, &BundleError{ref, "the API server serves no " + resource.Resource + " (Kubernetes 1.37, or the feature ClusterTrustBundle)"}
		}
	}
	all := b.objects.Resource(resource)
	if ref.Namespace != "" {
		return all.Namespace(ref.Namespace), nil
	}
	return all, nil
}

// bundleFields finds the bundles of an object.
func bundleFields(ref BundleRef, o *unstructured.Unstructured) ([]BundleField, error) {
	switch ref.Resource {
	case "configmap":
		return keyed(ref, o, true)
	case "secret":
		return keyed(ref, o, false)
	case "clustertrustbundle":
		text, _, _ := unstructured.NestedString(o.Object, "spec", "trustBundle")
		return []BundleField{{Field: "spec.trustBundle", PEM: []byte(text), path: []string{"spec", "trustBundle"}, list: -1, text: true}}, nil
	case "apiservice":
		if service, found, _ := unstructured.NestedMap(o.Object, "spec", "service"); !found || service == nil {
			return nil, &BundleError{ref, "is served by kube-apiserver itself: it has no caBundle"}
		}
		if skip, _, _ := unstructured.NestedBool(o.Object, "spec", "insecureSkipTLSVerify"); skip {
			return nil, &BundleError{ref, "has insecureSkipTLSVerify: kube-apiserver takes whoever answers for it, and allows no caBundle beside that: take it away first"}
		}
		return caBundle(ref, o.Object, -1, "", "spec", "caBundle")
	case "customresourcedefinition":
		if _, found, _ := unstructured.NestedMap(o.Object, "spec", "conversion", "webhook", "clientConfig"); !found {
			return nil, &BundleError{ref, "has no webhook for conversion: it has no caBundle"}
		}
		return caBundle(ref, o.Object, -1, "", "spec", "conversion", "webhook", "clientConfig", "caBundle")
	}
	return webhooks(ref, o)
}

func webhooks(ref BundleRef, o *unstructured.Unstructured) ([]BundleField, error) {
	list, _, _ := unstructured.NestedSlice(o.Object, "webhooks")
	var all []BundleField
	var names []string
	for i, w := range list {
		m, _ := w.(map[string]any)
		name, _ := m["name"].(string)
		names = append(names, name)
		if ref.Key != "" && ref.Key != name {
			continue
		}
		f, err := caBundle(ref, m, i, "webhooks["+name+"].", "clientConfig", "caBundle")
		if err != nil {
			return nil, err
		}
		all = append(all, f...)
	}
	if len(all) == 0 {
		return nil, &BundleError{ref, fmt.Sprintf("no such webhook: it has %s", listOr(names, "none"))}
	}
	return all, nil
}

func caBundle(ref BundleRef, holder map[string]any, list int, prefix string, path ...string) ([]BundleField, error) {
	name := prefix + strings.Join(path, ".")
	text, _, err := unstructured.NestedString(holder, path...)
	if err != nil {
		return nil, &BundleError{ref, name + " is no text"}
	}
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, &BundleError{ref, name + " is not base64"}
	}
	return []BundleField{{Field: name, PEM: data, Default: len(bytes.TrimSpace(data)) == 0, path: path, list: list}}, nil
}

// keyed finds the key of a ConfigMap or Secret that holds a bundle.
func keyed(ref BundleRef, o *unstructured.Unstructured, text bool) ([]BundleField, error) {
	data, _, err := unstructured.NestedStringMap(o.Object, "data")
	if err != nil {
		return nil, &BundleError{ref, "data is not a mapping of texts"}
	}
	values := map[string][]byte{}
	for key, value := range data {
		values[key] = []byte(value)
		if !text {
			if values[key], err = base64.StdEncoding.DecodeString(value); err != nil {
				return nil, &BundleError{ref, "data[" + key + "] is not base64"}
			}
		}
	}
	key := ref.Key
	if key == "" {
		if key, err = onlyBundle(ref, values); err != nil {
			return nil, err
		}
	}
	if !text {
		if why := notABundle(key, values[key]); why != "" {
			return nil, &BundleError{ref, "data[" + key + "] " + why}
		}
	}
	f := BundleField{Field: "data[" + key + "]", PEM: values[key], path: []string{"data", key}, list: -1, text: text}
	if _, there := values[key]; !there {
		f.Others = append([]string{}, slices.Sorted(maps.Keys(values))...)
	}
	return []BundleField{f}, nil
}

// Absent tells of a key that is not there, nil where it is: whoever looks has
// mistyped it, and whoever adds makes it.
func (o *BundleObject) Absent() error {
	for _, f := range o.Fields {
		if f.Others != nil {
			return &BundleError{o.Ref, f.Field + " is not there: it has " + listOr(f.Others, "none")}
		}
	}
	return nil
}

// onlyBundle is the key that holds certificates, where one alone does.
func onlyBundle(ref BundleRef, values map[string][]byte) (string, error) {
	var with []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if bytes.Contains(values[key], []byte("-----BEGIN CERTIFICATE-----")) && (ref.Resource != "secret" || notABundle(key, values[key]) == "") {
			with = append(with, key)
		}
	}
	switch len(with) {
	case 1:
		return with[0], nil
	case 0:
		return "", &BundleError{ref, "no key holds a bundle: it has " + listOr(slices.Sorted(maps.Keys(values)), "none") + "; name the one that shall, as " + ref.String() + "/ca.crt"}
	}
	return "", &BundleError{ref, "several keys hold certificates: name one of " + strings.Join(with, ", ") + ", as " + ref.String() + "/" + with[0]}
}

// notABundle keeps hands off what a Secret holds beside bundles: keys of keys, and
// certificates that somebody shows.
func notABundle(key string, value []byte) string {
	words := strings.FieldsFunc(strings.ToLower(key), func(r rune) bool { return r == '.' || r == '-' || r == '_' })
	switch {
	case bytes.Contains(value, []byte("PRIVATE KEY-----")):
		return "holds a private key: it is no bundle"
	case !slices.Contains(words, "ca") && !slices.Contains(words, "cas") && !slices.Contains(words, "bundle"):
		return "does not look like a bundle by its name, as ca.crt or ca-bundle.crt do: of Secrets nothing else is touched"
	}
	return ""
}

func listOr(names []string, none string) string {
	const most = 10
	if len(names) == 0 {
		return none
	}
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

// writers are marks of those who keep bundles as they want them.
var writers = []struct{ mark, who string }{
	{"cert-manager.io/inject-ca-from", "cert-manager's cainjector"},
	{"cert-manager.io/inject-ca-from-secret", "cert-manager's cainjector"},
	{"cert-manager.io/inject-apiserver-ca", "cert-manager's cainjector"},
	{"cert-manager.io/certificate-name", "cert-manager"},
	{"trust.cert-manager.io/bundle", "trust-manager"},
	{"service.beta.openshift.io/inject-cabundle", "OpenShift's service-ca operator"},
	{"config.openshift.io/inject-trusted-cabundle", "OpenShift's network operator"},
	{"argocd.argoproj.io/tracking-id", "Argo CD"},
	{"kustomize.toolkit.fluxcd.io/name", "Flux"},
	{"helm.toolkit.fluxcd.io/name", "Flux"},
}

// writer names who else writes an object.
func writer(ref BundleRef, o *unstructured.Unstructured) string {
	for _, w := range writers {
		_, labelled := o.GetLabels()[w.mark]
		_, annotated := o.GetAnnotations()[w.mark]
		if labelled || annotated {
			return w.who
		}
	}
	kind, _, _ := unstructured.NestedString(o.Object, "type")
	signer, _, _ := unstructured.NestedString(o.Object, "spec", "signerName")
	switch {
	case ref.Resource == "configmap" && ref.Name == "kube-root-ca.crt":
		return "kube-controller-manager, from its --root-ca-file,"
	case ref.Resource == "configmap" && ref.Namespace == metav1.NamespaceSystem && ref.Name == "extension-apiserver-authentication":
		return "kube-apiserver, from its --client-ca-file and --requestheader-client-ca-file,"
	case ref.Resource == "secret" && kind == "kubernetes.io/service-account-token":
		return "kube-controller-manager, from its --root-ca-file,"
	case ref.Resource == "clustertrustbundle" && signer == "kubernetes.io/kube-apiserver-serving":
		return "kube-controller-manager, from its --root-ca-file,"
	case ref.Resource == "clustertrustbundle" && o.GetLabels()["app.kubernetes.io/managed-by"] == "kubepki":
		return "kubepki controller, from what it was given to publish,"
	}
	return ""
}

// maxConflicts bounds how often an object is read again because another has written
// it meanwhile.
const maxConflicts = 5

// FieldManager is the name under which changes of bundles are recorded.
const FieldManager = "kubepki-trust"

// Edit changes the bundles of an object: edit gets each of them and returns what it
// shall hold, the same where nothing shall change. When another has written the
// object meanwhile it is read again, some times, and edit is called with what is
// there then. It returns the object as it was before the change, and whether
// anything changed. With dryRun the API server judges the change and keeps nothing.
func (b *Bundles) Edit(ctx context.Context, ref BundleRef, dryRun bool, edit func(*BundleObject, BundleField) ([]byte, error)) (*BundleObject, bool, error) {
	client, err := b.client(ref)
	if err != nil {
		return nil, false, err
	}
	options := metav1.UpdateOptions{FieldManager: FieldManager}
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	var found *BundleObject
	changed := false
	backoff := retry.DefaultBackoff
	backoff.Steps = maxConflicts
	err = retry.RetryOnConflict(backoff, func() error {
		if found, err = b.Get(ctx, ref); err != nil {
			return err
		}
		changed = false
		o := found.object.DeepCopy()
		for _, f := range found.Fields {
			data, err := edit(found, f)
			if err != nil {
				return err
			}
			if bytes.Equal(data, f.PEM) {
				continue
			}
			if err := set(o, f, data); err != nil {
				return err
			}
			changed = true
		}
		if !changed {
			return nil
		}
		if _, err := client.Update(ctx, o, options); err != nil {
			return fmt.Errorf("%s: %w", ref, err)
		}
		return nil
	})
	return found, changed, err
}

// set writes one field of an object.
func set(o *unstructured.Unstructured, f BundleField, data []byte) error {
	value := string(data)
	if !f.text {
		value = base64.StdEncoding.EncodeToString(data)
	}
	if f.list < 0 {
		return unstructured.SetNestedField(o.Object, value, f.path...)
	}
	list, _, err := unstructured.NestedSlice(o.Object, "webhooks")
	if err != nil || f.list >= len(list) {
		return errors.New("webhooks is no list")
	}
	m, ok := list[f.list].(map[string]any)
	if !ok {
		return errors.New("webhooks is no list of mappings")
	}
	if err := unstructured.SetNestedField(m, value, f.path...); err != nil {
		return err
	}
	return unstructured.SetNestedSlice(o.Object, list, "webhooks")
}
