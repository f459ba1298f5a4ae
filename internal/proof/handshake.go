package proof

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// side is what one end of a handshake shows and demands.
type side struct {
	shows   *tls.Certificate // nil: nothing
	anchors *x509.CertPool   // nil: the other end is not verified
	name    string           // of the caller: what it dials
}

// handshake lets a caller and a callee shake hands at a time. It returns what
// each end says of the other.
func handshake(caller, callee side, at time.Time) (callerErr, calleeErr error) {
	near, far := pipe()
	done := make(chan error, 1)
	go func() {
		conn := tls.Server(far, callee.serverConfig(at))
		err := conn.Handshake()
		conn.Close()
		done <- err
	}()
	conn := tls.Client(near, caller.clientConfig(at))
	callerErr = conn.Handshake()
	if callerErr == nil {
		// In TLS 1.3 the callee judges after the caller is done: wait for its word.
		// Its refusal is the callee's error, not the caller's.
		_, _ = io.Copy(io.Discard, conn)
	}
	near.Close()
	return callerErr, <-done
}

func (s side) clientConfig(at time.Time) *tls.Config {
	c := &tls.Config{
		Time: func() time.Time { return at }, MinVersion: tls.VersionTLS12, CurvePreferences: []tls.CurveID{tls.X25519},
		RootCAs: s.anchors, ServerName: s.name,
		// An unverified callee is one that this end cannot judge: the half is
		// reported as unseen, the other half is what is proved.
		InsecureSkipVerify: s.anchors == nil,
	}
	if s.shows != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return s.shows, nil }
	}
	return c
}

func (s side) serverConfig(at time.Time) *tls.Config {
	c := &tls.Config{
		Time: func() time.Time { return at }, MinVersion: tls.VersionTLS12, CurvePreferences: []tls.CurveID{tls.X25519},
		Certificates: []tls.Certificate{*s.shows}, SessionTicketsDisabled: true,
	}
	if s.anchors != nil {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, s.anchors
	}
	return c
}

var errNoKey = errors.New("the key is not at hand")

// shown is what a credential shows, with its key from the ring.
func (p *prover) shown(c *trust.Credential) (*tls.Certificate, error) {
	if c == nil {
		return nil, errNoKey
	}
	m, key := p.graph.Material(c.Certificate), p.keys[c.Key]
	if m.Leaf() == nil || key == nil || !trust.SameKey(key.Public(), m.Leaf().PublicKey) {
		return nil, errNoKey
	}
	return certificateOf(m.Certificates, key), nil
}

func certificateOf(chain []*x509.Certificate, key crypto.Signer) *tls.Certificate {
	t := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		t.Certificate = append(t.Certificate, c.Raw)
	}
	return t
}

func (p *prover) pool(b *trust.Bundle) (*x509.CertPool, error) {
	if b == nil {
		return nil, errors.New("the verifier names no anchors")
	}
	m := p.graph.Material(b.Anchors)
	if !m.OK() || len(m.Certificates) == 0 {
		return nil, fmt.Errorf("no anchors in %s", b.Anchors)
	}
	pool := x509.NewCertPool()
	for _, c := range m.Certificates {
		pool.AddCert(c)
	}
	return pool, nil
}
