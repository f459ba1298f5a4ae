package workload

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"time"
	"unique"

	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubepki/kubepki/internal/trust"
)

// AnchorID names an authority by its subject and public key, so that one that was
// renewed with its key is the same. The zero value is none.
type AnchorID [16]byte

// AnchorIDOf returns the name of an authority.
func AnchorIDOf(c *x509.Certificate) AnchorID {
	return AnchorID(shortOf(string(c.RawSubject), string(c.RawSubjectPublicKeyInfo)))
}

// Signer names an authority as the certificates that it signs do: by its subject and its
// key identifier. Two authorities may have the same.
type Signer [16]byte

// SignerOf returns how certificates name an authority that signs them.
func SignerOf(c *x509.Certificate) Signer {
	return Signer(shortOf(string(c.RawSubject), string(c.SubjectKeyId)))
}

// Bundle is what a ca.crt holds, for comparison. The zero value is that of one that is
// not there or cannot be read. It is comparable.
type Bundle struct {
	certificates [32]byte // a sum over all of them in their order
	anchors      unique.Handle[string]
}

// BundleOf looks at the certificates of a ca.crt.
func BundleOf(certificates []*x509.Certificate) Bundle {
	if len(certificates) == 0 {
		return Bundle{}
	}
	h := sha256.New()
	var ids []byte
	for _, c := range certificates {
		h.Write(c.Raw)
		id := AnchorIDOf(c)
		ids = append(ids, id[:]...)
	}
	return Bundle{[32]byte(h.Sum(nil)), unique.Make(string(ids))}
}

// Has tells whether one of the certificates is of an authority.
func (b Bundle) Has(id AnchorID) bool {
	if b == (Bundle{}) {
		return false
	}
	for ids := b.anchors.Value(); len(ids) >= len(id); ids = ids[len(id):] {
		if ids[:len(id)] == string(id[:]) {
			return true
		}
	}
	return false
}

// signerOfChain names who signed the last certificate of a chain that did not sign
// itself, and tells when the first ends; zero values where it cannot be read.
func signerOfChain(text []byte) (Signer, time.Time) {
	chain, err := trust.ParseCertificates(text)
	if err != nil {
		return Signer{}, time.Time{}
	}
	end := chain[0].NotAfter
	if top := topOf(chain); top != nil {
		return signerName(top), end
	}
	return Signer{}, end
}

// topOf is the last certificate of a chain that did not sign itself: a root that is sent
// along is its own anchor. nil: there is none.
func topOf(chain []*x509.Certificate) *x509.Certificate {
	for i := len(chain) - 1; i >= 0; i-- {
		if !bytes.Equal(chain[i].RawIssuer, chain[i].RawSubject) {
			return chain[i]
		}
	}
	return nil
}

// signerName is how a certificate names who signed it.
func signerName(c *x509.Certificate) Signer {
	return Signer(shortOf(string(c.RawIssuer), string(c.AuthorityKeyId)))
}

// maxBundle is of how many certificates of a ca.crt it is looked which one signed.
const maxBundle = 16

// readAnchors looks where the chain of a Secret ends, and what its ca.crt holds.
func (f *SecretFacts) readAnchors(s *corev1.Secret, chain []*x509.Certificate) {
	var anchors []*x509.Certificate
	if text := s.Data[cmmeta.TLSCAKey]; len(text) > 0 {
		anchors, _ = trust.ParseCertificates(text) // what cannot be read holds nothing
		f.Bundle = BundleOf(anchors)
	}
	top := topOf(chain)
	if top == nil {
		return
	}
	f.Signer = signerName(top)
	if len(anchors) == 1 && f.Signer == SignerOf(anchors[0]) || len(anchors) > maxBundle {
		return // the name tells
	}
	if i := slices.IndexFunc(anchors, func(c *x509.Certificate) bool {
		return bytes.Equal(c.RawSubject, top.RawIssuer) && trust.SignedBy(top, c)
	}); i >= 0 {
		f.SignedBy = AnchorIDOf(anchors[i])
	}
}
