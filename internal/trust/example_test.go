package trust_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// A server's certificate holds one name and is dialled by another.
func Example() {
	start := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	caKey, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		log.Fatal(err)
	}
	ca, err := issue.SelfSign(issue.Template{
		Subject: pkix.Name{CommonName: "kubernetes"}, Authority: true, NotBefore: start, NotAfter: start.AddDate(10, 0, 0),
	}, caKey)
	if err != nil {
		log.Fatal(err)
	}
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		log.Fatal(err)
	}
	leaf, err := issue.Sign(issue.Template{
		Subject: pkix.Name{CommonName: "kube-apiserver"}, DNSNames: []string{"kubernetes"},
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: start, NotAfter: start.AddDate(1, 0, 0),
	}, key.Public(), issue.Authority{Certificate: ca, Key: caKey})
	if err != nil {
		log.Fatal(err)
	}

	serving, anchors := trust.Place{Path: "/etc/kubernetes/pki/apiserver.crt"}, trust.Place{Path: "/etc/kubernetes/pki/ca.crt"}
	g := trust.Graph{Materials: map[trust.Place]*trust.Material{
		serving: {Place: serving, State: trust.Present, Certificates: []*x509.Certificate{leaf}},
		anchors: {Place: anchors, State: trust.Present, Certificates: []*x509.Certificate{ca}},
	}}
	half := trust.ServerHalf{
		Credential: &trust.Credential{Certificate: serving}, Bundle: &trust.Bundle{Anchors: anchors},
		Names: []string{"kubernetes", "10.0.0.11"},
	}
	for _, b := range g.JudgeServer(&half, start.AddDate(2, 0, 0)) {
		fmt.Printf("%s at %s (%s)\n", b.Kind, b.Place, b.Name)
	}
	// Output:
	// expired at /etc/kubernetes/pki/apiserver.crt ()
	// name-missing at /etc/kubernetes/pki/apiserver.crt (10.0.0.11)
}
