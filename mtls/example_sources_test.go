package mtls_test

import (
	"fmt"
	"log"
	"path/filepath"

	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/tlstest"
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

// kubeconfig writes one of jane.
func (s *exampleSet) kubeconfig() string {
	data, err := layout.EncodeKubeconfig(layout.KubeconfigSpec{
		Cluster: "shop", Server: "https://10.0.0.11:6443", CA: s.bundlePEM(), User: "jane", Certificate: trust.EncodeCertificates(s.jane.Leaf), Key: tlstest.KeyPEM(tlstest.Panics, &s.jane),
	})
	check(err)
	path := filepath.Join(s.dir, "jane.conf")
	tlstest.Put(tlstest.Panics, path, data)
	return path
}
