package mtls

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

var (
	// ErrNoClient tells that a client has shown no certificate.
	ErrNoClient = errors.New("the client has shown no certificate")
	// ErrNoServer tells that there is no TLS, and so no server's certificate.
	ErrNoServer = errors.New("the server has shown no certificate")
)

// VerifyClient judges the client of a connection to a server of [ServerConfig]
// by the source's bundle and the time of now, and returns who it is.
//
// Of [RequireClients] the handshake has done that already: this is for
// connections that live longer than certificates and authorities do, and takes
// under a microsecond while the authority is still the one that the handshake
// found. Of [UnverifiedClients] nobody has. What is good takes a few microseconds,
// and a tenth of a millisecond the first time. What is not is verified at each
// call, which takes a hundred times that for a chain that is made to (crypto/x509
// gives up after a hundred signatures): a server that is open to strangers remembers
// for a connection that it was refused.
//
// The error is [ErrNoClient] where there is no certificate, or no TLS (nil); the
// source's; or it tells why the certificate is not good now, for the server's
// own log.
func VerifyClient(s Source, c *tls.ConnectionState) (Peer, error) {
	if c == nil || len(c.PeerCertificates) == 0 {
		return Peer{}, ErrNoClient
	}
	return verifyPeer(s, c, x509.ExtKeyUsageClientAuth, "client")
}

// VerifyServer judges the server of a connection by the source's bundle and the
// time of now, and returns who it is. What it is called is for an [Authorizer]
// to judge: [Named].
//
// The handshake of [ClientConfig] has done that: this is for connections that
// live longer than certificates and authorities do. It takes a few microseconds.
// Errors are those of [VerifyClient], with [ErrNoServer].
func VerifyServer(s Source, c *tls.ConnectionState) (Peer, error) {
	if c == nil || len(c.PeerCertificates) == 0 {
		return Peer{}, ErrNoServer
	}
	return verifyPeer(s, c, x509.ExtKeyUsageServerAuth, "server")
}

// verifyPeer judges the other side, which is one thing to show oneself as.
func verifyPeer(s Source, c *tls.ConnectionState, usage x509.ExtKeyUsage, side string) (Peer, error) {
	now, err := snapshot(s)
	if err != nil {
		return Peer{}, fmt.Errorf("the source of certificates: %w", err)
	}
	if now.Bundle.empty() {
		return Peer{}, fmt.Errorf("the source has no bundle to verify %ss by", side)
	}
	peer := Peer{c.PeerCertificates[0]}
	if _, err := now.Bundle.verify(c, usage, time.Now()); err != nil {
		return Peer{}, fmt.Errorf("the certificate of the %s %s: %w", side, peer, err)
	}
	return peer, nil
}

// verify returns the chains by which the peer of a connection is from the bundle,
// or tells why it is not.
func (b *Bundle) verify(c *tls.ConnectionState, usage x509.ExtKeyUsage, at time.Time) ([][]*x509.Certificate, error) {
	if b.anyStillEnds(c.VerifiedChains, at) {
		return c.VerifiedChains, nil
	}
	// Who was here before, by another connection or by the session that is resumed.
	key := keyOf(c.PeerCertificates, usage)
	if chains, ok := b.found.Get(key); ok && b.anyStillEnds(chains, at) {
		return chains, nil
	}
	between := x509.NewCertPool()
	for _, above := range c.PeerCertificates[1:] {
		between.AddCert(above)
	}
	chains, err := c.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: b.pool, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err == nil {
		b.found.Add(key, chains)
	}
	return chains, err
}

// chainKey is the sum of all that was shown, and of what it shall be good for.
type chainKey [sha256.Size]byte

func keyOf(shown []*x509.Certificate, usage x509.ExtKeyUsage) (key chainKey) {
	h := sha256.New()
	h.Write([]byte{byte(usage)})
	for _, c := range shown {
		h.Write(c.Raw) // DER tells its own length
	}
	h.Sum(key[:0])
	return key
}

func (b *Bundle) anyStillEnds(chains [][]*x509.Certificate, at time.Time) bool {
	return slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool { return b.stillEnds(chain, at) })
}

// stillEnds tells whether a chain that was verified, of the same certificates and
// for the same usage, is good as before: its signatures are, so what remains are
// its anchor and the time. That the anchor was certified anew, or that another one
// knows the peer too, is found by verifying.
func (b *Bundle) stillEnds(chain []*x509.Certificate, at time.Time) bool {
	for _, c := range chain {
		if at.Before(c.NotBefore) || at.After(c.NotAfter) {
			return false
		}
	}
	return len(chain) > 0 && b.raw[string(chain[len(chain)-1].Raw)]
}
