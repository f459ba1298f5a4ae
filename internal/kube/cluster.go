package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/csr"
)

// Cluster reads what no node may claim: the service ranges, the cluster's domain
// and the endpoints of the API server. What is not there, or what the caller
// may not read, is left out and named in missing; an error means that the API
// server could not be asked.
//
// Its sources are the objects ServiceCIDR, the service default/kubernetes with
// its EndpointSlices, and kubeadm's ConfigMaps kube-system/kubeadm-config and
// kube-public/cluster-info.
func Cluster(ctx context.Context, client kubernetes.Interface) (c csr.Cluster, missing []error, err error) {
	r := clusterReader{ctx: ctx, client: client}
	for _, step := range []struct {
		name string
		read func() error
	}{
		{"ServiceCIDRs", r.serviceCIDRs},
		{"service default/kubernetes", r.service},
		{"EndpointSlices of default/kubernetes", r.endpoints},
		{"ConfigMap kube-system/kubeadm-config", r.kubeadm},
		{"ConfigMap kube-public/cluster-info", r.clusterInfo},
	} {
		err := step.read()
		var malformed *malformedError
		switch {
		case err == nil:
		case apierrors.IsNotFound(err), apierrors.IsForbidden(err), errors.As(err, &malformed):
			missing = append(missing, fmt.Errorf("%s: %w", step.name, err))
		default:
			return csr.Cluster{}, nil, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return r.found, missing, nil
}

// malformedError tells that an object is there and cannot be understood.
type malformedError struct{ error }

type clusterReader struct {
	ctx    context.Context //nolint:containedctx // it lives for one reading
	client kubernetes.Interface
	found  csr.Cluster
}

func (r *clusterReader) serviceCIDRs() error {
	list, err := r.client.NetworkingV1().ServiceCIDRs().List(r.ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, o := range list.Items {
		for _, text := range o.Spec.CIDRs {
			if err := r.addRange(text); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *clusterReader) addRange(text string) error {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return &malformedError{err}
	}
	if p = p.Masked(); !slices.Contains(r.found.ServiceRanges, p) {
		r.found.ServiceRanges = append(r.found.ServiceRanges, p)
	}
	return nil
}

// service has the first address of each range, which nobody else may have even
// where the ranges cannot be read.
func (r *clusterReader) service() error {
	o, err := r.client.CoreV1().Services(metav1.NamespaceDefault).Get(r.ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, ip := range o.Spec.ClusterIPs {
		r.addEndpoint(ip)
	}
	return nil
}

func (r *clusterReader) endpoints() error {
	list, err := r.client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).List(r.ctx,
		metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=kubernetes"})
	if err != nil {
		return err
	}
	for _, slice := range list.Items {
		for _, e := range slice.Endpoints {
			for _, ip := range e.Addresses {
				r.addEndpoint(ip)
			}
		}
	}
	return nil
}

// kubeadmConfig is the part of kubeadm's ClusterConfiguration that matters here.
type kubeadmConfig struct {
	ControlPlaneEndpoint string `json:"controlPlaneEndpoint"`
	APIServer            struct {
		CertSANs []string `json:"certSANs"`
	} `json:"apiServer"`
	Networking struct {
		DNSDomain string `json:"dnsDomain"`
	} `json:"networking"`
}

func (r *clusterReader) kubeadm() error {
	o, err := r.configMap(metav1.NamespaceSystem, "kubeadm-config")
	if err != nil {
		return err
	}
	var config kubeadmConfig
	if err := yaml.Unmarshal([]byte(o.Data["ClusterConfiguration"]), &config); err != nil {
		return &malformedError{fmt.Errorf("ClusterConfiguration: %w", err)}
	}
	r.found.Domain = config.Networking.DNSDomain
	for _, endpoint := range append(config.APIServer.CertSANs, config.ControlPlaneEndpoint) {
		r.addEndpoint(endpoint)
	}
	return nil
}

func (r *clusterReader) clusterInfo() error {
	o, err := r.configMap(metav1.NamespacePublic, "cluster-info")
	if err != nil {
		return err
	}
	config, err := clientcmd.Load([]byte(o.Data["kubeconfig"]))
	if err != nil {
		return &malformedError{errors.New("kubeconfig does not parse")}
	}
	for _, cluster := range config.Clusters {
		u, err := url.Parse(cluster.Server)
		if err != nil {
			return &malformedError{fmt.Errorf("server %q is no URL", cluster.Server)}
		}
		r.addEndpoint(u.Host)
	}
	return nil
}

func (r *clusterReader) configMap(namespace, name string) (*corev1.ConfigMap, error) {
	return r.client.CoreV1().ConfigMaps(namespace).Get(r.ctx, name, metav1.GetOptions{})
}

// addEndpoint adds a name or an address, which may have a port.
func (r *clusterReader) addEndpoint(text string) {
	if host, _, err := net.SplitHostPort(text); err == nil {
		text = host
	}
	if text != "" && !slices.Contains(r.found.Endpoints, text) {
		r.found.Endpoints = append(r.found.Endpoints, text)
	}
}
