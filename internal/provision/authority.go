package provision

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// authority is one authority of the cluster, wherever it stands.
type authority struct {
	pair
	entry catalog.Entry
	path  string // of the certificate that was found, on this machine
	above *authority
	// external: the certificate is elsewhere, still to come.
	awaited bool
}

// canSign tells whether the key is, or will be, at hand.
func (a *authority) canSign() bool { return a.key != nil || a.makeKey }

// resolveAuthorities finds each authority on any node, or decides to make it:
// authorities above others first, because Entries lists them so.
func (p *Planned) resolveAuthorities() error {
	for _, s := range p.slots {
		if s.entry.Kind != catalog.KindAuthority {
			continue
		}
		a := p.authority(s.entry)
		if err := p.gather(a, s); err != nil {
			return err
		}
	}
	for _, s := range p.slots {
		if s.entry.Kind != catalog.KindAuthority {
			continue
		}
		a := p.authorities[s.entry.Name]
		if err := p.settle(a, s); err != nil {
			return err
		}
	}
	if len(p.lacking) > 0 {
		return unsigned(p.waiting(), p.lacking)
	}
	if err := p.refuseSharedFrontProxy(); err != nil {
		return err
	}
	for _, s := range p.slots {
		switch s.entry.Kind {
		case catalog.KindAuthority:
			p.decideAuthority(s)
		case catalog.KindAnchors:
			if err := p.decideAnchors(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// authority returns the state of an authority; one that is the same as another
// shares its state.
func (p *Planned) authority(e catalog.Entry) *authority {
	if a, ok := p.authorities[e.Name]; ok {
		return a
	}
	var a *authority
	if e.SameAs != "" {
		a = p.authority(p.options.Cluster.Authority(e.SameAs))
	} else {
		a = &authority{entry: e}
	}
	if len(e.Authorities) > 0 {
		a.above = p.authority(p.options.Cluster.Authority(e.Authorities[0]))
	}
	p.authorities[e.Name] = a
	return a
}

// gather adds what one slot holds of the authority.
func (p *Planned) gather(a *authority, s *slot) error {
	crt, key := p.host(s, s.entry.Path+".crt"), p.host(s, s.entry.Path+".key")
	if c := s.have.certificates; c != nil {
		if a.chain != nil && !c[0].Equal(a.chain[0]) {
			help := "one of the two is the wrong one: put the right one in its place"
			if s.entry.SameAs != "" {
				help = "leave out --authorities shared (authorities.shape): the folder was made without"
			}
			return refuse(crt, help, "is another authority than %s, but they must be the same", a.path)
		}
		if a.chain == nil {
			a.chain, a.path = c, crt
		}
	}
	if k := s.have.key; k != nil {
		if s.have.certificates == nil {
			return refuse(key, "put the certificate of this authority beside it, or move the key away",
				"the key of authority %q stands there without its certificate %s.crt", s.entry.Name, s.entry.Path)
		}
		if !trust.SameKey(k.Public(), s.have.certificates[0].PublicKey) {
			return refuse(key, "put the right key there, or move both away", "does not belong to the certificate %s", crt)
		}
		a.key = k
	}
	return nil
}

// asked tells whether requests to an authority stand there.
func (p *Planned) asked(name string) bool {
	return slices.ContainsFunc(p.slots, func(s *slot) bool {
		return s.have.request != nil && len(s.entry.Authorities) > 0 && s.entry.Authorities[0] == name
	})
}

// settle judges what was found of an authority, or decides to make it.
func (p *Planned) settle(a *authority, s *slot) error {
	if a.chain != nil {
		if err := p.judgeAuthority(a); err != nil {
			return err
		}
		return nil
	}
	if p.options.CSROnly {
		a.awaited = true
		return nil
	}
	if p.asked(s.entry.Name) {
		// Requests wait for an authority elsewhere: one made here would not be it.
		a.awaited = true
		p.lacking = append(p.lacking, p.host(s, s.entry.Path+".crt"))
		return nil
	}
	if a.above != nil && !a.above.canSign() {
		return refuse(p.host(s, s.entry.Path+".crt"), "put the root's key beside its certificate, or place the intermediate's certificate and key there",
			"is to be made below the root authority %s, whose key is not at hand", a.above.path)
	}
	a.makeKey, a.sign = true, true
	return nil
}

func (p *Planned) judgeAuthority(a *authority) error {
	c := a.chain[0]
	switch {
	case !c.IsCA || !c.BasicConstraintsValid:
		return refuse(a.path, moveAway, "is not an authority: basicConstraints CA is not set in %q", c.Subject)
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return refuse(a.path, moveAway, "may not sign certificates: keyUsage keyCertSign is not set in %q", c.Subject)
	case issue.CheckPublicKey(c.PublicKey) != nil:
		return refuse(a.path, "a weak authority must be replaced, and with it all that it signed: move the folder away",
			"the authority %q cannot be trusted: %v", c.Subject, issue.CheckPublicKey(c.PublicKey))
	case p.options.Now.After(c.NotAfter):
		return refuse(a.path, "an expired authority must be replaced, and with it all that it signed: move the folder away",
			"the authority %q expired at %s", c.Subject, c.NotAfter.UTC().Format(time.RFC3339))
	case p.options.Now.Before(c.NotBefore.Add(-issue.Backdate)):
		return refuse(a.path, "check the clock of this machine", "the authority %q is valid only from %s", c.Subject, c.NotBefore.UTC().Format(time.RFC3339))
	}
	if a.above == nil {
		return nil
	}
	if a.above.chain == nil {
		if p.options.CSROnly && a.key == nil {
			return nil // it only waits for the root as its leaves wait for it
		}
		return refuse(a.path, "put root-ca.crt beside it, or leave out --authorities intermediate",
			"is there, but the root authority that it hangs below is not")
	}
	if err := c.CheckSignatureFrom(a.above.chain[0]); err != nil {
		return refuse(a.path, "put the right root-ca.crt there, or leave out --authorities intermediate",
			"was not signed by the root authority %s: %v", a.above.path, err)
	}
	return nil
}

// refuseSharedFrontProxy: whoever holds a certificate of the cluster's
// authority could pass as the front proxy, and so as anybody.
func (p *Planned) refuseSharedFrontProxy() error {
	front, cluster := p.authorities[catalog.FrontProxyCA], p.authorities[catalog.ClusterCA]
	if front == nil || cluster == nil || front.chain == nil || cluster.chain == nil {
		return nil
	}
	if trust.SameKey(front.chain[0].PublicKey, cluster.chain[0].PublicKey) {
		return refuse(front.path, "move front-proxy-ca and front-proxy-client away to have them made anew",
			"is the same authority as %s: every client of the cluster could pass as the front proxy", cluster.path)
	}
	return nil
}

// decideAuthority says what becomes of one copy of an authority.
func (p *Planned) decideAuthority(s *slot) {
	a := p.authorities[s.entry.Name]
	lacksKey := !s.entry.NoKey && s.have.key == nil && a.canSign()
	switch {
	case a.awaited:
		s.action = Awaited
	case s.have.certificates == nil || lacksKey:
		s.action = Made
	default:
		s.action = Kept
	}
}

func (p *Planned) decideAnchors(s *slot) error {
	s.action = Made
	for _, name := range s.entry.Authorities {
		a := p.authorities[name]
		if a.awaited {
			s.action = Awaited
		}
		if s.have.certificates == nil {
			continue
		}
		s.action = Kept
		if a.chain == nil || !slices.ContainsFunc(s.have.certificates, a.chain[0].Equal) {
			return refuse(p.host(s, s.entry.Path+".crt"), moveAway, "does not hold the certificate of authority %q", name)
		}
	}
	return nil
}

// issuer returns the authority in the form that signs, made by then.
func (a *authority) issuer() issue.Authority {
	return issue.Authority{Certificate: a.chain[0], Key: a.key}
}

// verify checks that a chain leads from its first certificate to the authority,
// and that no authority forbids one of the certificate's usages or names.
func (a *authority) verify(chain []*x509.Certificate, now time.Time, usages []x509.ExtKeyUsage) error {
	for _, u := range usages {
		if err := a.verifyFor(chain, now, u); err != nil {
			return err
		}
	}
	return nil
}

func (a *authority) verifyFor(chain []*x509.Certificate, now time.Time, usage x509.ExtKeyUsage) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range a.chain {
		roots.AddCert(c)
	}
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err == nil {
		return nil
	}
	if invalid := new(x509.CertificateInvalidError); errors.As(err, invalid) && invalid.Reason == x509.IncompatibleUsage {
		return fmt.Errorf("may not be used for %s: %s, or an authority above it, allows other extended usages only", issue.UsageName(usage), a.path)
	}
	if strings.Contains(err.Error(), "unknown authority") {
		return fmt.Errorf("was not signed by its authority %s", a.path)
	}
	return err
}

// signing is the service-account key pair of the cluster.
type signing struct {
	pair
	path string // of the key that was found, on this machine
}

// resolveSigningKey finds the service-account key on any node or decides to
// make it: all control planes sign and verify with the same.
func (p *Planned) resolveSigningKey() error {
	p.signing = &signing{}
	if !slices.ContainsFunc(p.slots, func(s *slot) bool { return s.entry.Kind == catalog.KindSigningKey }) {
		return nil
	}
	var lone *slot
	for _, s := range p.slots {
		if s.entry.Kind != catalog.KindSigningKey {
			continue
		}
		if err := p.gatherSigning(s); err != nil {
			return err
		}
		if s.have.key == nil && s.have.public != nil {
			lone = s
		}
	}
	g := p.signing
	if g.key == nil && lone != nil {
		return refuse(p.host(lone, lone.entry.Path+".pub"), "put sa.key beside it, or move it away to have a new pair made (which makes all tokens of service accounts invalid)",
			"the public key stands there without its private key %s.key", lone.entry.Path)
	}
	g.makeKey = g.key == nil
	for _, s := range p.slots {
		if s.entry.Kind != catalog.KindSigningKey {
			continue
		}
		s.action = Kept
		if s.have.key == nil || s.have.public == nil {
			s.action = Made
		}
		if s.have.public != nil && !holds(s.have.public, g.key.Public()) {
			return refuse(p.host(s, s.entry.Path+".pub"), "write the public half again with: openssl pkey -in sa.key -pubout -out sa.pub",
				"does not hold the public half of %s", g.path)
		}
	}
	return nil
}

func (p *Planned) gatherSigning(s *slot) error {
	k := s.have.key
	if k == nil {
		return nil
	}
	path := p.host(s, s.entry.Path+".key")
	if SigningAlgorithm(issue.AlgorithmOf(k.Public())) != issue.AlgorithmOf(k.Public()) {
		return refuse(path, "make a key that tokens can be signed with: RSA or ECDSA", "holds an Ed25519 key, with which Kubernetes cannot sign tokens")
	}
	if g := p.signing; g.key != nil && !trust.SameKey(g.key.Public(), k.Public()) {
		return refuse(path, "copy one of them over the other", "is another service-account key than %s", g.path)
	}
	p.signing.key, p.signing.path = k, path
	return nil
}

func holds(keys []crypto.PublicKey, k crypto.PublicKey) bool {
	return slices.ContainsFunc(keys, func(q crypto.PublicKey) bool { return trust.SameKey(q, k) })
}
