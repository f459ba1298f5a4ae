package issue_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
)

// An authority signs the certificate of a server.
func Example() {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		fmt.Println(err)
		return
	}
	ca, err := issue.SelfSign(issue.Template{
		Subject: pkix.Name{CommonName: "ca"}, Authority: true, NotBefore: start, NotAfter: start.AddDate(10, 0, 0),
	}, key)
	if err != nil {
		fmt.Println(err)
		return
	}
	server, err := issue.GenerateKey(issue.Ed25519)
	if err != nil {
		fmt.Println(err)
		return
	}
	c, err := issue.Sign(issue.Template{
		Subject: pkix.Name{CommonName: "api"}, DNSNames: []string{"api.example.test"},
		Usages:    []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: start, NotAfter: start.AddDate(1, 0, 0),
	}, server.Public(), issue.Authority{Certificate: ca, Key: key})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Subject, c.DNSNames, c.NotAfter.Format(time.DateOnly))
	// Output: CN=api [api.example.test] 2027-01-01
}
