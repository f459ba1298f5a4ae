package catalog

import (
	"cmp"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// KubeletPort is the kubelet's for the API
// (k/k pkg/cluster/ports/ports.go).
const KubeletPort = 10250

// Servers returns the addresses at which the components of a graph serve TLS,
// as they are configured, with the links that lead there: first those of the
// components, then the endpoints of kubeconfigs and etcd members elsewhere.
func Servers(g *trust.Graph) []trust.Server {
	s := &servers{wirer: wirer{g: g}}
	for _, add := range []struct {
		component string
		add       func(*trust.Node, *trust.Component)
	}{
		{Etcd, s.etcd}, {APIServer, s.apiserver}, {Kubelet, s.kubelet},
		{ControllerManager, s.metrics(ControllerManagerPort)}, {Scheduler, s.metrics(SchedulerPort)},
	} {
		s.each(add.component, add.add)
	}
	s.endpoints()
	s.etcdElsewhere()
	s.nodesOfAPI()
	return s.all
}

type servers struct {
	wirer
	all []trust.Server
}

// add completes a server with what all have in common.
func (s *servers) add(n *trust.Node, c *trust.Component, v trust.Server, certFlag string, clientFlags ...string) {
	v.Component, v.NodeName, v.Local = c.ID(), n.NodeName, n.Live
	certificate := file(n, c, certFlag)
	for _, known := range s.g.Credentials {
		if known.Certificate == certificate && !certificate.IsZero() {
			v.Credential = known
		}
	}
	for _, flag := range clientFlags {
		if at := file(n, c, flag); !at.IsZero() {
			v.ClientCAs = append(v.ClientCAs, at)
		}
	}
	v.Settings = places(cmp.Or(c.Source, certificate, file(n, c, "kubeconfig"), s.dir(n)))
	if host, _ := SplitHostPort(v.Address); v.Skip == "" && isLoopback(host) && !n.Live {
		v.Skip = "listens on " + host + " alone, which only its own node can dial"
	}
	for i, l := range s.g.Links {
		if l.Callee == v.Component && !isSNI(l.Server) && (l.Number == 1) == (v.Kind == trust.ServesEtcdPeers) {
			v.Links = append(v.Links, i)
		}
	}
	s.all = append(s.all, v)
}

func places(in ...trust.Place) []trust.Place {
	return unique(slices.DeleteFunc(in, trust.Place.IsZero))
}

func (s *servers) dir(n *trust.Node) trust.Place {
	return trust.Place{Node: n.Name, Path: certificatesDir(n)}
}

// etcd serves clients and peers. A manifest names URLs; without one kubeadm's
// member listens on the address of its node.
func (s *servers) etcd(n *trust.Node, c *trust.Component) {
	for _, p := range []struct {
		kind               trust.ServerKind
		cert, ca           string
		port               int
		advertised, listen string
	}{
		{trust.ServesEtcd, "cert-file", "trusted-ca-file", EtcdClientPort, "advertise-client-urls", "listen-client-urls"},
		{trust.ServesEtcdPeers, "peer-cert-file", "peer-trusted-ca-file", EtcdPeerPort, "initial-advertise-peer-urls", "listen-peer-urls"},
	} {
		if _, served := c.Flag(p.cert); !served {
			continue
		}
		v := trust.Server{Kind: p.kind, Address: reachable(append(addresses(c, p.advertised), addresses(c, p.listen)...))}
		if host := s.address(n); v.Address == "" && host != "" {
			v.Address = hostPort(host, p.port)
		}
		s.add(n, c, unknownAddress(v), p.cert, p.ca)
	}
}

func (s *servers) apiserver(n *trust.Node, c *trust.Component) {
	port := flagOr(c, "secure-port", strconv.Itoa(DefaultBindPort))
	v := trust.Server{Kind: trust.ServesAPI}
	if host := listening(c, "bind-address"); host != "" {
		v.Address = joinHostPort(host, port)
	} else if host := s.advertised(n, c); host != "" {
		_, named := c.Flag("secure-port")
		v.Address = joinHostPort(host, port)
		if k := s.kubeconfigOf(n, Scheduler); !named && k != nil {
			if h, p, ok := serverOf(k); ok && h == host {
				v.Address = joinHostPort(h, p)
			}
		}
	} else if n.Live {
		v.Address = joinHostPort("127.0.0.1", port)
	}
	s.add(n, c, unknownAddress(v), "tls-cert-file", "client-ca-file", "requestheader-client-ca-file")
}

func (s *servers) kubelet(n *trust.Node, c *trust.Component) {
	v := trust.Server{Kind: trust.ServesKubelet}
	host := cmp.Or(listening(c, "address"), listening(c, "node-ip"), s.address(n))
	if host == "" && n.Live {
		host = "127.0.0.1"
	}
	if host != "" {
		v.Address = joinHostPort(host, flagOr(c, "port", strconv.Itoa(KubeletPort)))
	}
	s.add(n, c, unknownAddress(v), "tls-cert-file", "client-ca-file")
}

// metrics is the port of a component that serves for scrapers and probes alone.
// Without a manifest nobody knows that it serves, or where.
func (s *servers) metrics(defaultPort int) func(*trust.Node, *trust.Component) {
	return func(n *trust.Node, c *trust.Component) {
		port := flagOr(c, "secure-port", strconv.Itoa(defaultPort))
		if c.Source.IsZero() || port == "0" {
			return
		}
		host := listening(c, "bind-address")
		if host == "" {
			host = cmp.Or(s.address(n), "127.0.0.1")
		}
		// Without a file of its own it trusts what the API publishes.
		s.add(n, c, trust.Server{Kind: trust.ServesMetrics, Address: joinHostPort(host, port)}, "tls-cert-file")
	}
}

func unknownAddress(v trust.Server) trust.Server {
	if v.Address == "" {
		v.Skip = "no file tells its address"
	}
	return v
}

// address is where a node is reached: where its apiserver or etcd is, or the
// one address in the certificate that its kubelet serves.
func (s *servers) address(n *trust.Node) string {
	for i := range n.Components {
		c := &n.Components[i]
		switch c.Name {
		case APIServer:
			if a := s.advertised(n, c); a != "" {
				return a
			}
		case Etcd:
			if at := reachable(addresses(c, "advertise-client-urls")); at != "" {
				host, _ := SplitHostPort(at)
				return host
			}
		}
	}
	for i := range n.Components {
		c := &n.Components[i]
		leaf := s.g.Material(file(n, c, "tls-cert-file")).Leaf()
		if c.Name == Kubelet && leaf != nil && len(leaf.IPAddresses) == 1 {
			return leaf.IPAddresses[0].String()
		}
	}
	return ""
}

// listening is the host of a flag, empty when it is every address or not set.
func listening(c *trust.Component, flag string) string {
	v, _ := c.Flag(flag)
	v, _, _ = strings.Cut(v, ",")
	a, err := netip.ParseAddr(v)
	if v == "" || err != nil || a.IsUnspecified() {
		return ""
	}
	return v
}

func flagOr(c *trust.Component, flag, other string) string {
	if v, ok := c.Flag(flag); ok {
		return v
	}
	return other
}

// addresses are HOST:PORT of a flag's URLs that use TLS, wildcards left out.
func addresses(c *trust.Component, flag string) []string {
	value, _ := c.Flag(flag)
	var out []string
	for raw := range strings.SplitSeq(value, ",") {
		u, err := url.Parse(strings.TrimSpace(raw))
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" {
			continue
		}
		if a, err := netip.ParseAddr(u.Hostname()); err == nil && a.IsUnspecified() {
			continue
		}
		out = append(out, joinHostPort(u.Hostname(), u.Port()))
	}
	return out
}

// reachable is the first address that others can dial, or else the first.
func reachable(addresses []string) string {
	for _, a := range addresses {
		if host, _ := SplitHostPort(a); !isLoopback(host) {
			return a
		}
	}
	if len(addresses) > 0 {
		return addresses[0]
	}
	return ""
}

// endpoints are the addresses that kubeconfigs dial where no apiserver of the
// graph listens itself: a load balancer, or an apiserver whose node was not given.
func (s *servers) endpoints() {
	own := map[string]bool{}
	for _, v := range s.all {
		own[v.Address] = own[v.Address] || v.Kind == trust.ServesAPI
	}
	index := map[string]int{}
	for i, l := range s.g.Links {
		if l.Server == nil || l.Server.Dialled == nil {
			continue
		}
		n, k := s.kubeconfig(l.Server.Dialled.Setting.File())
		if k == nil {
			continue
		}
		host, port, ok := serverOf(k)
		at := joinHostPort(host, port)
		if !ok || own[at] && !isLoopback(host) || strings.HasPrefix(k.Server, "http:") {
			continue
		}
		v := trust.Server{Component: "endpoint " + at, Kind: trust.ServesEndpoint, Address: at, Local: n.Live}
		key := at
		if isLoopback(host) {
			if own[at] && n.Live {
				continue
			}
			key = n.Name + "/" + at
			if !n.Live {
				continue // the node's own apiserver, or its load balancer
			}
		}
		j, seen := index[key]
		if !seen {
			j = len(s.all)
			index[key] = j
			s.all = append(s.all, v)
		}
		s.all[j].Settings = places(append(s.all[j].Settings, l.Server.Dialled.Setting)...)
		s.all[j].Links = append(s.all[j].Links, i)
	}
}

func (s *servers) kubeconfig(at trust.Place) (*trust.Node, *trust.Kubeconfig) {
	for i := range s.g.Nodes {
		if k := kubeconfigAt(&s.g.Nodes[i], at); k != nil {
			return &s.g.Nodes[i], k
		}
	}
	return nil, nil
}

// etcdElsewhere are the members that apiservers dial while no node with etcd
// was given.
func (s *servers) etcdElsewhere() {
	for i, l := range s.g.Links {
		if l.Number != 3 || l.Callee != "etcd elsewhere" {
			continue
		}
		s.each(APIServer, func(n *trust.Node, c *trust.Component) {
			if c.ID() != l.Caller {
				return
			}
			for _, at := range addresses(c, "etcd-servers") {
				if host, _ := SplitHostPort(at); isLoopback(host) && !n.Live {
					continue
				}
				v := slices.IndexFunc(s.all, func(v trust.Server) bool { return v.Kind == trust.ServesElsewhere && v.Address == at })
				if v < 0 {
					v = len(s.all)
					s.all = append(s.all, trust.Server{Component: "etcd at " + at, Kind: trust.ServesElsewhere, Address: at, Settings: places(cmp.Or(c.Source, s.dir(n)))})
				}
				s.all[v].Links = append(s.all[v].Links, i)
			}
		})
	}
}
