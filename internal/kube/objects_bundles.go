package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/trust"
)

// Places that are objects by name.
const (
	authenticationPath = "configmap/kube-system/extension-apiserver-authentication"
	infoPath           = "configmap/kube-public/cluster-info"
	kubeadmPath        = "configmap/kube-system/kubeadm-config"
)

func at(path, field string) trust.Place {
	return trust.Place{Node: trust.ClusterNode, Path: path, Field: field}
}

func (r *objectReader) configMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	var m corev1.ConfigMap
	_, err := r.get(ctx, "/api/v1/namespaces/"+namespace+"/configmaps/"+name, nil, "", &m)
	if absent(err) {
		return nil, nil
	}
	return &m, err
}

// rootKey is the key of kube-root-ca.crt that pods get as a file.
const rootKey = "ca.crt"

// rootCAs reads kube-root-ca.crt of all namespaces; those with the same content are
// one bundle.
func (r *objectReader) rootCAs(ctx context.Context) (int, error) {
	var same alike
	count, err := eachPage(ctx, r.getter, "/api/v1/configmaps", query("metadata.name="+rootCAConfigMap), pageSize, "", func(page []corev1.ConfigMap) {
		for i := range page {
			same.add([]byte(page[i].Data[rootKey]), objectAt("configmap", page[i].Namespace, rootCAConfigMap, "data["+rootKey+"]"))
		}
	})
	same.each(func(content []byte, first trust.Place, copies []trust.Place) {
		r.bundle(trust.ObjectBundle{Use: trust.RootCA, Place: first, Copies: copies}, content)
	})
	return count, err
}

// published is how old a namespace is before it has to have what is published into
// each.
const published = 2 * time.Minute

// namespaces finds those that lack a kube-root-ca.crt, when those were read.
func (r *objectReader) namespaces(ctx context.Context, compare bool) (int, error) {
	has := map[string]bool{}
	r.mu.Lock()
	for _, b := range r.found.Bundles {
		if b.Use == trust.RootCA {
			has[b.Place.Path] = true
			for _, c := range b.Copies {
				has[c.Path] = true
			}
		}
	}
	r.mu.Unlock()
	var without []trust.Place
	count, err := eachPage(ctx, r.getter, "/api/v1/namespaces", query(""), pageSize, metadataOnly, func(page []metav1.PartialObjectMetadata) {
		for _, n := range page {
			p := objectAt("configmap", n.Name, rootCAConfigMap, "")
			if n.DeletionTimestamp == nil && !has[p.Path] && r.options.At.Sub(n.CreationTimestamp.Time) > published {
				without = append(without, p)
			}
		}
	})
	if compare && err == nil {
		r.found.Without = without
	}
	return count, err
}

// authentication reads whom extension API servers are told to trust.
func (r *objectReader) authentication(ctx context.Context) (int, error) {
	m, err := r.configMap(ctx, metav1.NamespaceSystem, "extension-apiserver-authentication")
	if m == nil || err != nil {
		return 0, err
	}
	for key, use := range map[string]trust.BundleUse{"client-ca-file": trust.ClientCA, "requestheader-client-ca-file": trust.RequestheaderCA} {
		// What is not set up is not there at all.
		if text, there := m.Data[key]; there {
			r.bundle(trust.ObjectBundle{Use: use, Place: at(authenticationPath, "data["+key+"]")}, []byte(text))
		}
	}
	if text, there := m.Data["requestheader-allowed-names"]; there {
		names := &trust.RequestheaderNames{Place: at(authenticationPath, "data[requestheader-allowed-names]")}
		if json.Unmarshal([]byte(text), &names.Names) == nil {
			r.found.Requestheader = names
		}
	}
	return 1, nil
}

// kubeadmCluster has the fields of ClusterConfiguration (kubeadm.k8s.io v1beta3,
// v1beta4 and v1) from which certificates follow.
type kubeadmCluster struct {
	ControlPlaneEndpoint string `json:"controlPlaneEndpoint"`
	APIServer            struct {
		CertSANs []string `json:"certSANs"`
	} `json:"apiServer"`
	Networking struct {
		DNSDomain     string `json:"dnsDomain"`
		ServiceSubnet string `json:"serviceSubnet"`
	} `json:"networking"`
	CertificateValidityPeriod   *metav1.Duration `json:"certificateValidityPeriod"`
	CACertificateValidityPeriod *metav1.Duration `json:"caCertificateValidityPeriod"`
}

// maxNames bounds the names that are compared with a certificate.
const maxNames = 500

func (r *objectReader) kubeadm(ctx context.Context) (int, error) {
	m, err := r.configMap(ctx, metav1.NamespaceSystem, "kubeadm-config")
	if m == nil || err != nil {
		return 0, err
	}
	const key = "ClusterConfiguration"
	s := &trust.KubeadmSettings{Place: at(kubeadmPath, "data["+key+"]")}
	var c kubeadmCluster
	if err := yaml.Unmarshal([]byte(m.Data[key]), &c); err != nil {
		s.Reason = "it is not the YAML of a ClusterConfiguration"
	} else if m.Data[key] == "" {
		s.Reason = "there is no ClusterConfiguration in it"
	}
	s.ControlPlaneEndpoint = shortened(c.ControlPlaneEndpoint)
	s.DNSDomain, s.ServiceSubnet = shortened(c.Networking.DNSDomain), shortened(c.Networking.ServiceSubnet)
	for _, name := range c.APIServer.CertSANs[:min(len(c.APIServer.CertSANs), maxNames)] {
		s.CertSANs = append(s.CertSANs, shortened(name))
	}
	if d := c.CertificateValidityPeriod; d != nil {
		s.Validity = d.Duration
	}
	if d := c.CACertificateValidityPeriod; d != nil {
		s.CAValidity = d.Duration
	}
	r.found.Kubeadm = s
	return 1, nil
}

// apiService has the fields of k8s.io/kube-aggregator/pkg/apis/apiregistration/v1
// APIService that matter to trust.
type apiService struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
	Spec     struct {
		Service *struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"service"`
		CABundle []byte `json:"caBundle"`
		Insecure bool   `json:"insecureSkipTLSVerify"`
	} `json:"spec"`
	Status struct {
		Conditions []metav1.Condition `json:"conditions"`
	} `json:"status"`
}

// apiServices reads those that a Service of the cluster stands behind.
func (r *objectReader) apiServices(ctx context.Context) (int, error) {
	served := 0
	_, err := eachPage(ctx, r.getter, "/apis/apiregistration.k8s.io/v1/apiservices", query(""), pageSize, "", func(page []apiService) {
		for i := range page {
			s := &page[i]
			if s.Spec.Service == nil {
				continue // served by kube-apiserver itself
			}
			served++
			b := trust.ObjectBundle{Use: trust.ServiceCA, Name: s.Metadata.Name, Service: s.Spec.Service.Namespace + "/" + s.Spec.Service.Name,
				Place: objectAt("apiservice", "", s.Metadata.Name, "spec.caBundle")}
			for _, c := range s.Status.Conditions {
				if c.Type == "Available" {
					b.Available = c.Status == metav1.ConditionTrue
					b.Message = shortened(c.Reason + ": " + c.Message)
				}
			}
			if s.Spec.Insecure {
				b.Place.Field = "spec.insecureSkipTLSVerify"
			}
			r.caBundle(b, s.Spec.CABundle, s.Spec.Insecure)
		}
	})
	if absent(err) {
		err = nil
	}
	return served, err
}

// caBundle notes a caBundle, which is not used where nothing is verified, and may be
// empty: then the API server trusts the authorities of its machine.
func (r *objectReader) caBundle(b trust.ObjectBundle, pem []byte, insecure bool) {
	b.Insecure, b.Default = insecure, !insecure && len(strings.TrimSpace(string(pem))) == 0
	if b.Insecure || b.Default {
		r.bare(b)
		return
	}
	r.bundle(b, pem)
}

// webhookList has what validating and mutating configurations have in common.
type webhookConfiguration struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
	Webhooks []struct {
		Name         string                          `json:"name"`
		ClientConfig admissionv1.WebhookClientConfig `json:"clientConfig"`
	} `json:"webhooks"`
}

// webhooks reads admission webhooks; those of one object with the same anchors and
// service are one bundle.
func (r *objectReader) webhooks(resource string) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		webhooks := 0
		_, err := eachPage(ctx, r.getter, "/apis/admissionregistration.k8s.io/v1/"+resource+"s", query(""), pageSize, "", func(page []webhookConfiguration) {
			for i := range page {
				webhooks += len(page[i].Webhooks)
				r.webhooksOf(resource, &page[i])
			}
		})
		if absent(err) {
			err = nil
		}
		return webhooks, err
	}
}

func (r *objectReader) webhooksOf(resource string, c *webhookConfiguration) {
	type of struct{ service, anchors string }
	var order []of
	same := map[of]*trust.ObjectBundle{}
	for _, w := range c.Webhooks {
		id := of{anchors: string(w.ClientConfig.CABundle)}
		if s := w.ClientConfig.Service; s != nil {
			id.service = s.Namespace + "/" + s.Name
		}
		p := objectAt(resource, "", c.Metadata.Name, "webhooks["+w.Name+"].clientConfig.caBundle")
		if b := same[id]; b != nil {
			b.Copies = append(b.Copies, p)
			continue
		}
		order = append(order, id)
		same[id] = &trust.ObjectBundle{Use: trust.WebhookCA, Name: w.Name, Service: id.service, Place: p}
	}
	for _, id := range order {
		r.caBundle(*same[id], []byte(id.anchors), false)
	}
}

// definition has the fields of a CustomResourceDefinition (apiextensions.k8s.io/v1)
// that tell who converts its objects.
type definition struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
	Spec     struct {
		Conversion *struct {
			Webhook *struct {
				ClientConfig *admissionv1.WebhookClientConfig `json:"clientConfig"`
			} `json:"webhook"`
		} `json:"conversion"`
	} `json:"spec"`
}

// definitionPage is the number of CustomResourceDefinitions in one answer: with
// their schemas they are large.
const definitionPage = 50

// conversions reads conversion webhooks; those with the same anchors and service are
// one bundle, for operators have dozens of them.
func (r *objectReader) conversions(ctx context.Context) (int, error) {
	type of struct{ service, anchors string }
	var order []of
	same := map[of]*trust.ObjectBundle{}
	found := 0
	_, err := eachPage(ctx, r.getter, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", query(""), definitionPage, "", func(page []definition) {
		for i := range page {
			c := page[i].Spec.Conversion
			if c == nil || c.Webhook == nil || c.Webhook.ClientConfig == nil {
				continue
			}
			found++
			id := of{anchors: string(c.Webhook.ClientConfig.CABundle)}
			if s := c.Webhook.ClientConfig.Service; s != nil {
				id.service = s.Namespace + "/" + s.Name
			}
			p := objectAt("customresourcedefinition", "", page[i].Metadata.Name, "spec.conversion.webhook.clientConfig.caBundle")
			if b := same[id]; b != nil {
				b.Copies = append(b.Copies, p)
				continue
			}
			order = append(order, id)
			same[id] = &trust.ObjectBundle{Use: trust.ConversionCA, Name: page[i].Metadata.Name, Service: id.service, Place: p}
		}
	})
	for _, id := range order {
		r.caBundle(*same[id], []byte(id.anchors), false)
	}
	if absent(err) {
		err = nil
	}
	return found, err
}

// nodes reads the addresses at which the API server dials kubelets.
func (r *objectReader) nodes(ctx context.Context) (int, error) {
	r.found.Nodes = []trust.NodeAddresses{}
	return eachPage(ctx, r.getter, "/api/v1/nodes", query(""), pageSize, "", func(page []corev1.Node) {
		for i := range page {
			n := trust.NodeAddresses{Name: page[i].Name}
			if port := page[i].Status.DaemonEndpoints.KubeletEndpoint.Port; port > 0 {
				n.Port = strconv.Itoa(int(port))
			}
			for _, a := range page[i].Status.Addresses {
				n.Addresses = append(n.Addresses, trust.NodeAddress{Type: string(a.Type), Address: a.Address})
			}
			r.found.Nodes = append(r.found.Nodes, n)
		}
	})
}

// service reads the addresses at which pods dial the API server.
func (r *objectReader) service(ctx context.Context) (int, error) {
	var s corev1.Service
	_, err := r.get(ctx, "/api/v1/namespaces/default/services/kubernetes", nil, "", &s)
	if absent(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for _, ip := range s.Spec.ClusterIPs {
		if net.ParseIP(ip) == nil {
			return 1, fmt.Errorf("its address %q is none", shortened(ip))
		}
		r.found.ServiceAddresses = append(r.found.ServiceAddresses, ip)
	}
	return 1, nil
}

// servingSigner is whose bundle kube-controller-manager publishes for pods
// (k8s.io/kubernetes/pkg/controller/certificates/clustertrustbundlepublisher).
const servingSigner = "kubernetes.io/kube-apiserver-serving"

// trustBundle has the fields of a ClusterTrustBundle, which are the same in all
// versions of certificates.k8s.io.
type trustBundle struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
	Spec     struct {
		SignerName  string `json:"signerName"`
		TrustBundle string `json:"trustBundle"`
	} `json:"spec"`
}

// trustBundles reads ClusterTrustBundles in the newest version that is served.
func (r *objectReader) trustBundles(ctx context.Context) (int, error) {
	for _, version := range []string{"v1", "v1beta1"} {
		count, err := eachPage(ctx, r.getter, "/apis/certificates.k8s.io/"+version+"/clustertrustbundles", query(""), pageSize, "", func(page []trustBundle) {
			for i := range page {
				b := trust.ObjectBundle{Use: trust.OtherTrust, Name: page[i].Metadata.Name, Place: objectAt("clustertrustbundle", "", page[i].Metadata.Name, "spec.trustBundle")}
				if page[i].Spec.SignerName == servingSigner {
					b.Use = trust.ServingCA
				}
				r.bundle(b, []byte(page[i].Spec.TrustBundle))
			}
		})
		if !absent(err) {
			return count, err
		}
	}
	return 0, nil
}
