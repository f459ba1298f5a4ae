//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// joining makes the requests of nodes for their first certificates, each with a
// key of its own.
func joining(run string, count int) ([]*certificatesv1.CertificateSigningRequest, error) {
	all := make([]*certificatesv1.CertificateSigningRequest, count)
	for i := range all {
		node := fmt.Sprintf("%s-%d", run, i)
		request, err := request(node)
		if err != nil {
			return nil, err
		}
		all[i] = &certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{Name: "node-csr-" + node},
			Spec: certificatesv1.CertificateSigningRequestSpec{
				Request: request, SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName,
				Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
			},
		}
	}
	return all, nil
}

// stale makes requests that nobody approves: of a signer that is not there.
func stale(run string, count int) ([]*certificatesv1.CertificateSigningRequest, error) {
	all, err := joining(run, count)
	for _, r := range all {
		r.Spec.SignerName = "example.com/nobody"
	}
	return all, err
}

func request(node string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	subject := pkix.Name{Organization: []string{"system:nodes"}, CommonName: "system:node:" + node}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}
