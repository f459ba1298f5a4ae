package podcert

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// Backdate is how far before its making a certificate's life starts. The API
// server takes no more than five minutes, by its own clock: half of that leaves
// room for clocks that differ, on either side.
const Backdate = 150 * time.Second

// maxChain is what the API server takes in bytes (k/k
// pkg/apis/certificates/types.go, MaxCertificateChainSize).
const maxChain = 100 * 1024

// Certificate is what answers a request. The times are whole seconds.
type Certificate struct {
	Leaf *x509.Certificate
	// Chain is PEM: the leaf, then the authorities up to the anchor, without it.
	Chain []byte
	// BeginRefreshAt is when the kubelet shall ask for the next one: after two
	// thirds of the life, so that a third is left for an API server or a signer
	// that is away.
	BeginRefreshAt time.Time
}

// Sign makes the certificate that a request asks for, after [Decide] came to
// Issue. Its life is the shortest of what the request allows, what the policy
// allows, and what is left of the authority and of those in its chain; the life
// that was given up by starting early counts. An error tells that nothing can be
// issued now, an authority that ends within an hour among it: no request is to be
// blamed for it.
func Sign(r Request, p Policy, a issue.Authority, now time.Time) (*Certificate, error) {
	public, err := r.publicKey()
	if err != nil {
		return nil, err
	}
	id, err := r.identity(p)
	if err != nil {
		return nil, err
	}
	above := authorities(a)
	start := now.Add(-Backdate).Truncate(time.Second)
	end := start.Add(min(r.life(), p.MaxLife)).Truncate(time.Second)
	for _, c := range above {
		if c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	if end.Sub(start) < MinLife {
		return nil, fmt.Errorf("authority %q ends at %s: too soon for a certificate of %s, the shortest that the API takes", a.Certificate.Subject, end.UTC().Format(time.RFC3339), MinLife)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	leaf, err := issue.Sign(issue.Template{
		URIs: []*url.URL{id.URL()}, Usages: usages(), NotBefore: start, NotAfter: end, Serial: serial,
	}, public, a)
	if err != nil {
		return nil, err
	}
	if err := verify(leaf, above, now); err != nil {
		return nil, fmt.Errorf("authority %q cannot vouch for %s: %w", a.Certificate.Subject, id, err)
	}
	chain := trust.EncodeCertificates(append([]*x509.Certificate{leaf}, withoutAnchor(above)...)...)
	if len(chain) > maxChain {
		return nil, fmt.Errorf("the chain of authority %q makes %d bytes: the API takes %d", a.Certificate.Subject, len(chain), maxChain)
	}
	return &Certificate{Leaf: leaf, Chain: chain, BeginRefreshAt: start.Add(end.Sub(start) * 2 / 3).Truncate(time.Second)}, nil
}

// usages are those of an X.509-SVID (SPIFFE X509-SVID section 4.4): pods call
// each other, in both directions.
func usages() []x509.ExtKeyUsage {
	return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
}

// authorities returns the one that signs and those above it, each once.
func authorities(a issue.Authority) []*x509.Certificate {
	all := []*x509.Certificate{a.Certificate}
	for _, c := range a.Chain {
		if !c.Equal(all[len(all)-1]) {
			all = append(all, c)
		}
	}
	return all
}

// withoutAnchor leaves out what issued itself: who trusts it has it.
func withoutAnchor(chain []*x509.Certificate) []*x509.Certificate {
	top := chain[len(chain)-1]
	if bytes.Equal(top.RawSubject, top.RawIssuer) && trust.SignedBy(top, top) {
		return chain[:len(chain)-1]
	}
	return chain
}

// verify checks a certificate as its peers will, for each usage: constraints of
// the authorities may forbid what was just signed.
func verify(leaf *x509.Certificate, above []*x509.Certificate, now time.Time) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(above[len(above)-1])
	for _, c := range above[:len(above)-1] {
		between.AddCert(c)
	}
	for _, usage := range usages() {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
		if err != nil {
			return err
		}
	}
	return nil
}

// newSerial draws a positive number of up to 159 bits, which fits into the twenty
// octets of RFC 5280 section 4.1.2.2.
func newSerial() (*big.Int, error) {
	limit := new(big.Int).Lsh(big.NewInt(1), 159)
	n, err := rand.Int(rand.Reader, limit.Sub(limit, big.NewInt(1)))
	if err != nil {
		return nil, fmt.Errorf("drawing a serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}
