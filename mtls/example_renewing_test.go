package mtls_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log"
	"net/url"
	"time"

	"github.com/kubepki/kubepki/mtls"
)

// Issuer signs for everybody, with a key at hand. One that asks somebody over a
// network looks the same, and gives up when ctx ends.
type Issuer struct {
	authority *x509.Certificate
	key       crypto.Signer
}

// Issue gives an hour to whom a request names.
func (i *Issuer) Issue(_ context.Context, request []byte) (*mtls.Issued, error) {
	asked, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		URIs: asked.URIs, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour), // some clocks are behind
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, i.authority, asked.PublicKey, i.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	bundle, err := mtls.NewBundle(i.authority)
	if err != nil {
		return nil, err
	}
	return &mtls.Issued{Chain: []*x509.Certificate{leaf}, Bundle: bundle}, nil
}

// A certificate that a signer issues, and issues anew long before it expires, with
// the signer. One that speaks to the Kubernetes API is in mtls/kubesource.
func ExampleNewRenewing() {
	issuer, err := newIssuer()
	if err != nil {
		log.Fatal(err)
	}
	id := &url.URL{Scheme: "spiffe", Host: "example.org", Path: "/ns/shop/sa/till"}
	source, err := mtls.NewRenewing(mtls.Renewal{
		Issuer:  issuer,
		Request: x509.CertificateRequest{URIs: []*url.URL{id}},
		Told: func(r mtls.Renewed) {
			if r.Err != nil {
				log.Printf("no new certificate, the next try is at %s: %v", r.Next, r.Err)
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // in a program: as long as it runs
	defer cancel()
	go source.Run(ctx)
	if err := source.WaitReady(ctx); err != nil {
		log.Fatal(err)
	}
	now, err := source.Snapshot()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(now.Certificate.Leaf.URIs[0], "trusts", now.Bundle.Anchors()[0].Subject)
	// Output: spiffe://example.org/ns/shop/sa/till trusts CN=shop
}

func newIssuer() (*Issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "shop"}, NotBefore: now, NotAfter: now.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	authority, err := x509.ParseCertificate(der)
	return &Issuer{authority, key}, err
}
