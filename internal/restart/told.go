package restart

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// Told asks the API what the kubelet of a target's node has told it since a time: of a
// static pod its mirror pod, that the container has started since and is ready; of the
// kubelet itself the lease of its node, which it renews with its own credential. It
// asks as the kubelet, with the credential of its kubeconfig. Where the API cannot be
// asked so, it says nothing: other proofs tell.
func (m *Machine) Told(ctx context.Context, c Cluster, t *Target, since time.Time) error {
	api, err := c.asKubelet(t.Node)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	since = since.Truncate(time.Second) // as precise as what is told of containers
	switch {
	case t.Component == catalog.Kubelet:
		return api.lease(ctx, since)
	case t.Kind != StaticPod:
		return nil
	}
	content, err := layout.ReadFile(m.Root, t.Source.Path)
	if err != nil {
		return err
	}
	pod, err := layout.ParseStaticPod(content.Data)
	if err != nil {
		return fmt.Errorf("%s: %w", t.Source.Path, err)
	}
	return api.mirrorPod(ctx, pod, since)
}

// kubeletClient calls the API server as a node's kubelet does.
type kubeletClient struct {
	server string // URL
	node   string // its Kubernetes name
	client *http.Client
}

// asKubelet makes one of the kubeconfig of a node's kubelet.
func (c Cluster) asKubelet(node string) (*kubeletClient, error) {
	k := c.kubeconfigOfKubelet(node)
	if k == nil || k.Insecure {
		return nil, errors.New("no kubeconfig of the kubelet")
	}
	pair := c.pair(&trust.Credential{Certificate: k.Certificate, Key: k.Key})
	authorities := c.Graph.Material(k.CA)
	server, err := url.Parse(k.Server)
	if pair == nil || !authorities.OK() || err != nil || server.Scheme != "https" {
		return nil, errors.New("no credential of the kubelet")
	}
	name, isNode := strings.CutPrefix(pair.Leaf.Subject.CommonName, "system:node:")
	if !isNode {
		return nil, errors.New("no credential of a node")
	}
	pool := x509.NewCertPool()
	for _, x := range authorities.Certificates {
		pool.AddCert(x)
	}
	config := &tls.Config{Certificates: []tls.Certificate{*pair}, RootCAs: pool, ServerName: k.ServerName, MinVersion: tls.VersionTLS12, Time: c.now()}
	return &kubeletClient{strings.TrimSuffix(k.Server, "/"), name, callOnce(config, c.Probe.Dial)}, nil
}

func (c Cluster) kubeconfigOfKubelet(node string) *trust.Kubeconfig {
	at, ok := kubeletOf(c.Graph, node).Flag("kubeconfig")
	if !ok {
		at = catalog.KubernetesDir + "/kubelet.conf" // kubeadm's unit
	}
	for i := range c.Graph.Nodes {
		n := &c.Graph.Nodes[i]
		for j := range n.Kubeconfigs {
			if k := &n.Kubeconfigs[j]; n.Name == node && k.Place.Path == at && k.State == trust.Present {
				return k
			}
		}
	}
	return nil
}

// get reads an object; found is false where it is not there, and an error that the
// API does not let us or does not answer.
func (k *kubeletClient) get(ctx context.Context, path string, into any) (found bool, err error) {
	status, text, err := ask(ctx, k.server+path, k.client)
	switch {
	case err != nil:
		return false, err
	case status == http.StatusNotFound:
		return false, nil
	case status != http.StatusOK:
		return false, fmt.Errorf("the API server says %d", status)
	}
	return true, json.Unmarshal([]byte(text), into)
}

// lease is that of the node (k/k pkg/kubelet, component-helpers/apimachinery/lease).
func (k *kubeletClient) lease(ctx context.Context, since time.Time) error {
	var lease struct {
		Spec struct {
			Renewed time.Time `json:"renewTime"`
		} `json:"spec"`
	}
	found, err := k.get(ctx, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/"+url.PathEscape(k.node), &lease)
	switch {
	case err != nil:
		return nil //nolint:nilerr // see Told
	case !found || lease.Spec.Renewed.Before(since):
		return fmt.Errorf("the API server has not heard of it since: the lease of node %s is not renewed", k.node)
	}
	return nil
}

// mirrorPod is what the kubelet shows of a static pod.
func (k *kubeletClient) mirrorPod(ctx context.Context, pod layout.StaticPod, since time.Time) error {
	var mirror struct {
		Status struct {
			Containers []struct {
				Name  string `json:"name"`
				Ready bool   `json:"ready"`
				State struct {
					Running *struct {
						Started time.Time `json:"startedAt"`
					} `json:"running"`
				} `json:"state"`
			} `json:"containerStatuses"`
		} `json:"status"`
	}
	name := pod.Name + "-" + k.node
	found, err := k.get(ctx, "/api/v1/namespaces/"+url.PathEscape(pod.Namespace)+"/pods/"+url.PathEscape(name), &mirror)
	switch {
	case err != nil:
		return nil //nolint:nilerr // see Told
	case !found:
		return fmt.Errorf("the kubelet shows no mirror pod %s/%s yet", pod.Namespace, name)
	}
	for _, c := range mirror.Status.Containers {
		switch {
		case c.Name != pod.Container:
			continue
		case c.State.Running == nil || c.State.Running.Started.Before(since):
			return fmt.Errorf("the kubelet does not tell yet that container %s of %s/%s has started", c.Name, pod.Namespace, name)
		case !c.Ready:
			return fmt.Errorf("the kubelet tells that container %s of %s/%s is not ready", c.Name, pod.Namespace, name)
		}
		return nil
	}
	return fmt.Errorf("the kubelet tells nothing yet of container %s of %s/%s", pod.Container, pod.Namespace, name)
}
