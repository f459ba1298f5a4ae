package mtls

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
)

// ClientConfig returns the configuration of a client that always shows the newest
// certificate of a source, and trusts servers by its newest bundle. A handshake
// fails while the source has no bundle; without a certificate none is shown.
//
// server says which of the bundle's servers is the right one: [Named], the usual
// way, or by SPIFFE ID. nil is the name that was dialled. [crypto/tls] does not
// tell us that of an IP address, so that nil refuses them: use [Named], or
// mtlshttp and mtlsgrpc, which know what they dial.
//
// The result may be changed, but for InsecureSkipVerify and VerifyConnection:
// servers are verified by the latter, at each handshake, resumed ones too, because
// [tls.Config] has one fixed set of authorities. So VerifiedChains of a connection
// stay empty. TLS 1.2 at least.
//
// No sessions are resumed, as with any [tls.Config] of a client. With a
// ClientSessionCache of [crypto/tls] the first handshake after an authority was
// taken out of use fails where its session was of that; [SessionCache] has none of
// that.
func ClientConfig(s Source, server Authorizer) *tls.Config {
	c := &client{s, server}
	return &tls.Config{
		MinVersion:           tls.VersionTLS12,
		GetClientCertificate: c.certificate,
		InsecureSkipVerify:   true, //nolint:gosec // VerifyConnection verifies, by the newest bundle
		VerifyConnection:     c.verify,
	}
}

type client struct {
	source Source
	server Authorizer
}

// certificate gives what there is, whatever authorities the server names: it says
// better than the client why it does not like it.
func (c *client) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	now, err := snapshot(c.source)
	if err != nil {
		return nil, fmt.Errorf("the source of certificates: %w", err)
	}
	if now.Certificate == nil {
		return &tls.Certificate{}, nil
	}
	return now.Certificate, nil
}

func (c *client) verify(state tls.ConnectionState) error {
	peer, err := VerifyServer(c.source, &state)
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
	}
	if c.server != nil {
		err = c.server(peer)
	} else {
		err = dialled(peer, state.ServerName)
	}
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: fmt.Errorf("another server than was asked for: %w", err)}
	}
	return nil
}

// dialled judges a server by the name in the handshake.
func dialled(p Peer, name string) error {
	if name == "" {
		return errors.New("it was dialled by its IP address, or without a name: say which server is meant, by mtls.Named")
	}
	return p.Certificate.VerifyHostname(name)
}

// DialledAt returns the configuration of [ClientConfig] for one connection, to an
// address (HOST:PORT or HOST) as [net.Dial] takes it: where server is nil, the
// other side must be called HOST, which may be an IP address. It is for programs
// that dial themselves, and to be used at once: the whole handshake shows and
// trusts what the source has now.
func DialledAt(s Source, server Authorizer, address string) *tls.Config {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	if server == nil {
		server = Named(host)
	}
	config := ClientConfig(pin(s), server)
	config.ServerName = host
	return config
}

// pin returns what a source has now as a source, its error too, so that nothing
// changes during a handshake.
func pin(s Source) Source {
	now, err := snapshot(s)
	if err != nil {
		return failed{err}
	}
	return now
}

type failed struct{ err error }

func (f failed) Snapshot() (*Snapshot, error) { return nil, f.err }
