package csr

import (
	"net"
	"net/netip"
	"slices"
	"strings"
)

// lower writes ASCII letters small and leaves all else: Unicode has letters
// whose small form is an ASCII letter.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// isLabels tells whether a name is made of labels of letters, digits and inner
// hyphens (RFC 1123 section 2.1), none longer than given.
func isLabels(name string, longest int) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > longest || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if !isAlphanumeric(label[i]) && label[i] != '-' {
				return false
			}
		}
	}
	return true
}

func isHostName(name string) bool { return isLabels(name, 63) }

// isNodeName follows ValidateNodeName of k/k pkg/apis/core/validation: an RFC
// 1123 subdomain, whose labels Kubernetes does not bound.
func isNodeName(name string) bool { return isLabels(name, 253) && name == lower(name) }

// isAddressText tells whether a name is one that a resolver takes for an
// address: in the forms of netip, and in those of inet_aton, where each part is
// a number, decimal, octal or hexadecimal.
func isAddressText(name string) bool {
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return true
	}
	for part := range strings.SplitSeq(name, ".") {
		digits := "0123456789"
		if hex, ok := strings.CutPrefix(lower(part), "0x"); ok {
			part, digits = hex, "0123456789abcdef"
		}
		if part == "" || strings.Trim(part, digits) != "" {
			return false
		}
	}
	return true
}

// cluster is a [Cluster] in the forms in which it is compared.
type cluster struct {
	domains   []string
	services  []netip.Prefix
	endpoints []claim
}

func (f Facts) cluster(p Policy) cluster {
	c := cluster{services: slices.Concat(p.Cluster.ServiceRanges, f.Cluster.ServiceRanges)}
	for _, domain := range []string{p.Cluster.Domain, f.Cluster.Domain} {
		if domain = strings.Trim(lower(domain), "."); domain != "" {
			c.domains = append(c.domains, domain)
		}
	}
	if len(c.domains) == 0 {
		c.domains = []string{"cluster.local"}
	}
	if len(c.services) == 0 {
		c.services = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 96, 0, 0}), 12)}
	}
	for _, e := range slices.Concat(p.Cluster.Endpoints, f.Cluster.Endpoints) {
		c.endpoints = append(c.endpoints, endpointOf(e))
	}
	return c
}

// endpointOf reads a name or an address, with or without a port.
func endpointOf(text string) claim {
	if host, _, err := net.SplitHostPort(text); err == nil {
		text = host
	}
	return claimOf(strings.TrimSuffix(strings.Trim(text, "[]"), "."))
}

// loopbackNames are the names of the machine itself, and of all that hear it, in
// resolvers and hosts files.
var loopbackNames = []string{
	"localhost", "localhost4", "localhost6", "loopback", "ip6-localhost", "ip6-loopback",
	"ip6-localnet", "ip6-mcastprefix", "ip6-allnodes", "ip6-allrouters", "ip6-allhosts",
}

// inside says why no node may have a name or an address: what of the cluster,
// or of every machine, it is. It returns "" where there is no reason.
func (c cluster) inside(k claim) string {
	if k.address.IsValid() {
		return c.insideAddress(k.address)
	}
	labels := strings.Split(k.name, ".")
	under := func(domain string) bool { return k.name == domain || strings.HasSuffix(k.name, "."+domain) }
	switch {
	case under("svc"), slices.ContainsFunc(c.domains, under):
		return "a name of the cluster's services"
	case k.name == "kubernetes", k.name == "kubernetes.default", strings.HasPrefix(k.name, "kubernetes.default."):
		return "a name of the API server"
	case slices.ContainsFunc(labels, func(l string) bool { return slices.Contains(loopbackNames, l) }):
		return "a name of every machine itself"
	}
	return ""
}

func (c cluster) insideAddress(ip netip.Addr) string {
	if inner, ok := embedded(ip); ok {
		if why := c.insideAddress(inner); why != "" {
			return why + ", in IPv6"
		}
	}
	switch {
	case ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "the broadcast address"
	case ip.IsLoopback():
		return "a loopback address"
	case ip.IsUnspecified():
		return "the unspecified address"
	case ip.IsLinkLocalUnicast():
		return "a link-local address"
	case ip.IsMulticast():
		return "a multicast address"
	case slices.ContainsFunc(c.services, func(p netip.Prefix) bool { return p.Contains(ip) }):
		return "an address of the cluster's services"
	}
	return ""
}

// embedded returns the IPv4 address that gateways find in an IPv6 address:
// IPv4-compatible ones (RFC 4291 section 2.5.5.1) and those of the well-known
// prefix of NAT64 (RFC 6052 section 2.1).
func embedded(ip netip.Addr) (netip.Addr, bool) {
	b := ip.As16()
	if !ip.Is6() || ip.IsUnspecified() || ip.IsLoopback() {
		return ip, false
	}
	head := [12]byte(b[:12])
	if head != [12]byte{} && head != [12]byte{0x00, 0x64, 0xff, 0x9b} {
		return ip, false
	}
	return netip.AddrFrom4([4]byte(b[12:])), true
}
