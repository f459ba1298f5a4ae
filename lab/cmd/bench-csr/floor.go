//go:build linux

package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// floor signs with the cluster's authority, and nothing else.
type floor struct {
	authority *x509.Certificate
	key       crypto.Signer
}

func newFloor(pki string) (*floor, error) {
	var der [2][]byte
	for i, name := range []string{"ca.crt", "ca.key"} {
		data, err := os.ReadFile(filepath.Join(pki, name))
		if err != nil {
			return nil, err
		}
		block, _ := pem.Decode(data)
		if block == nil {
			return nil, fmt.Errorf("%s: no PEM block", name)
		}
		der[i] = block.Bytes
	}
	authority, err := x509.ParseCertificate(der[0])
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS1PrivateKey(der[1])
	if err != nil {
		return nil, err
	}
	return &floor{authority, key}, nil
}

// certificate makes what a request asks for.
func (f *floor) certificate(request []byte) ([]byte, error) {
	block, _ := pem.Decode(request)
	asked, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, RawSubject: asked.RawSubject, BasicConstraintsValid: true,
		NotBefore: now.Add(-5 * time.Minute), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, f.authority, asked.PublicKey, f.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// bare is the floor for one request: the three writes and the signature.
func (b *bench) bare(ctx context.Context, request *certificatesv1.CertificateSigningRequest) error {
	created, err := b.nodes.CertificatesV1().CertificateSigningRequests().Create(ctx, request, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	created.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Floor",
	}}
	all := b.admin.CertificatesV1().CertificateSigningRequests()
	approved, err := all.UpdateApproval(ctx, created.Name, created, metav1.UpdateOptions{})
	if err != nil {
		return err
	}
	if approved.Status.Certificate, err = b.floor.certificate(approved.Spec.Request); err != nil {
		return err
	}
	_, err = all.UpdateStatus(ctx, approved, metav1.UpdateOptions{})
	return err
}
