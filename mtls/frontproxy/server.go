package frontproxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/kubepki/kubepki/mtls"
)

// ServerConfig returns the configuration of a server behind [Guard], which shows
// the newest certificate of a source, and asks clients for one of either bundle
// of the settings. It lets everybody in ([mtls.UnverifiedClients]), because a
// client may be a proxy, a user, or neither: Guard judges each request.
//
// A handshake fails while one of the sources has an error. The bundle of the
// first is not used.
func ServerConfig(certificate mtls.Source, settings Source) *tls.Config {
	return mtls.ServerConfig(&asked{certificate: certificate, settings: settings}, mtls.UnverifiedClients)
}

// asked is a certificate, and the authorities that clients are told of: some
// show a certificate only where they know its authority.
type asked struct {
	certificate mtls.Source
	settings    Source
	made        atomic.Pointer[askedNow]
}

type askedNow struct {
	shown    *tls.Certificate
	settings *Settings
	snapshot *mtls.Snapshot
}

// Snapshot returns the same pointer as long as both are the same.
func (a *asked) Snapshot() (*mtls.Snapshot, error) {
	shown, err := a.certificate.Snapshot()
	if err != nil {
		return nil, err
	}
	s, err := a.settings.Settings()
	if err != nil {
		return nil, fmt.Errorf("the source of settings: %w", err)
	}
	switch {
	case s == nil:
		return nil, errNoSettings
	case shown == nil:
		return nil, errors.New("the source of the certificate has none")
	}
	if m := a.made.Load(); m != nil && m.shown == shown.Certificate && m.settings == s {
		return m.snapshot, nil
	}
	var anchors []*x509.Certificate
	for _, b := range []*mtls.Bundle{s.Bundle, s.ClientBundle} {
		if b != nil {
			anchors = append(anchors, b.Anchors()...)
		}
	}
	bundle, err := mtls.NewBundle(anchors...)
	if err != nil {
		return nil, fmt.Errorf("the settings: %w", err)
	}
	m := &askedNow{shown.Certificate, s, &mtls.Snapshot{Certificate: shown.Certificate, Bundle: bundle}}
	a.made.Store(m)
	return m.snapshot, nil
}
