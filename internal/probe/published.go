package probe

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// publications asks an apiserver what it publishes, with the first credentials
// that it let in. The word of one whose certificate does not verify is not taken.
func (p *prober) publications(ctx context.Context, o *trust.Observation) {
	if o.Server.Kind != trust.ServesAPI || !p.verified(o) || len(admitted(o)) == 0 {
		return
	}
	// A server that answers slowly is not asked for long.
	ctx, cancel := context.WithTimeout(ctx, 2*p.Timeout)
	defer cancel()
	o.Published = &trust.Published{KeyIDs: p.keyIDs(ctx, o), APIServices: p.apiServices(ctx, o)}
	var config struct {
		Data map[string]string `json:"data"`
	}
	if p.get(ctx, o, "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication", &config) == http.StatusOK {
		o.Published.ClientCAs = anchors(config.Data["client-ca-file"])
		o.Published.RequestheaderCAs = anchors(config.Data["requestheader-client-ca-file"])
	}
	config.Data = nil
	if p.get(ctx, o, "/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt", &config) == http.StatusOK {
		o.Published.RootCAs = anchors(config.Data["ca.crt"])
	}
}

// verified tells whether what a server presented is good in the eyes of a
// caller that verifies it.
func (p *prober) verified(o *trust.Observation) bool {
	return o.Outcome == trust.Answered && slices.ContainsFunc(o.Server.Links, func(i int) bool {
		h := p.graph.Links[i].Server
		return h != nil && h.Bundle != nil && !h.Unverified && p.graph.Material(h.Bundle.Anchors).OK() &&
			len(p.graph.JudgePresented(o.Chain, h, p.At)) == 0
	})
}

// admitted are the credentials that a server let in, those of administrators
// first.
func admitted(o *trust.Observation) []*trust.Credential {
	var all []*trust.Credential
	for _, c := range o.Calls {
		if c.Outcome == trust.Answered && c.User != "" {
			all = append(all, c.Credential)
		}
	}
	rank := func(c *trust.Credential) int {
		if i := slices.Index([]string{"super-admin.conf", "admin.conf", "apiserver-kubelet-client"}, c.Name); i >= 0 {
			return i
		}
		return 3
	}
	slices.SortStableFunc(all, func(a, b *trust.Credential) int { return cmp.Compare(rank(a), rank(b)) })
	return all
}

// tries bounds the credentials with which one thing is asked.
const tries = 4

// get reads an object with the first credential that may, and returns the last
// status; 0 when there was no answer, or none that parses.
func (p *prober) get(ctx context.Context, o *trust.Observation, path string, into any) int {
	credentials := admitted(o)
	last := 0
	for _, c := range credentials[:min(len(credentials), tries)] {
		status, body, _, err := p.ask(ctx, o.Server.Address, c, request{method: http.MethodGet, path: path})
		if err != nil {
			return 0
		}
		last = status
		switch status {
		case http.StatusOK:
			if json.Unmarshal(body, into) != nil {
				return 0
			}
			return status
		case http.StatusForbidden:
			continue
		}
		return status
	}
	return last
}

// keyIDs are those of the keys that the apiserver verifies tokens with.
func (p *prober) keyIDs(ctx context.Context, o *trust.Observation) []string {
	var set struct {
		Keys []struct {
			ID string `json:"kid"`
		} `json:"keys"`
	}
	if p.get(ctx, o, "/openid/v1/jwks", &set) != http.StatusOK {
		return nil
	}
	ids := []string{}
	for _, k := range set.Keys {
		ids = append(ids, k.ID)
	}
	return ids
}

// anchors parses the certificates of a ConfigMap; what does not parse is empty.
func anchors(text string) []*x509.Certificate {
	certificates, err := trust.ParseCertificates([]byte(text))
	if err != nil || certificates == nil {
		return []*x509.Certificate{}
	}
	return certificates
}

// apiServiceList has the fields of k8s.io/kube-aggregator/pkg/apis/apiregistration/v1
// APIServiceList that matter to trust.
type apiServiceList struct {
	Items []struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Spec struct {
			Service *struct {
				Namespace string `json:"namespace"`
				Name      string `json:"name"`
			} `json:"service"`
			CABundle []byte `json:"caBundle"`
			Insecure bool   `json:"insecureSkipTLSVerify"`
		} `json:"spec"`
		Status struct {
			Conditions []struct {
				Type    string `json:"type"`
				Status  string `json:"status"`
				Reason  string `json:"reason"`
				Message string `json:"message"`
			} `json:"conditions"`
		} `json:"status"`
	} `json:"items"`
}

// apiServices are those that a Service of the cluster stands behind.
func (p *prober) apiServices(ctx context.Context, o *trust.Observation) []trust.APIService {
	var list apiServiceList
	if p.get(ctx, o, "/apis/apiregistration.k8s.io/v1/apiservices", &list) != http.StatusOK {
		return nil
	}
	all := []trust.APIService{}
	for _, i := range list.Items {
		if i.Spec.Service == nil {
			continue // served by the apiserver itself
		}
		s := trust.APIService{Name: i.Metadata.Name, Service: i.Spec.Service.Namespace + "/" + i.Spec.Service.Name, Insecure: i.Spec.Insecure}
		if len(i.Spec.CABundle) > 0 {
			s.CABundle = anchors(string(i.Spec.CABundle))
		}
		for _, c := range i.Status.Conditions {
			if c.Type == "Available" {
				s.Available, s.Reason, s.Message = c.Status == "True", c.Reason, c.Message
			}
		}
		all = append(all, s)
	}
	return all
}

// nodeStatus has the fields of a Node (k8s.io/api/core/v1) that tell where its
// kubelet is.
type nodeStatus struct {
	Status struct {
		Addresses []struct {
			Type    string `json:"type"`
			Address string `json:"address"`
		} `json:"addresses"`
		DaemonEndpoints struct {
			KubeletEndpoint struct {
				Port int `json:"Port"`
			} `json:"kubeletEndpoint"`
		} `json:"daemonEndpoints"`
	} `json:"status"`
}

// address is HOST:PORT by the first type of address, in the order of kubeadm's
// --kubelet-preferred-address-types; empty when the node has none.
func (n *nodeStatus) address() string {
	port := cmp.Or(n.Status.DaemonEndpoints.KubeletEndpoint.Port, 10250)
	for _, kind := range []string{"InternalIP", "ExternalIP", "Hostname"} {
		for _, a := range n.Status.Addresses {
			if a.Type == kind {
				return net.JoinHostPort(a.Address, strconv.Itoa(port))
			}
		}
	}
	return ""
}

// locate asks the API where a kubelet is, as its apiservers do: a node says so
// itself. Without an answer the files' word stands.
func (p *prober) locate(ctx context.Context, o *trust.Observation, seen []trust.Observation) {
	name := o.Server.NodeName
	if name == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*p.Timeout)
	defer cancel()
	for i := range seen {
		if kind := seen[i].Server.Kind; kind != trust.ServesAPI && kind != trust.ServesEndpoint || !p.verified(&seen[i]) {
			continue
		}
		var node nodeStatus
		switch p.get(ctx, &seen[i], "/api/v1/nodes/"+url.PathEscape(strings.ToLower(name)), &node) {
		case http.StatusNotFound:
			o.Server.Skip = "the cluster has no such node"
			return
		case http.StatusOK:
			if at := node.address(); at != "" {
				o.Server.Address, o.Server.Skip = at, ""
				return
			}
		}
	}
}
