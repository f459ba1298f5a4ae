package config

import (
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
)

// Rules of k/k cmd/kubeadm/app/apis/kubeadm/validation/validation.go and
// constants/constants.go.
const (
	minServiceAddresses = 10
	minPodAddresses     = 14
	maxServiceBits      = 20
)

var (
	label      = `[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?`
	dnsName    = regexp.MustCompile(`^` + label + `(\.` + label + `)*$`)
	versionRex = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+([-+][0-9A-Za-z.+-]+)?$`)
)

// isDNSName tells whether a text is a subdomain as RFC 1123 has it.
func isDNSName(s string) bool { return len(s) <= 253 && dnsName.MatchString(s) }

func validate(c *catalog.Cluster, n names) error {
	checks := []func() error{
		func() error { return validateScalars(c, n) },
		func() error { return validateEndpoint(n.endpoint, c.ControlPlaneEndpoint) },
		func() error {
			return validateSubnets(n.serviceSubnet, c.ServiceSubnet, minServiceAddresses, maxServiceBits)
		},
		func() error {
			if c.PodSubnet == "" {
				return nil
			}
			return validateSubnets(n.podSubnet, c.PodSubnet, minPodAddresses, 0)
		},
		func() error { return validateSANs(n.sans, c.CertSANs) },
		func() error { return validateNodes(c, n) },
		func() error { return validateExternal(n.external, c.ExternalEtcd) },
		func() error { return validateUsers(c) },
	}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func validateScalars(c *catalog.Cluster, n names) error {
	switch {
	case !versionRex.MatchString(c.KubernetesVersion):
		return &Error{Field: n.version, Cause: fmt.Sprintf("%q is not a version", c.KubernetesVersion),
			Help: "write it out, like " + catalog.DefaultVersion + ": labels such as stable-1 would have to be looked up in the network"}
	case !path.IsAbs(c.CertificatesDir) || path.Clean(c.CertificatesDir) == "/":
		return wrong(n.certificatesDir, "%q is not an absolute path of a folder", c.CertificatesDir)
	case !path.IsAbs(c.EtcdDataDir):
		return wrong(n.etcdDataDir, "%q is not an absolute path", c.EtcdDataDir)
	case !isDNSName(c.DNSDomain):
		return wrong(n.dnsDomain, "%q is not a DNS name", c.DNSDomain)
	case !slices.Contains([]catalog.Shape{catalog.Separate, catalog.Intermediate, catalog.Shared}, c.Shape):
		return wrong(n.shape, "%q is not separate, intermediate or shared", c.Shape)
	case c.Validity <= 0:
		return wrong(n.validity, "must be more than nothing")
	case c.CAValidity <= 0:
		return wrong(n.caValidity, "must be more than nothing")
	case c.CAValidity < c.Validity:
		return wrong(n.caValidity, "%s is shorter than that of the certificates below it, %s", c.CAValidity, c.Validity)
	}
	c.CertificatesDir = path.Clean(c.CertificatesDir)
	return nil
}

// validateEndpoint accepts host or host:port.
func validateEndpoint(field, endpoint string) error {
	if endpoint == "" {
		return nil
	}
	host, port := catalog.SplitHostPort(endpoint)
	if !isAddress(host) && !isDNSName(host) {
		return wrong(field, "%q is not host or host:port with a DNS name or IP address", endpoint)
	}
	if number, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || number == 0) {
		return wrong(field, "%q: the port is not between 1 and 65535", endpoint)
	}
	return nil
}

// validateSubnets accepts one CIDR, or one of each family. maxBits bounds the
// size of each, 0 leaves it open.
func validateSubnets(field, text string, least uint64, maxBits int) error {
	var families []bool
	for s := range strings.SplitSeq(text, ",") {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return wrong(field, "%q is not a subnet like 10.96.0.0/12", s)
		}
		bits := p.Addr().BitLen() - p.Bits()
		switch {
		case bits < 63 && uint64(1)<<bits < least:
			return wrong(field, "subnet %s has %d addresses, at least %d are needed", p, uint64(1)<<bits, least)
		case maxBits > 0 && bits > maxBits:
			return wrong(field, "subnet %s is too large: its mask must be at least /%d", p, p.Addr().BitLen()-maxBits)
		}
		families = append(families, p.Addr().Is6())
	}
	if len(families) > 2 || len(families) == 2 && families[0] == families[1] {
		return wrong(field, "%q is neither one subnet nor one of IPv4 and one of IPv6", text)
	}
	return nil
}

// CheckNames refuses the first of some subject alternative names that is
// neither an IP address nor a DNS name, which may start with "*.".
func CheckNames(field string, names []string) error { return validateSANs(field, names) }

// isAddress tells whether a text is an IP address. One with a zone
// (fe80::1%eth0) means something on one machine only, and no certificate holds it.
func isAddress(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == ""
}

// validateSANs accepts IP addresses, DNS names and names that start with "*.".
func validateSANs(field string, sans []string) error {
	for i, s := range sans {
		if isAddress(s) {
			continue
		}
		if name, _ := strings.CutPrefix(s, "*."); !isDNSName(name) {
			return wrong(fmt.Sprintf("%s[%d]", field, i), "%q is neither an IP address nor a DNS name, which may start with *.", s)
		}
	}
	return nil
}

// roster finds names and addresses that are given twice.
type roster struct {
	names     map[string]string
	addresses map[netip.Addr]string
}

func (r roster) add(nameField, addressField, name string, a netip.Addr) error {
	switch first, twice := r.names[name]; {
	case !isDNSName(name):
		return wrong(nameField, "%q is not a node name: lower-case letters, digits, - and ., each part between dots at most 63 long (RFC 1123)", name)
	case name == catalog.AuthoritiesDir || name == catalog.UsersDir:
		return wrong(nameField, "%q is the name of a folder beside the nodes", name)
	case twice:
		return wrong(nameField, "%q is also that of %s", name, first)
	}
	r.names[name] = nameField
	if !a.IsValid() {
		return nil
	}
	if a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return wrong(addressField, "%s cannot be the address of a node", a)
	}
	if first, twice := r.addresses[a]; twice {
		return wrong(addressField, "%s is also that of %s", a, first)
	}
	r.addresses[a] = addressField
	return nil
}

func validateNodes(c *catalog.Cluster, n names) error {
	r := roster{map[string]string{}, map[netip.Addr]string{}}
	for i, p := range c.ControlPlanes {
		prefix := n.controlPlane(i)
		if err := r.add(prefix+n.node, prefix+n.address, p.Name, p.Address); err != nil {
			return err
		}
		if p.BindPort < 1 || p.BindPort > 65535 {
			return wrong(prefix+n.port, "%d is not between 1 and 65535", p.BindPort)
		}
		for field, sans := range map[string][]string{n.nodeSANs: p.CertSANs, n.serverSANs: p.EtcdServerSANs, n.peerSANs: p.EtcdPeerSANs} {
			if err := validateSANs(prefix+field, sans); err != nil {
				return err
			}
		}
	}
	for i, w := range c.Workers {
		at := fmt.Sprintf("workers[%d].", i)
		if n.nodeSANs == "" {
			at = "--worker "
		}
		if err := r.add(at+"name", at+"address", w.Name, w.Address); err != nil {
			return err
		}
	}
	for i, m := range c.EtcdMembers {
		at := fmt.Sprintf("etcd.members[%d].", i)
		if !m.Address.IsValid() {
			return wrong(at+"address", "is not set")
		}
		if err := r.add(at+"name", at+"address", m.Name, m.Address); err != nil {
			return err
		}
		if err := validateSANs(at+"serverCertSANs", m.ServerSANs); err != nil {
			return err
		}
		if err := validateSANs(at+"peerCertSANs", m.PeerSANs); err != nil {
			return err
		}
	}
	return nil
}

func validateExternal(field string, e *catalog.ExternalEtcd) error {
	if e == nil {
		return nil
	}
	switch {
	case len(e.Endpoints) == 0:
		return wrong(field+".endpoints", "is empty")
	case (e.CertFile == "") != (e.KeyFile == ""):
		return wrong(field, "certFile and keyFile belong together, one is not set")
	case e.CertFile != "" && e.CAFile == "":
		return wrong(field+".caFile", "is not set, while certFile and keyFile are")
	}
	for name, file := range map[string]string{"caFile": e.CAFile, "certFile": e.CertFile, "keyFile": e.KeyFile} {
		if file != "" && !path.IsAbs(file) {
			return wrong(field+"."+name, "%q is not an absolute path", file)
		}
	}
	for i, endpoint := range e.Endpoints {
		scheme, rest, _ := strings.Cut(endpoint, "://")
		at := fmt.Sprintf("%s.endpoints[%d]", field, i)
		if rest == "" || scheme != "https" && scheme != "http" {
			return wrong(at, "%q is not a URL like https://10.0.0.31:2379", endpoint)
		}
		if scheme == "http" && e.CAFile != "" {
			return wrong(at, "%q is without TLS, while caFile is set", endpoint)
		}
	}
	return nil
}

func validateUsers(c *catalog.Cluster) error {
	seen := map[string]bool{}
	for i, u := range c.Users {
		at := fmt.Sprintf("users[%d].name", i)
		switch {
		case u.Name == "" || len(u.Name) > 200 || strings.ContainsAny(u.Name, "/\\\x00") || strings.HasPrefix(u.Name, "."):
			return wrong(at, "%q cannot be the name of a file", u.Name)
		case strings.ContainsFunc(u.Name, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return wrong(at, "%q holds a control character", u.Name)
		case seen[u.Name]:
			return wrong(at, "%q is there twice", u.Name)
		}
		seen[u.Name] = true
		if u.Validity > c.CAValidity {
			return wrong(fmt.Sprintf("users[%d].validity", i), "%s is longer than that of authorities, %s", u.Validity, c.CAValidity)
		}
		for j, g := range u.Groups {
			if g == "" || strings.ContainsFunc(g, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				return wrong(fmt.Sprintf("users[%d].groups[%d]", i, j), "%q is empty or holds a control character", g)
			}
		}
	}
	return nil
}
