package check

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

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
		if leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
			missing = append(missing, "digitalSignature")
		}
		if len(missing) == 0 {
			continue
		}
		f := Finding{
			Cause: fmt.Sprintf("%s lacks the usage %s, which its role needs", named(cred.Certificate), strings.Join(missing, " and ")),
			Fix:   replace(cred.Certificate.Path),
			needs: []trust.Place{cred.Certificate},
		}.at(cred.Certificate)
		out = append(out, c.breaksOf(f, trust.WrongUsage))
	}
	return append(out, c.usageOfAuthority()...)
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
			out = append(out, f.at(cred.Certificate))
		}
	}
	return out
}

func (c *Case) selfSigned(leaf certificate) bool { return trust.SignedBy(leaf, leaf) }

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
			return fmt.Sprintf("has a usage foreign to TLS (%d)", u)
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
			return fmt.Sprintf("%s is %s, but %s must be %s", named(b.Place), identity(b.Certificate), c.Links[b.Link].Caller, b.Name)
		})
	return append(out, c.twins(out)...)
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
			return fmt.Sprintf("%s is %s, but --requestheader-allowed-names lets in only %s", named(b.Place), identity(b.Certificate), b.Name)
		})
	for i, f := range out {
		leaf := c.Material(f.places[0]).Leaf()
		c.components("kube-apiserver", func(p *trust.Component) {
			if p.Node == f.Node && !p.Source.IsZero() && leaf != nil && leaf.Subject.CommonName == usualProxy {
				out[i] = f.at(p.Source.In("--requestheader-allowed-names"), f.places[0])
				out[i].Fix = allowName(p, usualProxy)
			}
		})
	}
	return out
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
		names, _ := p.Flag("requestheader-allowed-names")
		if p.Source.IsZero() || !set || strings.Trim(names, ", ") != "" {
			return
		}
		f := Finding{Cause: "--requestheader-allowed-names is empty: any certificate of the front-proxy authority may speak for any user",
			Fix: putFlag(p, "requestheader-allowed-names", usualProxy)}
		out = append(out, f.at(p.Source.In("--requestheader-allowed-names")))
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
