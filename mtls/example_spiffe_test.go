package mtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"sync"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/kubepki/kubepki/mtls"
)

// X509 is what a workloadapi.X509Source of go-spiffe is: an SVID and bundles, as
// the Workload API, such as that of SPIRE, has them.
type X509 interface {
	x509svid.Source
	x509bundle.Source
}

// SPIFFE is a Source of an X509: its SVID, and the bundle of the SVID's own trust
// domain. It makes a new snapshot only where something has changed.
type SPIFFE struct {
	From X509

	mu     sync.Mutex
	svid   *x509svid.SVID
	bundle *x509bundle.Bundle
	now    *mtls.Snapshot
}

// Snapshot asks what is so now.
func (s *SPIFFE) Snapshot() (*mtls.Snapshot, error) {
	svid, err := s.From.GetX509SVID()
	if err != nil {
		return nil, err
	}
	bundle, err := s.From.GetX509BundleForTrustDomain(svid.ID.TrustDomain())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now != nil && s.svid == svid && s.bundle.Equal(bundle) {
		return s.now, nil
	}
	anchors, err := mtls.NewBundle(bundle.X509Authorities()...)
	if err != nil {
		return nil, fmt.Errorf("trust domain %s: %w", svid.ID.TrustDomain(), err)
	}
	shown := &tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
	for _, c := range svid.Certificates {
		shown.Certificate = append(shown.Certificate, c.Raw)
	}
	s.svid, s.bundle = svid, bundle.Clone()
	s.now = &mtls.Snapshot{Certificate: shown, Bundle: anchors}
	return s.now, nil
}

// A source of one's own, here of go-spiffe's Workload API.
func ExampleSource() {
	from, err := fixedX509() // in a program: workloadapi.NewX509Source(ctx)
	if err != nil {
		log.Fatal(err)
	}
	source := &SPIFFE{From: from}
	may := mtls.InTrustDomain(spiffeid.RequireTrustDomainFromString("example.org"))
	client := mtls.ClientConfig(source, may)

	first, err := source.Snapshot()
	if err != nil {
		log.Fatal(err)
	}
	again, _ := source.Snapshot()
	fmt.Println(first.Certificate.Leaf.URIs[0], again == first, client.MinVersion == tls.VersionTLS12)
	// Output: spiffe://example.org/ns/shop/sa/till true true
}

// fixed is an X509 that never changes.
type fixed struct {
	*x509svid.SVID
	*x509bundle.Bundle
}

func fixedX509() (X509, error) {
	issuer, err := newIssuer()
	if err != nil {
		return nil, err
	}
	id := spiffeid.RequireFromString("spiffe://example.org/ns/shop/sa/till")
	leaf, key, err := issuer.pair(id)
	if err != nil {
		return nil, err
	}
	return fixed{
		&x509svid.SVID{ID: id, Certificates: []*x509.Certificate{leaf}, PrivateKey: key},
		x509bundle.FromX509Authorities(id.TrustDomain(), []*x509.Certificate{issuer.authority}),
	}, nil
}
