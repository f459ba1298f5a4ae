package check

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

func usageMissing(c *Case) []Finding {
	var out []Finding
	for _, cred := range c.Credentials {
		leaf := c.Material(cred.Certificate).Leaf()
		if leaf == nil {
			continue
		}
		var missing []string
		if cred.Server && !mayUse(leaf, x509.ExtKeyUsageServerAuth) {
			missing = append(missing, "serverAuth")
		}
		if cred.Client && !mayUse(leaf, x509.ExtKeyUsageClientAuth) {
			missing = append(missing, "clientAuth")
		}
		// RFC 8446 section 4.4.2.2; Go lets it pass, OpenSSL and others do not.
		noSignature := leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0
		if noSignature && !enciphers(leaf) {
			missing = append(missing, "digitalSignature")
		}
		if len(missing) == 0 && noSignature {
			out = append(out, Finding{Severity: Info, Cause: fmt.Sprintf("%s lacks the usage digitalSignature: Kubernetes and etcd do not look at it, other clients of TLS 1.3 may", named(cred.Certificate)),
				Fix: replace(cred.Certificate.Path)}.at(cred.Certificate))
		}
		if len(missing) == 0 {
			continue
		}
		f := Finding{
			Cause: fmt.Sprintf("%s lacks the usage %s, which its role needs", named(cred.Certificate), strings.Join(missing, " and ")),
			Fix:   replace(cred.Certificate.Path),
			needs: []trust.Place{cred.Certificate},
		}.at(cred.Certificate)
		out = mergeFinding(out, c.byFlag(c.breaksOf(f, trust.WrongUsage)))
	}
	return append(out, c.usageOfAuthority()...)
}

// enciphers tells of an RSA key with the usage of TLS's older key exchange, as the
// recipes for OpenSSL in Kubernetes' documentation give it
// (docs/tasks/administer-cluster/certificates): the components take it.
func enciphers(leaf certificate) bool {
	return leaf.PublicKeyAlgorithm == x509.RSA && leaf.KeyUsage&x509.KeyUsageKeyEncipherment != 0
}

// usageOfAuthority: extended usages of an authority bound those of all that it
// signs, for crypto/x509 as for most.
func (c *Case) usageOfAuthority() []Finding {
	var out []Finding
	for i, b := range c.Breaks {
		if b.Kind != trust.WrongUsage {
			continue
		}
		u := x509.ExtKeyUsageClientAuth
		if b.Server {
			u = x509.ExtKeyUsageServerAuth
		}
		a := c.issuer(b.Credential.Node, b.Certificate)
		if !mayUse(b.Certificate, u) || a == nil {
			continue
		}
		f := Finding{Cause: fmt.Sprintf("the extended usages of authority %s exclude what it signed", base(a.Certificate.Path)), Fix: c.certifyAgain([]trust.Place{a.Certificate}), breaks: []int{i}}
		out = mergeFinding(out, f.at(a.Certificate))
	}
	return out
}

// mayUse follows crypto/x509: a certificate without extended usages has all.
func mayUse(c certificate, u x509.ExtKeyUsage) bool {
	return len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 ||
		slices.Contains(c.ExtKeyUsage, u) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
}

func usageExcess(c *Case) []Finding {
	var out []Finding
	for _, cred := range c.Credentials {
		leaf := c.Material(cred.Certificate).Leaf()
		if leaf == nil || c.selfSigned(leaf) || c.misordered(cred) {
			continue
		}
		if excess := excessOf(leaf); excess != "" {
			f := Finding{Cause: fmt.Sprintf("%s %s", named(cred.Certificate), excess), Fix: replace(cred.Certificate.Path)}
			out = mergeFinding(out, f.at(cred.Certificate))
		}
	}
	return out
}

func (c *Case) selfSigned(leaf certificate) bool { return c.signed(leaf, leaf) }

// usageNames are those of RFC 5280 section 4.2.1.12.
var usageNames = map[x509.ExtKeyUsage]string{
	x509.ExtKeyUsageCodeSigning: "codeSigning", x509.ExtKeyUsageEmailProtection: "emailProtection",
	x509.ExtKeyUsageTimeStamping: "timeStamping", x509.ExtKeyUsageOCSPSigning: "OCSPSigning",
}

func excessOf(c certificate) string {
	switch {
	case c.IsCA:
		return "is a leaf that may sign others (CA:TRUE)"
	case c.KeyUsage&x509.KeyUsageCertSign != 0:
		return "is a leaf that may sign others (keyCertSign)"
	case slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny):
		return "may be used for anything (anyExtendedKeyUsage)"
	case len(c.UnknownExtKeyUsage) > 0:
		return fmt.Sprintf("has a usage foreign to TLS (%s)", c.UnknownExtKeyUsage[0])
	}
	for _, u := range c.ExtKeyUsage {
		if u != x509.ExtKeyUsageServerAuth && u != x509.ExtKeyUsageClientAuth {
			name, ok := usageNames[u]
			if !ok {
				name = fmt.Sprint(u)
			}
			return fmt.Sprintf("has a usage foreign to TLS (%s)", name)
		}
	}
	return ""
}

// aggregation is the number of the link whose client is the front proxy.
const aggregation = 13

// wrongIdentity makes a finding of each credential that is mapped to another
// identity than its role's.
func (c *Case) wrongIdentity(pick func(Break) bool, say func(Break) string) []Finding {
	var out []Finding
	for i, b := range c.Breaks {
		if b.Kind != trust.WrongIdentity || !pick(b) {
			continue
		}
		f := Finding{Cause: say(b), Fix: replace(b.Place.Path), breaks: []int{i}, needs: []trust.Place{b.Place}}
		out = mergeFinding(out, f.at(b.Place))
	}
	return out
}

func identityWrong(c *Case) []Finding {
	out := c.wrongIdentity(
		func(b Break) bool { return c.Links[b.Link].Number != aggregation },
		func(b Break) string {
			be := "be"
			if !strings.HasPrefix(b.Name, "CN=") {
				be = "have" // a group, or a name at all
			}
			return fmt.Sprintf("%s is %s, but %s must %s %s", named(b.Place), identity(b.Certificate), c.Links[b.Link].Caller, be, b.Name)
		})
	out = c.exchanged(out)
	for i := range out {
		out[i] = c.byFlag(out[i])
	}
	return append(out, c.twins(out)...)
}

// exchanged makes one finding of two kubeconfigs of which each holds the
// identity that the other should have.
func (c *Case) exchanged(found []Finding) []Finding {
	wanted := func(f Finding) string { return strings.TrimPrefix(c.Breaks[f.breaks[0]].Name, "CN=") }
	shown := func(f Finding) string { return c.Breaks[f.breaks[0]].Certificate.Subject.CommonName }
	gone := map[int]bool{}
	for i := range found {
		for j := i + 1; j < len(found); j++ {
			a, b := found[i], found[j]
			if gone[i] || gone[j] || wanted(a) != shown(b) || wanted(b) != shown(a) {
				continue
			}
			both := sortedPlaces([]trust.Place{a.places[0], b.places[0]})
			f := Finding{Cause: fmt.Sprintf("%s and %s are swapped: each holds the other's identity", c.nameIn(both[0].File(), both), c.nameIn(both[1].File(), both)),
				Fix: exchange(both[0].File(), both[1].File(), false), breaks: append(a.breaks, b.breaks...), needs: append(a.needs, b.needs...)}
			found[i], gone[j] = f.at(both...), true
		}
	}
	var out []Finding
	for i, f := range found {
		if !gone[i] {
			out = append(out, f)
		}
	}
	return out
}

// twins are kubelets of several nodes that are one and the same node to the
// apiserver: a kubelet.conf was copied.
func (c *Case) twins(known []Finding) []Finding {
	users := map[string][]*trust.Credential{}
	for _, l := range c.Links {
		if l.Number != 8 || l.Client == nil || l.Client.Credential == nil {
			continue
		}
		leaf := c.Material(l.Client.Credential.Certificate).Leaf()
		if leaf != nil && !slices.Contains(users[leaf.Subject.CommonName], l.Client.Credential) {
			users[leaf.Subject.CommonName] = append(users[leaf.Subject.CommonName], l.Client.Credential)
		}
	}
	var out []Finding
	for _, l := range c.Links {
		if l.Number != 8 || l.Client == nil || l.Client.Credential == nil {
			continue
		}
		cred := l.Client.Credential
		leaf := c.Material(cred.Certificate).Leaf()
		if leaf == nil {
			continue
		}
		user := leaf.Subject.CommonName
		all := users[user]
		rightful := slices.ContainsFunc(all, func(o *trust.Credential) bool { return "system:node:"+o.Node == user })
		if len(all) < 2 || "system:node:"+cred.Node == user || !rightful && cred == all[0] {
			continue
		}
		f := Finding{Cause: fmt.Sprintf("%s is %s, which is another node's identity too: the file was copied", named(cred.Certificate), user), Fix: replace(cred.Certificate.Path)}.at(cred.Certificate)
		if !slices.ContainsFunc(append(known, out...), func(o Finding) bool { return o.places[0] == f.places[0] }) {
			out = append(out, f)
		}
	}
	return out
}

// usualProxy is the name that kubeadm gives the front proxy: where a
// certificate has it, the flag is what is wrong.
const usualProxy = "front-proxy-client"

func requestheaderNameMismatch(c *Case) []Finding {
	out := c.wrongIdentity(
		func(b Break) bool { return c.Links[b.Link].Number == aggregation },
		func(b Break) string {
			return fmt.Sprintf("%s is %s, but --requestheader-allowed-names lets in only %s%s", named(b.Place), identity(b.Certificate), b.Name, blanks(b.Name))
		})
	for i, f := range out {
		leaf := c.Material(f.places[0]).Leaf()
		c.components("kube-apiserver", func(p *trust.Component) {
			if p.Node == f.Node && !p.Setting("requestheader-allowed-names").IsZero() && leaf != nil && leaf.Subject.CommonName == usualProxy {
				out[i] = f.at(p.Setting("requestheader-allowed-names"), f.places[0])
				out[i].Fix = allowName(p, usualProxy)
			}
		})
	}
	return out
}

// blanks says what one does not see: the flag's values are compared as they are
// written (k8s.io/apiserver pkg/authentication/request/x509, CommonNameVerifier).
func blanks(names string) string {
	if strings.Contains(names, "= ") || strings.HasSuffix(names, "=") || strings.Contains(names, "= or") {
		return ", in which blanks and empty names count"
	}
	return ""
}

func identity(c certificate) string {
	s := "CN=" + c.Subject.CommonName
	for _, o := range c.Subject.Organization {
		s += ",O=" + o
	}
	return s
}

// mastersGroup is admitted to everything, before any authorization.
const mastersGroup = "system:masters"

// identityPrivileged: components and nodes need no system:masters.
func identityPrivileged(c *Case) []Finding {
	var out []Finding
	for _, l := range c.Links {
		if l.Client == nil || l.Client.Credential == nil || l.Number < 5 || l.Number > 8 {
			continue
		}
		cred := l.Client.Credential
		leaf := c.Material(cred.Certificate).Leaf()
		if leaf == nil || !slices.Contains(leaf.Subject.Organization, mastersGroup) {
			continue
		}
		f := Finding{
			Cause: fmt.Sprintf("%s of %s is in the group %s: whoever takes it may do everything, and no RBAC rule can stop it", named(cred.Certificate), l.Caller, mastersGroup),
			Fix:   replace(cred.Certificate.Path),
		}
		out = mergeFinding(out, f.at(cred.Certificate))
	}
	return out
}

func requestheaderAnyName(c *Case) []Finding {
	var out []Finding
	c.components("kube-apiserver", func(p *trust.Component) {
		_, set := p.Flag("requestheader-client-ca-file")
		if p.Source.IsZero() || !set || len(catalog.AllowedNames(p)) > 0 {
			return
		}
		f := Finding{Cause: "--requestheader-allowed-names is empty: any certificate of the front-proxy authority may speak for any user",
			Fix: putFlag(p, "requestheader-allowed-names", usualProxy)}
		if at, _ := p.Flag("requestheader-client-ca-file"); c.intruder(trust.Place{Node: p.Node, Path: at}, ofCluster) != nil {
			f.Severity, f.Cause = Error, "--requestheader-allowed-names is empty, and the front proxy's authority is shared: any client of the cluster may speak for any user"
		}
		out = append(out, f.at(p.Setting("requestheader-allowed-names")))
	})
	return out
}

// components calls f for each component of a name.
func (c *Case) components(name string, f func(*trust.Component)) {
	for i := range c.Nodes {
		for j := range c.Nodes[i].Components {
			if p := &c.Nodes[i].Components[j]; p.Name == name {
				f(p)
			}
		}
	}
}
