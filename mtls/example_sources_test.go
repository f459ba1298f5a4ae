package mtls_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/mtls"
)

// A client of an API server, by its kubeconfig, whose files are rotated while it
// runs.
func ExampleOpenKubeconfig() {
	files := exampleFiles()
	defer files.remove()
	source, err := mtls.OpenKubeconfig(files.kubeconfig(), "", func(r mtls.Reload) {
		log.Printf("%q: %v", r.Files, r.Err)
	})
	if err != nil {
		log.Fatal(err)
	}
	server := source.Server()
	config := mtls.ClientConfig(source, mtls.Named(server.Name))
	fmt.Println(server.URL, server.Name, config.VerifyConnection != nil)
	// Output: https://10.0.0.11:6443 10.0.0.11 true
}

// A certificate that a signer issues, and issues anew long before it expires. An
// issuer that speaks to the Kubernetes API is in mtls/kubesource.
func ExampleNewRenewing() {
	id, err := url.Parse("spiffe://example.org/ns/shop/sa/till")
	if err != nil {
		log.Fatal(err)
	}
	files := exampleFiles()
	defer files.remove()
	source, err := mtls.NewRenewing(mtls.Renewal{
		Issuer:  exampleIssuer{files.ca},
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
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go source.Run(ctx)
	<-source.Ready()

	now, err := source.Snapshot()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(now.Certificate.Leaf.URIs[0])
	// Output: spiffe://example.org/ns/shop/sa/till
}

// The certificate of one source, and the bundle of another.
func ExampleJoin() {
	files := exampleFiles()
	defer files.remove()
	bundle, err := mtls.ParseBundle(files.bundlePEM())
	if err != nil {
		log.Fatal(err)
	}
	certificate, err := mtls.OpenFiles(mtls.Files{Certificate: files.certificate, Key: files.key}, nil)
	if err != nil {
		log.Fatal(err)
	}
	now, err := mtls.Join(certificate, &mtls.Snapshot{Bundle: bundle}).Snapshot()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(now.Certificate.Leaf.Subject, "trusts", now.Bundle.Anchors()[0].Subject)
	// Output: CN=server trusts CN=ca
}

// exampleIssuer signs everything.
type exampleIssuer struct{ ca issue.Authority }

func (i exampleIssuer) Issue(_ context.Context, request []byte) (*mtls.Issued, error) {
	r, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	c, err := issue.Sign(issue.Template{Subject: pkix.Name{}, URIs: r.URIs, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour)}, r.PublicKey, i.ca)
	if err != nil {
		return nil, err
	}
	return &mtls.Issued{Chain: []*x509.Certificate{c}}, nil
}

// kubeconfig writes one of jane.
func (s *exampleSet) kubeconfig() string {
	key, err := issue.EncodePrivateKey(s.jane.PrivateKey.(crypto.Signer))
	check(err)
	data, err := layout.EncodeKubeconfig(layout.KubeconfigSpec{
		Cluster: "shop", Server: "https://10.0.0.11:6443", CA: s.bundlePEM(), User: "jane", Certificate: trust.EncodeCertificates(s.jane.Leaf), Key: key,
	})
	check(err)
	path := filepath.Join(s.dir, "jane.conf")
	check(os.WriteFile(path, data, 0o600))
	return path
}
