package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
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
// found. Of [UnverifiedClients] nobody has: the chain is verified at each call,
// which takes a tenth of a millisecond, and a hundred times that for one that is
// made to (crypto/x509 gives up after a hundred signatures). A server that is
// open to strangers remembers for a connection that it was refused.
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
// live longer than certificates and authorities do. It takes a tenth of a
// millisecond. Errors are those of [VerifyClient], with [ErrNoServer].
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
	for _, chain := range c.VerifiedChains {
		if b.stillEnds(chain, at) {
			return c.VerifiedChains, nil
		}
	}
	// Its anchor may have been certified anew, or another one knows it too.
	between := x509.NewCertPool()
	for _, above := range c.PeerCertificates[1:] {
		between.AddCert(above)
	}
	return c.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: b.pool, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage},
	})
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
