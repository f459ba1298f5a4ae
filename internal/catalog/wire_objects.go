package catalog

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// apiserverAsked names the API server in links when none of its files were given:
// what answers at the kubeconfig's address.
const apiserverAsked = APIServer

// objectLinks are the links that the API's own objects make: who trusts the API
// server by them (4, 9, 16, 17), and whom the API server trusts by them (13, 14).
func (w *wirer) objectLinks() {
	o := w.g.Objects()
	if o == nil {
		return
	}
	for _, callee := range w.asked(o) {
		w.reachedBy(o, callee)
		for i := range o.Bundles {
			b := &o.Bundles[i]
			switch b.Use {
			case trust.RootCA:
				w.trusts(17, "pod of "+namespaceOf(b.Place)+more(len(b.Copies)), callee, b, callee.service)
			case trust.TokenCA:
				w.trusts(17, "user of a token of "+namespaceOf(b.Place)+more(len(b.Copies)), callee, b, callee.service)
			case trust.ServingCA:
				w.trusts(17, "pod by ClusterTrustBundle", callee, b, callee.service)
			case trust.DiscoveryCA:
				w.trusts(16, "joining kubelet (cluster-info)", callee, b, nil)
			}
		}
	}
	for i := range o.Bundles {
		b := &o.Bundles[i]
		if number := map[trust.BundleUse]int{trust.ServiceCA: 13, trust.WebhookCA: 14, trust.ConversionCA: 14}[b.Use]; number != 0 {
			w.serves(number, b)
		}
	}
}

// asked is an API server in the eyes of those who trust it by objects.
type asked struct {
	id         string
	files      bool // it is one of the nodes'
	credential *trust.Credential
	service    []string // names at which pods dial it
}

// asked are the API servers whose files were given; without any, what the one that
// was asked presented, provided that pods are presented the same.
func (w *wirer) asked(o *trust.Objects) []asked {
	var all []asked
	w.each(APIServer, func(n *trust.Node, c *trust.Component) {
		all = append(all, asked{c.ID(), true, w.serving(n, c), unique(append(w.serviceNames(n, c), o.ServiceAddresses...))})
	})
	if len(all) > 0 || o.Presented.IsZero() {
		return all
	}
	a := asked{id: apiserverAsked, service: append([]string{"kubernetes.default.svc"}, o.ServiceAddresses...)}
	if !o.Insecure {
		a.credential = w.credentialAt("apiserver", trust.ClusterNode, o.Presented, trust.Place{}, server)
	}
	return []asked{a}
}

// reachedBy are links 4 and 9: the names at which kubeadm's settings say that the
// API server is reached, and the kubeconfig itself.
func (w *wirer) reachedBy(o *trust.Objects, callee asked) {
	if names := KubeadmNames(o); len(names) > 0 && (callee.files || o.Inside) {
		w.link(trust.Link{Number: 4, Caller: "any client", Callee: callee.id, Server: &trust.ServerHalf{Credential: callee.credential, Bundle: w.authorityBundle(o, callee), Names: names}})
	}
	if !o.CA.IsZero() {
		w.link(trust.Link{Number: 9, Caller: "user " + cmp.Or(o.User, "of the kubeconfig"), Callee: callee.id,
			Server: &trust.ServerHalf{Credential: callee.credential, Bundle: w.bundleAt(o.CA, o.CA, false), Unverified: o.Insecure}})
	}
}

// authorityBundle is that of a careful client: the authority's own file, or the
// kubeconfig's.
func (w *wirer) authorityBundle(o *trust.Objects, callee asked) *trust.Bundle {
	node, _ := trust.SplitID(callee.id)
	for i := range w.g.Nodes {
		if n := &w.g.Nodes[i]; n.Name == node && n.Objects == nil {
			return w.ownAuthority(n, "apiserver", ClusterCA)
		}
	}
	if o.CA.IsZero() {
		return nil
	}
	return w.bundleAt(o.CA, o.CA, false)
}

// KubeadmNames are the names that kubeadm's settings put into the API server's
// certificate, beside those that it always holds.
func KubeadmNames(o *trust.Objects) []string {
	if o == nil || o.Kubeadm == nil {
		return nil
	}
	k := o.Kubeadm
	var names []string
	if k.ControlPlaneEndpoint != "" {
		host, _ := SplitHostPort(k.ControlPlaneEndpoint)
		names = append(names, host)
	}
	names = append(names, k.CertSANs...)
	if k.DNSDomain != "" {
		names = append(names, "kubernetes.default.svc."+k.DNSDomain)
	}
	// The service's own addresses, where they were read, say it better.
	if a, err := ServiceAddress(k.ServiceSubnet); err == nil && len(o.ServiceAddresses) == 0 {
		names = append(names, a.String())
	}
	return slices.DeleteFunc(unique(names), func(name string) bool { return name == "" })
}

// trusts is the link of somebody who trusts the API server by an object.
func (w *wirer) trusts(number int, caller string, callee asked, b *trust.ObjectBundle, names []string) {
	credential := callee.credential
	if o := w.g.Objects(); credential != nil && credential.Certificate == o.Presented && !o.Inside {
		credential = nil // something stands before the API server, which pods do not see
	}
	w.link(trust.Link{Number: number, Caller: caller, Callee: callee.id,
		Server: &trust.ServerHalf{Credential: credential, Bundle: w.bundleAt(b.Place, b.Place, false), Names: names}})
}

// serves is the link to what stands behind an APIService or a webhook: its
// certificate is not in the API.
func (w *wirer) serves(number int, b *trust.ObjectBundle) {
	half := &trust.ServerHalf{Unverified: b.Insecure}
	if !b.Insecure && !b.Default {
		half.Bundle = w.bundleAt(b.Place, b.Place, false)
	}
	callee := map[trust.BundleUse]string{trust.ServiceCA: "extension apiserver ", trust.WebhookCA: "webhook ", trust.ConversionCA: "conversion of "}[b.Use] + b.Name
	w.link(trust.Link{Number: number, Caller: APIServer, Callee: callee + more(len(b.Copies)), Server: half})
}

// namespaceOf is that of RESOURCE/NAMESPACE/NAME.
func namespaceOf(p trust.Place) string {
	_, rest, _ := strings.Cut(p.Path, "/")
	namespace, _, _ := strings.Cut(rest, "/")
	return namespace
}

func more(n int) string {
	if n == 0 {
		return ""
	}
	return " and " + strconv.Itoa(n) + " more"
}

// kubeletDialled are the names at which an API server dials a kubelet: the first of
// its Node's addresses by --kubelet-preferred-address-types
// (k8s.io/kubernetes/pkg/kubelet/client), or, where the Node was not read, the
// name that each serving certificate holds.
func (w *wirer) kubeletDialled(n *trust.Node, apiserver *trust.Component) []string {
	node := w.g.Objects().Node(n.NodeName)
	if node == nil || n.NodeName == "" {
		return nodeNames(n)
	}
	types := list(apiserver, "kubelet-preferred-address-types")
	if len(types) == 0 {
		types = []string{"Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"}
	}
	for _, kind := range types {
		for _, a := range node.Addresses {
			if a.Type == kind {
				return []string{a.Address}
			}
		}
	}
	return nodeNames(n)
}

// nodesOfAPI are the kubelets of Nodes whose files were not given, at the address that
// kubeadm's API servers prefer. Nothing of their own is known beside.
func (s *servers) nodesOfAPI() {
	o := s.g.Objects()
	if o == nil {
		return
	}
	given := map[string]bool{}
	for i := range s.g.Nodes {
		given[s.g.Nodes[i].NodeName], given[s.g.Nodes[i].Name] = true, true
	}
	for _, n := range o.Nodes {
		if given[n.Name] {
			continue
		}
		v := trust.Server{Component: n.Name + "/" + Kubelet, Kind: trust.ServesNode, NodeName: n.Name, Settings: places(trust.Place{Node: trust.ClusterNode, Path: "node/" + n.Name})}
		for _, kind := range []string{"InternalIP", "ExternalIP", "Hostname"} {
			i := slices.IndexFunc(n.Addresses, func(a trust.NodeAddress) bool { return a.Type == kind })
			if i >= 0 {
				v.Address = joinHostPort(n.Addresses[i].Address, cmp.Or(n.Port, strconv.Itoa(KubeletPort)))
				break
			}
		}
		s.all = append(s.all, unknownAddress(v))
	}
}
