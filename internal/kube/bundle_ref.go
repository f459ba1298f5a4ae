package kube

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// BundleRef names a bundle that an object of the API holds.
type BundleRef struct {
	// Resource is configmap, secret, clustertrustbundle, apiservice,
	// validatingwebhookconfiguration, mutatingwebhookconfiguration or
	// customresourcedefinition.
	Resource  string
	Namespace string // of ConfigMaps and Secrets
	Name      string
	// Key is a key of the data, or the name of a webhook; "": the only one that
	// holds certificates, and all webhooks.
	Key string
}

// String is how [ParseBundleRef] reads it.
func (r BundleRef) String() string {
	parts := []string{r.Resource}
	for _, p := range []string{r.Namespace, r.Name, r.Key} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "/")
}

// bundleResources are the resources that hold bundles, with what kubectl calls them too.
var bundleResources = []struct {
	name       string
	others     []string
	namespaced bool
	keyed      bool
	resource   schema.GroupVersionResource
}{
	{"configmap", []string{"cm", "configmaps"}, true, true, schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}},
	{"secret", []string{"secrets"}, true, true, schema.GroupVersionResource{Version: "v1", Resource: "secrets"}},
	{"clustertrustbundle", []string{"ctb", "clustertrustbundles"}, false, false, schema.GroupVersionResource{Group: "certificates.k8s.io", Resource: "clustertrustbundles"}},
	{"apiservice", []string{"apiservices"}, false, false, schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}},
	{"validatingwebhookconfiguration", []string{"validatingwebhookconfigurations"}, false, true, schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"}},
	{"mutatingwebhookconfiguration", []string{"mutatingwebhookconfigurations"}, false, true, schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"}},
	{"customresourcedefinition", []string{"crd", "crds", "customresourcedefinitions"}, false, false, schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}},
}

// ParseBundleRef reads the name of a bundle of the API: configmap/NAMESPACE/NAME[/KEY],
// clustertrustbundle/NAME and so on. It tells false for what names no resource that
// holds bundles; an error tells what is wrong with a name of one.
func ParseBundleRef(text string) (BundleRef, bool, error) {
	parts := strings.Split(text, "/")
	for _, r := range bundleResources {
		if !isOneOf(parts[0], append(r.others, r.name)) {
			continue
		}
		ref := BundleRef{Resource: r.name}
		form, rest := r.name, parts[1:]
		if r.namespaced {
			form += "/NAMESPACE"
		}
		form += "/NAME"
		least := strings.Count(form, "/")
		if r.keyed {
			form += map[bool]string{true: "[/KEY]", false: "[/WEBHOOK]"}[r.namespaced]
		}
		if len(rest) < least || len(rest) > least+1 || len(rest) > least && !r.keyed || isOneOf("", rest) {
			return ref, true, fmt.Errorf("%q is not of the form %s", text, form)
		}
		if r.namespaced {
			ref.Namespace, rest = rest[0], rest[1:]
		}
		ref.Name = rest[0]
		if len(rest) > 1 {
			ref.Key = rest[1]
		}
		return ref, true, nil
	}
	return BundleRef{}, false, nil
}

func isOneOf(text string, all []string) bool {
	for _, a := range all {
		if strings.EqualFold(a, text) {
			return true
		}
	}
	return false
}

// resource returns what the API calls it; of ClusterTrustBundles the version is
// still open.
func (r BundleRef) resource() schema.GroupVersionResource {
	for _, b := range bundleResources {
		if b.name == r.Resource {
			return b.resource
		}
	}
	return schema.GroupVersionResource{}
}
