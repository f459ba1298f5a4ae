package plan

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// target is one authority that is replaced, or the service-account key.
type target struct {
	name  string
	old   set
	oldBy []Authority // empty: the old one stands nowhere any more
	new   int
	newBy Authority
}

// concerns tells whether a set holds the old or the new.
func (t *target) concerns(s set) bool { return s.meets(t.old) || slices.Contains(s, t.new) }

// ServiceAccounts is the name under which the service-account key is replaced.
const ServiceAccounts = "sa"

// aim makes the targets. Which authority is the old one is read from the
// authorities' own files: what stands there and is neither the new one nor
// above another certificate of the file.
func (m *model) aim() error {
	for _, name := range slices.Sorted(maps.Keys(m.r.New)) {
		by := m.r.New[name]
		if err := m.judgeNew(name, by); err != nil {
			return err
		}
		t := target{name: name, newBy: by, new: m.anchors.of(by.Certificate)}
		found := false
		for _, a := range m.g.Authorities {
			own := m.g.Material(a.Certificate)
			if !own.OK() || a.Name != name && !slices.ContainsFunc(own.Certificates, by.Certificate.Equal) {
				continue
			}
			found = true
			for _, c := range own.Certificates {
				if !above(c, own.Certificates) && m.anchors.of(c) != t.new && !t.old.meets(set{m.anchors.of(c)}) {
					t.old = t.old.with(set{m.anchors.of(c)})
					t.oldBy = append(t.oldBy, oldAuthority(c))
				}
			}
		}
		if !found {
			return fmt.Errorf("replacing authority %q: the graph has no certificate of it", name)
		}
		m.targets = append(m.targets, t)
	}
	return m.aimKey()
}

// aimKey makes the target of the service-account key: the old keys are all
// that sign or verify now, but the new one.
func (m *model) aimKey() error {
	if m.r.NewKey == nil {
		return nil
	}
	t := target{name: ServiceAccounts, new: m.anchors.ofKey(m.r.NewKey)}
	for i := range m.copies {
		c := &m.copies[i]
		x, ok := m.content(c.place)
		if !ok || c.role != trust.RoleVerifyKeys && !signsTokens(c) {
			continue
		}
		if c.role == trust.RoleVerifyKeys && len(m.byAt[use{c.component, c.place, roleSigner, ""}]) > 0 {
			return fmt.Errorf("replacing the service-account key: %s verifies by %s, with which it also signs: set --service-account-key-file to a file of public keys first", c.component, c.place)
		}
		for _, k := range x.Keys {
			if n := m.anchors.ofKey(k); n != t.new {
				t.old = t.old.with(set{n})
			}
		}
	}
	m.targets = append(m.targets, t)
	return nil
}

// above tells whether a certificate signed another of the list.
func above(c *x509.Certificate, list []*x509.Certificate) bool {
	return slices.ContainsFunc(list, func(o *x509.Certificate) bool { return !o.Equal(c) && trust.SignedBy(o, c) })
}

// oldAuthority is what signed until now: leaves carry an authority that hangs
// below another.
func oldAuthority(c *x509.Certificate) Authority {
	if bytes.Equal(c.RawSubject, c.RawIssuer) {
		return Authority{Certificate: c}
	}
	return Authority{Certificate: c, Chain: []*x509.Certificate{c}}
}

// judgeNew refuses what cannot replace an authority, or cannot be proved to
// before leaves of it exist.
func (m *model) judgeNew(name string, by Authority) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("the new authority %q: %s", name, fmt.Sprintf(format, args...))
	}
	c := by.Certificate
	switch {
	case c == nil:
		return refuse("its certificate is not given")
	case !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return refuse("%q may not sign certificates (basicConstraints CA, keyUsage keyCertSign)", c.Subject)
	case m.r.At.Before(c.NotBefore) || m.r.At.After(c.NotAfter):
		return refuse("%q is not valid at %s", c.Subject, m.r.At.UTC().Format("2006-01-02T15:04:05Z"))
	case len(by.Chain) > 0 && !by.Chain[0].Equal(c):
		return refuse("its chain does not begin with its own certificate")
	}
	for i, x := range append([]*x509.Certificate{c}, by.Chain...) {
		if len(x.ExtKeyUsage)+len(x.UnknownExtKeyUsage) > 0 || constrained(x) {
			return refuse("%q constrains names or usages: whether leaves fit cannot be proved before they exist", x.Subject)
		}
		if i > 1 && !trust.SignedBy(by.Chain[i-2], x) {
			return refuse("its chain is out of order: %q did not sign what is before it", x.Subject)
		}
	}
	if err := m.judgeDepth(by); err != nil {
		return refuse("%v", err)
	}
	for _, a := range m.g.Authorities {
		own := m.g.Material(a.Certificate)
		if !own.OK() {
			continue
		}
		for _, o := range own.Certificates {
			same := trust.SameKey(o.PublicKey, c.PublicKey)
			switch {
			case same && !bytes.Equal(o.Raw, c.Raw):
				return refuse("it has the key of %s: that makes the certificate new, not the authority", a.Certificate)
			case same && (name == catalog.FrontProxyCA) != (a.Name == catalog.FrontProxyCA):
				return refuse("it is the authority of %s: every client of the cluster could pass as the front proxy", a.Certificate)
			}
		}
	}
	for other, o := range m.r.New { // at most one answer, whatever the order
		if other != name && o.Certificate != nil && (name == catalog.FrontProxyCA) && trust.SameKey(o.Certificate.PublicKey, c.PublicKey) {
			return refuse("it is the new %q too: every client of the cluster could pass as the front proxy", other)
		}
	}
	return nil
}

func constrained(c *x509.Certificate) bool {
	return c.PermittedDNSDomainsCritical || len(c.PermittedDNSDomains)+len(c.ExcludedDNSDomains)+len(c.PermittedIPRanges)+len(c.ExcludedIPRanges)+
		len(c.PermittedEmailAddresses)+len(c.ExcludedEmailAddresses)+len(c.PermittedURIDomains)+len(c.ExcludedURIDomains) > 0
}

// judgeDepth judges the path lengths above a leaf (RFC 5280 section 4.2.1.9).
func (m *model) judgeDepth(by Authority) error {
	if len(by.Chain) == 0 {
		return nil
	}
	tops := m.anchors.issuers(by.Chain[len(by.Chain)-1])
	if len(tops) == 0 {
		return fmt.Errorf("nothing that the cluster trusts or shall trust signed %q", by.Chain[len(by.Chain)-1].Subject)
	}
	for below, c := range by.Chain {
		if (c.MaxPathLen > 0 || c.MaxPathLenZero) && c.MaxPathLen < below {
			return fmt.Errorf("the path length of %q allows no authority below it", c.Subject)
		}
	}
	for _, c := range tops {
		if (c.MaxPathLen > 0 || c.MaxPathLenZero) && c.MaxPathLen < len(by.Chain) {
			return fmt.Errorf("the path length of %q allows no authority below it", c.Subject)
		}
	}
	return nil
}

// assign finds for each copy which authority its content is of. A credential
// that hangs below a replaced authority by another that is kept cannot follow.
func (m *model) assign() error {
	for i := range m.copies {
		c := &m.copies[i]
		x, ok := m.content(c.place)
		if !ok {
			continue
		}
		s := m.holds(c, x)
		direct := s
		if c.role == trust.RoleCertificate && len(x.Certificates) > 0 {
			direct = m.anchors.setOf(m.anchors.issuers(x.Certificates[0]), nil)
		}
		if c.role == roleSigner && c.setting == "" {
			direct = m.anchors.setOf(m.withKey(x), nil)
		}
		for t := range m.targets {
			if m.targets[t].concerns(direct) {
				c.target = t
			}
		}
		if c.role != trust.RoleCertificate || c.target >= 0 {
			continue
		}
		for t := range m.targets {
			if s.meets(m.targets[t].old) {
				return fmt.Errorf("replacing authority %q: %s is signed by an authority below it that is not replaced: give that one's new certificate too", m.targets[t].name, c.place)
			}
		}
	}
	return nil
}

// withKey are the certificates of authorities to which a key belongs.
func (m *model) withKey(x Content) []*x509.Certificate {
	var all []*x509.Certificate
	for i := range m.targets {
		for _, by := range append([]Authority{m.targets[i].newBy}, m.targets[i].oldBy...) {
			c := by.Certificate
			if c != nil && slices.ContainsFunc(x.Keys, func(k crypto.PublicKey) bool { return trust.SameKey(c.PublicKey, k) }) {
				all = append(all, c)
			}
		}
	}
	return all
}

func signsTokens(c *copyOf) bool {
	return c.role == roleSigner && strings.HasPrefix(c.setting, "service-account-")
}
