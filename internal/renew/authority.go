package renew

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// authority plans an authority's own certificate: the same name and key, so that
// all that it signed, and all pins, go on working. Its usages become those of an
// authority.
func (p *planner) authority(a *trust.Authority) (*Item, error) {
	i := &Item{Name: a.Name, Node: a.Node, Kind: Authority, Certificate: a.Certificate, Key: a.Key, Why: p.why(a.Certificate)}
	m := p.g.Material(a.Certificate)
	key := p.keyOf(a, m)
	switch {
	case p.Elsewhere:
		return nil, &Refusal{i.ID(), "requests are made for leaves alone: an authority's own certificate is a decision of who holds the key above it", "openssl req -new -key KEY makes a request with the authority's key"}
	case !m.OK() || len(m.Certificates) == 0:
		return nil, &Refusal{i.ID(), a.Certificate.String() + " cannot be read", "restore it from a backup or another control-plane node: made anew it would fit nothing that is there"}
	case len(m.Certificates) > 1:
		return nil, &Refusal{i.ID(), fmt.Sprintf("%s holds %d certificates: which of them is meant is not known", a.Certificate, len(m.Certificates)), "keep the one that signs: kubepki trust prune, kubepki trust remove"}
	case key == nil:
		return nil, &Refusal{i.ID(), fmt.Sprintf("its key %s is not at hand", a.Key), "run it where the key is"}
	case !trust.SameKey(key.Public(), m.Certificates[0].PublicKey):
		return nil, &Refusal{i.ID(), fmt.Sprintf("%s does not belong to %s", a.Key, a.Certificate), "restore the pair first: kubepki verify says which half is wrong"}
	case issue.CheckPublicKey(key.Public()) != nil:
		return nil, &Refusal{i.ID(), issue.CheckPublicKey(key.Public()).Error(), "an authority with a weak key is replaced, and with it all that it signed"}
	}
	old := m.Certificates[0]
	if constrained(old) {
		return nil, &Refusal{i.ID(), "it has name constraints, which are somebody's decision", "sign it anew by hand, with or without them"}
	}
	i.Old, i.key = old, key
	i.Subject, i.rawSubject, i.subjectID = old.Subject, old.RawSubject, old.SubjectKeyId
	i.DNSNames, i.Addresses, i.URIs, i.Emails = old.DNSNames, old.IPAddresses, old.URIs, old.EmailAddresses
	if old.MaxPathLen > 0 || old.MaxPathLenZero {
		n := old.MaxPathLen
		i.pathLength = &n
	}
	if !bytes.Equal(old.RawSubject, old.RawIssuer) {
		above, err := p.above(i, old)
		if err != nil {
			return nil, err
		}
		i.signer = above
	}
	p.life(i, catalog.Entry{})
	for _, cred := range p.g.Credentials {
		// What it signed shall not outlive it, if it was long ago made for a shorter time.
		if leaf := p.g.Material(cred.Certificate).Leaf(); leaf != nil && trust.SignedBy(leaf, old) && leaf.NotAfter.After(i.NotAfter) && i.signer.Certificate == nil {
			i.NotAfter = leaf.NotAfter
		}
	}
	return i, nil
}

// keyOf is the key of an authority: its own file's, else, where that is not there, the same key from
// another node.
func (p *planner) keyOf(a *trust.Authority, m *trust.Material) crypto.Signer {
	if key := p.Keys(a.Key); key != nil || !m.OK() || len(m.Certificates) == 0 {
		return key
	}
	for _, b := range p.g.Authorities {
		if key := p.Keys(b.Key); key != nil && trust.SameKey(key.Public(), m.Certificates[0].PublicKey) {
			return key
		}
	}
	return nil
}

// asOne has one certificate made for what is one authority on several nodes, and warns of
// the places that none of the items writes.
func (p *planner) asOne(items []*Item) []*Item {
	var firsts []*oneCertificate
	written := map[trust.Place]bool{}
	for _, i := range items {
		written[i.Certificate] = i.Kind == Authority
	}
	for _, i := range items {
		if i.Kind != Authority {
			continue
		}
		n := slices.IndexFunc(firsts, func(f *oneCertificate) bool { return f.first.Old.Equal(i.Old) })
		if n >= 0 {
			i.Certifier = firsts[n]
			continue
		}
		one := &oneCertificate{first: i}
		firsts, i.Certifier = append(firsts, one), one
		if kept := slices.DeleteFunc(p.copies(i.Old), func(o trust.Place) bool { return written[o] }); len(kept) > 0 {
			i.Warnings = append(i.Warnings, p.keptWarning(i.Old, kept))
		}
	}
	return items
}

// KeptWarning begins the warning of an authority whose old certificate stands elsewhere.
const KeptWarning = "its old certificate stays in "

// keptWarning says, in one line however many kubeconfigs there are, where the old
// certificate of an authority stays.
func (p *planner) keptWarning(old *x509.Certificate, kept []trust.Place) string {
	var files []string
	for _, at := range kept {
		if file := at.File().String(); !slices.Contains(files, file) {
			files = append(files, file)
		}
	}
	list := strings.Join(files, ", ")
	if p.At.After(old.NotAfter) {
		return KeptWarning + list + ", though it is over: who trusts it alone refuses everything, and kubepki recover exchanges those too"
	}
	return KeptWarning + list + ", and serves there until " + old.NotAfter.UTC().Format(time.DateOnly) + ": a kubeconfig that is renewed gets the new one, a bundle by kubepki trust add"
}

// oneCertificate gives all items of one authority the certificate of the first of them.
type oneCertificate struct {
	first *Item
	once  sync.Once
	chain []*x509.Certificate
	err   error
}

// Certify makes it when it is asked first.
func (o *oneCertificate) Certify(ctx context.Context, _ *Item, key crypto.Signer) ([]*x509.Certificate, error) {
	o.once.Do(func() { o.chain, o.err = o.first.certify(ctx, o.first, key) })
	return o.chain, o.err
}

func constrained(c *x509.Certificate) bool {
	return len(c.PermittedDNSDomains)+len(c.ExcludedDNSDomains)+len(c.PermittedIPRanges)+len(c.ExcludedIPRanges)+
		len(c.PermittedEmailAddresses)+len(c.ExcludedEmailAddresses)+len(c.PermittedURIDomains)+len(c.ExcludedURIDomains) > 0
}

// above is the authority that signed an intermediate, with its key.
func (p *planner) above(i *Item, old *x509.Certificate) (issue.Authority, error) {
	for _, a := range p.g.Authorities {
		m, key := p.g.Material(a.Certificate), p.Keys(a.Key)
		for _, c := range certificatesOf(m) {
			if bytes.Equal(c.RawSubject, old.RawIssuer) && key != nil && trust.SameKey(c.PublicKey, key.Public()) {
				i.Issuer = a.Certificate
				return issue.Authority{Certificate: c, Key: key}, nil
			}
		}
	}
	return issue.Authority{}, &Refusal{i.ID(), fmt.Sprintf("the key of the authority above it, %q, is not at hand", old.Issuer), "run it where that key is, or have it certified again there"}
}

// copies are the places that hold a certificate, in the order of the nodes.
func (p *planner) copies(old *x509.Certificate) []trust.Place {
	var all []trust.Place
	for i := range p.g.Nodes {
		for _, m := range p.g.Nodes[i].Materials {
			for _, c := range m.Certificates {
				if c.Equal(old) {
					all = append(all, m.Place)
				}
			}
		}
	}
	return all
}
