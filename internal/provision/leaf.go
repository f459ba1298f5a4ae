package provision

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// template returns what the certificate of an entry shall hold.
func (p *Planned) template(e catalog.Entry) issue.Template {
	t := issue.Template{
		Subject:   pkix.Name{CommonName: e.CommonName, Organization: e.Organization},
		DNSNames:  e.DNSNames,
		Authority: e.Kind == catalog.KindAuthority,
		NotBefore: p.options.Now.Add(-issue.Backdate).UTC(),
		NotAfter:  p.options.Now.Add(e.Validity).UTC(),
	}
	for _, a := range e.Addresses {
		t.Addresses = append(t.Addresses, net.IP(a.AsSlice()))
	}
	if e.Server {
		t.Usages = append(t.Usages, x509.ExtKeyUsageServerAuth)
	}
	if e.Client {
		t.Usages = append(t.Usages, x509.ExtKeyUsageClientAuth)
	}
	return t
}

// decideLeaves judges every leaf and kubeconfig. Requests that wait for their
// certificates are named together.
func (p *Planned) decideLeaves() error {
	for _, s := range p.slots {
		if s.entry.Kind != catalog.KindLeaf && s.entry.Kind != catalog.KindKubeconfig {
			continue
		}
		if s.have.file != nil {
			s.action = Kept
			if err := p.judgeKubeconfig(s); err != nil {
				return err
			}
			continue
		}
		if err := p.decidePair(s); err != nil {
			return err
		}
	}
	if waiting := p.waiting(); len(waiting) > 0 && !p.options.CSROnly {
		return unsigned(waiting, nil)
	}
	return nil
}

// waiting lists the requests whose certificates have not come.
func (p *Planned) waiting() []string {
	var all []string
	for _, s := range p.slots {
		if s.have.request != nil && s.have.certificates == nil && !p.authorities[s.entry.Authorities[0]].canSign() {
			all = append(all, p.host(s, s.entry.Path+".csr"))
		}
	}
	return all
}

// decidePair says what becomes of a key and its certificate.
func (p *Planned) decidePair(s *slot) error {
	h, a := s.have, p.authorities[s.entry.Authorities[0]]
	crt, key := p.host(s, s.entry.Path+".crt"), p.host(s, s.entry.Path+".key")
	s.pair.key = h.key
	switch {
	case h.certificates != nil && h.key == nil:
		return refuse(crt, "put its key there, or move it away to have a new pair made", "stands there without its key %s", key)
	case h.certificates != nil:
		return p.decidePresent(s, a)
	case h.request != nil && h.key == nil:
		return refuse(p.host(s, s.entry.Path+".csr"), "put its key there, or move it away", "stands there without its key %s", key)
	case h.request != nil && !trust.SameKey(h.request.PublicKey, h.key.Public()):
		return refuse(p.host(s, s.entry.Path+".csr"), "move both away", "was not made with the key %s", key)
	case h.request != nil && !a.canSign():
		s.action = Requested
		return nil
	case h.key != nil && h.request == nil && !p.options.CSROnly:
		// Signing it would trust a key that somebody else may hold.
		return refuse(key, "put its certificate there, or move it away to have a new pair made",
			"stands there without its certificate %s", crt)
	}
	s.pair.makeKey = h.key == nil
	if a.canSign() {
		s.action, s.pair.sign = Made, true
		s.pair.request = p.options.Service != nil && h.request == nil
		return nil
	}
	if !p.options.CSROnly {
		return refuse(crt, "put the authority's key beside its certificate, or add --csr-only to have requests made",
			"cannot be signed: the key of its authority %s is not at hand", a.path)
	}
	s.action, s.pair.request = Requested, h.request == nil
	return nil
}

// decidePresent judges a pair that is complete.
func (p *Planned) decidePresent(s *slot, a *authority) error {
	if err := p.judgeCertificate(s, p.host(s, s.entry.Path+".crt"), s.have.certificates, a); err != nil {
		return err
	}
	s.pair.chain = s.have.certificates
	s.action = Kept
	if p.options.Service != nil {
		s.pair.request = s.have.request == nil // the layout has it, signed or not
		if s.pair.request {
			s.action = Made
		}
		return nil
	}
	if s.have.request != nil {
		s.action = TakenIn
	}
	if s.entry.Kind != catalog.KindKubeconfig {
		return nil
	}
	s.action = TakenIn
	if anchors := p.authorities[s.entry.Anchors]; anchors == nil || anchors.awaited {
		s.action = Awaited
	}
	return nil
}

// judgeCertificate refuses a certificate that is not what its role needs.
func (p *Planned) judgeCertificate(s *slot, path string, chain []*x509.Certificate, a *authority) error {
	c, now, anew := chain[0], p.options.Now, p.helpAnew(s, a)
	if !trust.SameKey(c.PublicKey, s.pair.key.Public()) {
		return refuse(path, "put the right key there, or "+anew, "its key does not belong to the certificate %q", c.Subject)
	}
	switch {
	case now.After(c.NotAfter):
		return refuse(path, anew, "expired at %s", c.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(c.NotBefore):
		return refuse(path, "check the clock of this machine", "is valid only from %s", c.NotBefore.UTC().Format(time.RFC3339))
	}
	if err := issue.CheckAnswer(p.template(s.entry), s.pair.key.Public(), c); err != nil {
		return refuse(path, anew+", or mend the configuration", "%v", err)
	}
	if a.awaited {
		return nil
	}
	if a.chain == nil {
		return refuse(path, helpShape,
			"stands there, but its authority %q does not: a new one would not fit", a.entry.Name)
	}
	if err := a.verify(chain, now, p.template(s.entry).Usages); err != nil {
		return refuse(path, anew+", or put the right authority there", "%v", err)
	}
	return nil
}

// proveSigned refuses what an authority signed although its own certificate
// forbids it, by name constraints, usages or path length: nobody would take it.
func (p *Planned) proveSigned(s *slot, a *authority) error {
	now := p.options.Now
	for at := a; at != nil; at = at.above {
		if at.chain[0].NotBefore.After(now) {
			now = at.chain[0].NotBefore // clocks may differ by issue.Backdate
		}
		if err := at.verify(s.pair.chain, now, p.template(s.entry).Usages); err != nil {
			return refuse(at.path, "use an authority that may sign it, or let kubepki make one",
				"forbids what it is to sign, %s.crt: %v", s.entry.Path, err)
		}
	}
	return nil
}

// helpAnew says how another certificate is had: an authority elsewhere is asked again.
func (p *Planned) helpAnew(s *slot, a *authority) string {
	switch {
	case a.canSign() && s.entry.Kind == catalog.KindKubeconfig && s.have.file != nil:
		return "move it away to have it made anew"
	case a.canSign():
		return "move it and its key away to have a new pair made"
	case s.have.request != nil:
		return "have " + p.host(s, s.entry.Path+".csr") + " signed again"
	}
	return "move it and its key away and add --csr-only to have a request made"
}
