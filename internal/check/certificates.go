package check

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

type certificate = *x509.Certificate

// standing is one certificate and all the places where it stands: the first is
// the authority's own file where there is one.
type standing struct {
	certificate
	places []trust.Place
}

// findStandings lists each certificate once, leaves and authorities.
func (c *Case) findStandings() []standing {
	var all []standing
	index := map[string]int{}
	c.materials(func(m *trust.Material) {
		if m.Role == trust.RoleVerifyKeys {
			return // of a certificate that verifies tokens the key alone counts
		}
		for _, cert := range m.Certificates {
			i, seen := index[string(cert.Raw)]
			if !seen {
				index[string(cert.Raw)] = len(all)
				all = append(all, standing{cert, []trust.Place{m.Place}})
				continue
			}
			if !slices.Contains(all[i].places, m.Place) {
				all[i].places = append(all[i].places, m.Place)
			}
		}
	})
	for i := range all {
		slices.SortStableFunc(all[i].places, func(a, b trust.Place) int { return c.copyRank(a) - c.copyRank(b) })
	}
	return all
}

// signed tells whether a's name and key are the issuer's of x. Many rules ask the same,
// and each answer is a signature to verify: it is remembered.
func (c *Case) signed(x, a certificate) bool { return c.judgement.SignedBy(x, a) }

// copyRank is 0 for an authority's own file and 1 for any other place, a worker's
// copy too.
func (c *Case) copyRank(p trust.Place) int {
	if slices.ContainsFunc(c.Authorities, func(a trust.Authority) bool { return a.Certificate == p && !c.onlyCopy(&a) }) {
		return 0
	}
	return 1
}

// dated makes a finding of each certificate that pick accepts, with the breaks
// of a kind that it causes.
func (c *Case) dated(kind trust.Kind, pick func(standing) bool, say func(standing) (cause, fix string)) []Finding {
	var out []Finding
	for _, s := range c.standings {
		if !pick(s) {
			continue
		}
		cause, fix := say(s)
		f := Finding{Cause: cause, Fix: c.ownKubeconfig(s, fix), cascade: s.IsCA}.at(s.places...)
		out = append(out, c.withBreaks(f, func(b Break) bool {
			return b.Kind == kind && b.Certificate != nil && b.Certificate.Equal(s.certificate)
		}))
	}
	return out
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// renewAuthority is the mend of an authority that ends: with the same key all
// certificates below it, and all pins, go on working.
const renewAuthority = "issue the authority's certificate anew with the same key and name, put it wherever the old one is trusted, and restart what does not reload it"

func certExpired(c *Case) []Finding {
	return c.dated(trust.Expired,
		func(s standing) bool { return c.At.After(s.NotAfter) && !c.unneeded(s) && !c.objectAnchor(s) },
		func(s standing) (string, string) {
			fix := replace(s.places[0].Path)
			if c.beside(s.places[0]) {
				fix = fromElsewhere(s.places[0])
			} else if slices.ContainsFunc(s.places, c.standsAsAuthority) {
				fix = c.certifyAgain(s.places)
			}
			return fmt.Sprintf("%s expired at %s (%s)", subject(s.certificate), date(s.NotAfter), base(s.places[0].Path)), fix
		})
}

// unneeded tells whether nothing rests on an authority's certificate: each place
// holds another one that is valid now or is a mere copy, and whatever it signed is
// signed by a valid one too, or is not here. bundle-expired speaks of it then.
func (c *Case) unneeded(s standing) bool {
	if !s.IsCA {
		return false
	}
	for _, p := range s.places {
		m := c.Material(p)
		switch {
		case !c.standsAsAuthority(p) && len(m.Certificates) > 0:
			return false // a chain shows it
		case c.copyRank(p) == 0 && !c.validBeside(m, s.certificate):
			return false // it is the authority
		}
	}
	return !slices.ContainsFunc(c.Credentials, func(cred *trust.Credential) bool {
		return slices.ContainsFunc(c.shownBy(cred), func(x certificate) bool {
			return c.signed(x, s.certificate) && !slices.ContainsFunc(c.standings, func(o standing) bool { return c.valid(o.certificate) && c.signed(x, o.certificate) })
		})
	})
}

// shownBy are the certificates that a credential shows, the leaf first.
func (c *Case) shownBy(cred *trust.Credential) []certificate {
	if m := c.Material(cred.Certificate); m != nil {
		return m.Certificates
	}
	return nil
}

func (c *Case) valid(x certificate) bool { return !c.At.Before(x.NotBefore) && !c.At.After(x.NotAfter) }

func (c *Case) validBeside(m *trust.Material, x certificate) bool {
	return slices.ContainsFunc(m.Certificates, func(o certificate) bool { return !o.Equal(x) && o.IsCA && c.valid(o) })
}

func certNotYetValid(c *Case) []Finding {
	return c.dated(trust.NotYetValid,
		func(s standing) bool { return c.At.Before(s.NotBefore) && !c.unneeded(s) },
		func(s standing) (string, string) {
			cause := fmt.Sprintf("%s is not valid before %s (%s)", subject(s.certificate), date(s.NotBefore), base(s.places[0].Path))
			if s.NotBefore.Sub(c.At) <= 15*time.Minute {
				return cause + "; it begins within minutes, so the clock of one machine is probably wrong", "compare the clocks of the machines: timedatectl on each"
			}
			return cause, c.sooner(s)
		})
}

func certExpiring(c *Case) []Finding {
	return c.dated("",
		func(s standing) bool {
			return Expiring(s.NotBefore, s.NotAfter, c.At, c.Expiring) && !c.unneeded(s)
		},
		func(s standing) (string, string) {
			fix := replace(s.places[0].Path)
			if c.beside(s.places[0]) {
				fix = fromElsewhere(s.places[0])
			} else if slices.ContainsFunc(s.places, c.standsAsAuthority) {
				fix = c.certifyAgain(s.places)
			}
			return fmt.Sprintf("%s expires at %s, in %s (%s)", subject(s.certificate), date(s.NotAfter), days(s.NotAfter.Sub(c.At)), base(s.places[0].Path)), fix
		})
}

// Expiring tells whether what is valid from and until some time is good at
// another one, and ends within the window from then on. A window of 0 is 30 days
// or a tenth of its life, whichever is shorter.
func Expiring(notBefore, notAfter, at time.Time, window time.Duration) bool {
	if window == 0 {
		window = min(30*24*time.Hour, notAfter.Sub(notBefore)/10)
	}
	left := notAfter.Sub(at)
	return left >= 0 && left < window && !at.Before(notBefore)
}

func days(d time.Duration) string {
	if d < 48*time.Hour {
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

func subject(c certificate) string {
	if c.Subject.CommonName != "" {
		return fmt.Sprintf("certificate %q", c.Subject.CommonName)
	}
	return "certificate with serial " + trust.SerialText(c.SerialNumber)
}

func certOutlivesCA(c *Case) []Finding {
	var out []Finding
	for _, cred := range c.Credentials {
		leaf := c.Material(cred.Certificate).Leaf()
		if leaf == nil {
			continue
		}
		a := c.issuer(cred.Node, leaf)
		if a == nil || !leaf.NotAfter.Add(-c.mayOutlive(cred.Node)).After(c.certificateOf(*a).Leaf().NotAfter) {
			continue
		}
		end := c.certificateOf(*a).Leaf().NotAfter
		f := Finding{
			Cause: fmt.Sprintf("%s is valid until %s, but its authority %s ends at %s", base(cred.Certificate.Path), date(leaf.NotAfter), base(a.Certificate.Path), date(end)),
			Fix:   know(replace(cred.Certificate.Path), "and certify the authority again before %s", date(end)),
			needs: []trust.Place{a.Certificate},
		}
		out = mergeFinding(out, f.at(cred.Certificate))
	}
	return out
}

// issuer returns the authority that signed a leaf: of the leaf's own node
// before that of another, nil when none here did.
func (c *Case) issuer(node string, leaf certificate) *trust.Authority {
	own, first := -1, -1
	for _, s := range c.signersNamed(string(leaf.RawIssuer)) {
		if !c.signed(leaf, s.certificate) {
			continue
		}
		if i, here := s.ofNode[node]; here && (own < 0 || i < own) {
			own = i
		}
		if first < 0 || s.first < first {
			first = s.first
		}
	}
	switch {
	case own >= 0:
		return &c.Authorities[own]
	case first >= 0:
		return &c.Authorities[first]
	}
	return nil
}

// signer is the certificate of authorities, of which every node may hold a copy.
type signer struct {
	certificate certificate
	first       int            // index of the first of the authorities
	ofNode      map[string]int // of the first of each node
}

// signersNamed are the certificates of authorities with a subject (DER), each once.
func (c *Case) signersNamed(subject string) []*signer {
	if c.signers == nil {
		c.signers = map[string][]*signer{}
		byContent := map[string]*signer{}
		for i, a := range c.Authorities {
			m := c.certificateOf(a)
			if m == nil {
				continue
			}
			leaf := m.Leaf()
			s := byContent[string(leaf.Raw)]
			if s == nil {
				s = &signer{certificate: leaf, first: i, ofNode: map[string]int{}}
				byContent[string(leaf.Raw)] = s
				c.signers[string(leaf.RawSubject)] = append(c.signers[string(leaf.RawSubject)], s)
			}
			if _, has := s.ofNode[a.Node]; !has {
				s.ofNode[a.Node] = i
			}
		}
	}
	return c.signers[subject]
}

func keyWeak(c *Case) []Finding {
	var out []Finding
	for _, s := range c.standings {
		reason := weakness(s.PublicKey)
		if trust.WeakSignature(s.certificate) {
			reason = "it is signed with " + s.SignatureAlgorithm.String()
		}
		if reason == "" {
			continue
		}
		f := Finding{Cause: fmt.Sprintf("%s is weak: %s", base(s.places[0].Path), reason), Fix: c.stronger(s), cascade: s.IsCA}
		out = append(out, c.withBreaks(f.at(s.places...), func(b Break) bool {
			return b.Kind == trust.Weak && b.Certificate.Equal(s.certificate)
		}))
	}
	return append(out, c.weakSigningKeys()...)
}

// weakSigningKeys are the service-account keys: no certificate holds them.
func (c *Case) weakSigningKeys() []Finding {
	var out []Finding
	for _, l := range c.Links {
		if l.Signing == nil {
			continue
		}
		m := c.Material(l.Signing.Key)
		if !m.OK() || len(m.Keys) == 0 || weakness(m.Keys[0]) == "" {
			continue
		}
		f := Finding{Cause: fmt.Sprintf("%s is weak: %s", base(m.Place.Path), weakness(m.Keys[0])), Fix: "rotate the service-account key"}
		out = mergeFinding(out, f.at(m.Place))
	}
	return out
}

func weakness(key crypto.PublicKey) string {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return fmt.Sprintf("an RSA key of %d bits, at least 2048 are needed", k.N.BitLen())
		}
		if k.E < 65537 {
			return fmt.Sprintf("an RSA key with the small exponent %d", k.E)
		}
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P224() {
			return "an ECDSA key on the curve P-224"
		}
	}
	return ""
}

func caInvalid(c *Case) []Finding {
	var out []Finding
	for _, s := range c.standings {
		reason := c.notAnAuthority(s)
		if reason == "" {
			continue
		}
		places := slices.DeleteFunc(slices.Clone(s.places), func(p trust.Place) bool { return !c.signsAt(s.certificate, p) })
		cause := fmt.Sprintf("%s is not an authority: %s", named(places[0]), reason)
		if !c.standsAsAuthority(places[0]) {
			cause = fmt.Sprintf("%s of %s is between leaf and root, and is not an authority: %s", subject(s.certificate), named(places[0]), reason)
		}
		f := Finding{Cause: cause,
			Fix: c.certifyAgain(places), cascade: true}
		out = append(out, c.withBreaks(f.at(places...), func(b Break) bool {
			return b.Kind == trust.NotAnAuthority && slices.ContainsFunc(c.Material(b.Credential.Certificate).Certificates, func(x certificate) bool { return c.signed(x, s.certificate) })
		}))
	}
	return out
}

// notAnAuthority tells why a certificate that stands where an authority is
// needed may not sign (RFC 5280 section 4.2.1.9 and 4.2.1.3).
func (c *Case) notAnAuthority(s standing) string {
	switch {
	case !slices.ContainsFunc(s.places, func(p trust.Place) bool { return c.signsAt(s.certificate, p) }):
		return ""
	case !s.BasicConstraintsValid || !s.IsCA:
		return "basicConstraints CA:TRUE is not set"
	case s.KeyUsage != 0 && s.KeyUsage&x509.KeyUsageCertSign == 0:
		return "keyUsage keyCertSign is not set"
	case s.MaxPathLen > 0 || s.MaxPathLenZero:
		return c.pathTooLong(s.certificate)
	}
	return ""
}

// standsAsAuthority tells whether an authority is needed at a place.
func (c *Case) standsAsAuthority(p trust.Place) bool {
	m := c.Material(p)
	return m != nil && !c.foreign(p) && (m.Role == trust.RoleBundle || m.Role == trust.RoleAuthority)
}

// signsAt tells whether a certificate signs, or should, where it stands: as an
// authority, or above another in a chain.
func (c *Case) signsAt(x certificate, p trust.Place) bool {
	m := c.Material(p)
	return c.standsAsAuthority(p) || m != nil && slices.ContainsFunc(m.Certificates, func(o certificate) bool {
		return !o.Equal(x) && c.signed(o, x)
	})
}

// pathTooLong follows each chain that is refused up to the authority, and counts
// what is between.
func (c *Case) pathTooLong(authority certificate) string {
	for _, b := range c.Breaks {
		if b.Kind != trust.NotAnAuthority {
			continue
		}
		chain := c.Material(b.Credential.Certificate).Certificates
		current := chain[0]
		for below := range len(chain) {
			if c.signed(current, authority) {
				if below > authority.MaxPathLen {
					return fmt.Sprintf("its path length allows %d authorities below it, %d are shown", authority.MaxPathLen, below)
				}
				break
			}
			next := slices.IndexFunc(chain[1:], func(o certificate) bool { return !o.Equal(current) && c.signed(current, o) })
			if next < 0 {
				break
			}
			current = chain[1+next]
		}
	}
	return ""
}

// misordered tells whether the key belongs to a certificate of the file that
// is not the first.
func (c *Case) misordered(cred *trust.Credential) bool {
	m, k := c.Material(cred.Certificate), c.Material(cred.Key)
	return m.Leaf() != nil && k.OK() && !hasKey(k, m.Leaf().PublicKey) &&
		slices.ContainsFunc(m.Certificates[1:], func(o certificate) bool { return hasKey(k, o.PublicKey) })
}

// chainOrder: servers take the first certificate for the leaf.
func chainOrder(c *Case) []Finding {
	var out []Finding
	for _, cred := range c.Credentials {
		if !c.misordered(cred) {
			continue
		}
		f := Finding{Cause: fmt.Sprintf("the leaf is not the first certificate of %s", named(cred.Certificate)),
			Fix: replace(cred.Certificate.Path), cascade: true}.at(cred.Certificate)
		out = append(out, c.withBreaks(f, func(b Break) bool { return b.Credential == cred }))
	}
	return out
}

// serialDuplicate is said once for a serial, at the certificate that was issued
// last.
func serialDuplicate(c *Case) []Finding {
	groups := map[string][]standing{}
	var order []string
	for _, s := range c.standings {
		if bytes.Equal(s.RawSubject, s.RawIssuer) {
			continue // roots of the same name: serials of 0 are common
		}
		id := string(s.RawIssuer) + s.SerialNumber.String() + string(s.AuthorityKeyId)
		if groups[id] == nil {
			order = append(order, id)
		}
		groups[id] = append(groups[id], s)
	}
	var out []Finding
	for _, id := range order {
		g := groups[id]
		if len(g) < 2 {
			continue
		}
		slices.Reverse(g)
		slices.SortStableFunc(g, func(a, b standing) int { return b.NotBefore.Compare(a.NotBefore) })
		var places []trust.Place
		for _, s := range g {
			places = append(places, s.places[0])
		}
		f := Finding{Cause: fmt.Sprintf("%s and %s have the same issuer and the serial %s", c.nameIn(places[0], places), c.nameIn(places[1], places), trust.SerialText(g[0].SerialNumber)),
			Fix: replace(places[0].Path)}
		out = append(out, f.at(places...))
	}
	return out
}

// nameIn names a place among others: with its node when they are several nodes'.
func (c *Case) nameIn(p trust.Place, among []trust.Place) string {
	if slices.ContainsFunc(among, func(o trust.Place) bool { return o.Node != p.Node }) {
		return named(p) + " of " + p.Node
	}
	return named(p)
}
