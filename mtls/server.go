package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
)

// Clients says what a server wants of its clients' certificates.
type Clients int

const (
	// RequireClients lets nobody in without a certificate from the bundle.
	RequireClients Clients = iota
	// UnverifiedClients asks for a certificate and lets everybody in, whatever they
	// show: some clients show theirs to each server. Who somebody is the server
	// learns from [VerifyClient], at each request, and from nothing else:
	// [tls.ConnectionState].PeerCertificates is only what a client says. It is what
	// kube-apiserver does (k8s.io/apiserver/pkg/server/secure_serving.go).
	UnverifiedClients
	// NoClients asks for no certificate, and for no bundle.
	NoClients
)

var (
	errNoCertificate = errors.New("the source has no certificate to show")
	errNoBundle      = errors.New("the source has no bundle to verify clients by")
)

// ServerConfig returns the configuration of a server that always shows the
// newest certificate of a source, and trusts clients by its newest bundle: those
// of the moment at which a handshake begins. It fails while the source has not
// what it takes.
//
// It speaks TLS 1.2 and 1.3, and HTTP/2 and HTTP/1.1 (ALPN). What is set in the
// result beside that does not count, for each connection has a configuration of
// its own; session tickets are as [tls.Config] has them.
func ServerConfig(s Source, clients Clients) *tls.Config {
	v := &server{source: s, clients: clients}
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols(), GetConfigForClient: v.config}
}

func protocols() []string { return []string{"h2", "http/1.1"} }

type server struct {
	source  Source
	clients Clients
	made    atomic.Pointer[made]
}

// made is the configuration that a snapshot was made into.
type made struct {
	of     *Snapshot
	config *tls.Config
}

func (v *server) config(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	now, err := snapshot(v.source)
	if err != nil {
		return nil, fmt.Errorf("the source of certificates: %w", err)
	}
	m := v.made.Load()
	if m == nil || m.of != now {
		config, err := v.make(now)
		if err != nil {
			return nil, err
		}
		m = &made{now, config}
		v.made.Store(m)
	}
	if w := watchedBelow(hello.Conn); w != nil {
		return v.watched(w, m), nil
	}
	return m.config, nil
}

// watched is the configuration for one connection of [Connections].
func (v *server) watched(w *watched, m *made) *tls.Config {
	config := m.config.Clone()
	config.VerifyConnection = func(state tls.ConnectionState) error {
		usage := x509.ExtKeyUsageAny
		if verify := m.config.VerifyConnection; verify != nil {
			usage = x509.ExtKeyUsageClientAuth
			if err := verify(state); err != nil {
				return err
			}
		}
		w.note(&standing{&state, usage})
		w.shows(m.of.Certificate)
		return nil
	}
	return config
}

// make says all that crypto/tls can check itself, and what it does not, because a
// session is resumed.
func (v *server) make(now *Snapshot) (*tls.Config, error) {
	if now.Certificate == nil {
		return nil, errNoCertificate
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols(), Certificates: []tls.Certificate{*now.Certificate}}
	if v.clients == NoClients {
		return config, nil
	}
	if now.Bundle.empty() {
		return nil, errNoBundle
	}
	config.ClientAuth, config.ClientCAs = tls.RequestClientCert, now.Bundle.pool
	if v.clients != UnverifiedClients {
		// It is called for resumed sessions too, where VerifyPeerCertificate is not.
		config.ClientAuth, config.VerifyConnection = tls.RequireAndVerifyClientCert, func(c tls.ConnectionState) error {
			_, err := VerifyClient(now, &c)
			return err
		}
	}
	return config, nil
}
