package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// ErrNoClient tells that a client has shown no certificate.
var ErrNoClient = errors.New("the client has shown no certificate")

// VerifyClient judges the client of a connection to a server of [ServerConfig]
// by the source's bundle and the time of now, and returns its certificate.
//
// Of [RequireClients] the handshake has done that already: this is for
// connections that live longer than certificates and authorities do, and takes
// under a microsecond while the authority is still the one that the handshake
// found. Of [UnverifiedClients] nobody has: the chain is verified at each call,
// which takes a tenth of a millisecond, and a hundred times that for one that is
// made to (crypto/x509 gives up after a hundred signatures). A server that is
// open to strangers remembers for a connection that it was refused.
//
// The error is [ErrNoClient] where there is no certificate, or no TLS (nil); the
// source's; or it tells why the certificate is not good now, for the server's
// own log.
func VerifyClient(s Source, c *tls.ConnectionState) (*x509.Certificate, error) {
	if c == nil || len(c.PeerCertificates) == 0 {
		return nil, ErrNoClient
	}
	now, err := s.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("the source of certificates: %w", err)
	}
	if now.Bundle == nil {
		return nil, errNoBundle
	}
	if err := now.Bundle.verify(c, time.Now()); err != nil {
		return nil, fmt.Errorf("the certificate of the client %s: %w", shortName(c.PeerCertificates[0]), err)
	}
	return c.PeerCertificates[0], nil
}

// verify tells why the peer of a connection is not from the bundle.
func (b *Bundle) verify(c *tls.ConnectionState, at time.Time) error {
	for _, chain := range c.VerifiedChains {
		if b.stillEnds(chain, at) {
			return nil
		}
	}
	// Its anchor may have been certified anew, or another one knows it too.
	between := x509.NewCertPool()
	for _, above := range c.PeerCertificates[1:] {
		between.AddCert(above)
	}
	_, err := c.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: b.pool, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// stillEnds tells whether a chain that crypto/tls has verified, at this
// handshake or at the one that made the session, is good as before: its
// signatures are, so what remains are its anchor and the time.
func (b *Bundle) stillEnds(chain []*x509.Certificate, at time.Time) bool {
	for _, c := range chain {
		if at.Before(c.NotBefore) || at.After(c.NotAfter) {
			return false
		}
	}
	return len(chain) > 0 && b.raw[string(chain[len(chain)-1].Raw)]
}

// shortName is enough of a subject to find the certificate by: whoever made it
// may have written anything.
func shortName(c *x509.Certificate) string {
	const most = 80
	name := c.Subject.String()
	if len(name) > most {
		return fmt.Sprintf("%q…", name[:most])
	}
	return fmt.Sprintf("%q", name)
}
