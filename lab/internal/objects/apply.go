package objects

import (
	"bytes"
	"context"
	"embed"
	"encoding/base64"
	"fmt"
	"net/url"
	"text/template"
	"time"

	"github.com/kubepki/kubepki/lab/internal/cri"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// fieldManager owns the fields that the lab applies.
const fieldManager = "kubepki-lab"

// ProxyLabel is the label of a node that says how its kube-proxy shows who it is:
// one of [ProxyModes]. A node without it has no kube-proxy.
const ProxyLabel = "lab.kubepki.dev/kube-proxy"

// The ways in which kube-proxy shows who it is.
const (
	ProxyTokenSecret    = "token-secret"    // a Secret with a token that never expires, as of old
	ProxyProjectedToken = "projected-token" // the token that the kubelet mounts and renews, as kubeadm has it
	ProxyCertificate    = "certificate"     // the client certificate in the node's own /etc/kubernetes/kube-proxy.conf
)

// ProxyModes returns the ways in which kube-proxy shows who it is, in the order
// in which the lab gives them to its workers.
func ProxyModes() []string { return []string{ProxyTokenSecret, ProxyProjectedToken, ProxyCertificate} }

// files are applied in this order: what others need comes first.
var files = []string{
	"cluster-admins.yaml",
	"namespaces.yaml",
	"kube-proxy.yaml",
	"kube-proxy-token-secret.yaml",
	"kube-proxy-projected-token.yaml",
	"kube-proxy-certificate.yaml",
	"extension-access.yaml",
	"extension.yaml",
	"webhook.yaml",
	"client.yaml",
}

//go:embed *.yaml *.tmpl
var content embed.FS

// Values are what the objects of one cluster differ in from those of another.
type Values struct {
	// Server is the URL at which the cluster's clients reach kube-apiserver, as
	// https://10.99.0.10:6443.
	Server string
	// Servers are the credentials of the servers. Their keys go into Secrets.
	Servers
	// ProxyClient runs kube-proxy's client alone in the place of kube-proxy, for
	// machines that let nobody program packet filters (proxyclient.CanProgram).
	// Services then lead nowhere, and pods are told to dial Server.
	ProxyClient bool
	// WithoutPods leaves out what needs a kubelet to run it, but for Controllers.
	WithoutPods bool
	// Controllers counts the pods of kubepki controller, one to a control plane;
	// 0: it is not installed.
	Controllers int
	// SigningDuration is the life of what it signs; 0: its default.
	SigningDuration time.Duration
}

// KubeProxy is the program of the DaemonSets of kube-proxy.
func (v Values) KubeProxy() string {
	if v.ProxyClient {
		return "kube-proxy-client"
	}
	return "kube-proxy"
}

// ServerURL is Server in parts.
func (v Values) ServerURL() (*url.URL, error) {
	u, err := url.Parse(v.Server)
	if err == nil && (u.Scheme != "https" || u.Port() == "") {
		err = fmt.Errorf("the server %q is not https://HOST:PORT", v.Server)
	}
	return u, err
}

// Image names the image that is a program of the lab.
func (Values) Image(program string) string { return cri.Registry + program + ":lab" }

// Objects returns all objects, with the values filled in, in the order in which
// they are to be applied.
func Objects(v Values) ([]*unstructured.Unstructured, error) {
	var all []*unstructured.Unstructured
	names := files
	if v.WithoutPods {
		names = []string{"cluster-admins.yaml"}
	}
	for _, name := range names {
		objects, err := read(name, v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, objects...)
	}
	if v.Controllers > 0 {
		objects, err := controller(v)
		if err != nil {
			return nil, err
		}
		all = append(all, objects...)
	}
	return all, nil
}

// read reads the objects of one file.
func read(name string, v Values) ([]*unstructured.Unstructured, error) {
	functions := template.FuncMap{"base64": base64.StdEncoding.EncodeToString}
	t, err := template.New(name).Funcs(functions).ParseFS(content, name, "direct.tmpl")
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := t.Execute(&text, v); err != nil {
		return nil, err
	}
	return decode(&text)
}

// Apply applies all objects to a cluster, from the server's side, with the
// rights of the configuration, which must be those of an administrator. Objects
// that are there already become what they should be; applying the same values
// twice changes nothing. It returns at the first object that the server refuses,
// and says which.
func Apply(ctx context.Context, config *rest.Config, v Values) error {
	all, err := Objects(v)
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	mapper, err := restMapper(config)
	if err != nil {
		return err
	}
	for _, o := range all {
		if err := apply(ctx, client, mapper, o); err != nil {
			return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

// restMapper asks the server for the paths of the kinds. Kinds of an extension
// API server that does not answer are left out: none of them is applied here.
func restMapper(config *rest.Config) (meta.RESTMapper, error) {
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	groups, err := restmapper.GetAPIGroupResources(client)
	if err != nil {
		return nil, fmt.Errorf("read which kinds the API server has: %w", err)
	}
	return restmapper.NewDiscoveryRESTMapper(groups), nil
}

func apply(ctx context.Context, client dynamic.Interface, mapper meta.RESTMapper, o *unstructured.Unstructured) error {
	kind := o.GroupVersionKind()
	mapping, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return err
	}
	var resource dynamic.ResourceInterface = client.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		resource = client.Resource(mapping.Resource).Namespace(o.GetNamespace())
	}
	_, err = resource.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	return err
}
