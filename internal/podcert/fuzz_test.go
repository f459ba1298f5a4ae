package podcert_test

import (
	"crypto/x509"
	"testing"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/podcert"
	"github.com/kubepki/kubepki/internal/trust"
)

// FuzzKeys decides on foreign bytes in the place of keys. Whatever is issued is
// for a key that crypto/x509 reads from them, and that proved itself.
func FuzzKeys(f *testing.F) {
	w := good(f)
	f.Add(w.request.PKCS10, []byte(nil), []byte(nil))
	w.use(f, generate(f, issue.Ed25519))
	f.Add([]byte(nil), w.request.PublicKey, w.request.ProofOfPossession)
	f.Add(stub(f, generate(f, issue.RSA3072), greedy()), []byte(nil), []byte(nil))
	a := root(f, same)
	f.Fuzz(func(t *testing.T, pkcs10, public, proof []byte) {
		w := *w
		w.request.PKCS10, w.request.PublicKey, w.request.ProofOfPossession = pkcs10, public, proof
		if w.decide().Verdict != podcert.Issue {
			return
		}
		c, err := podcert.Sign(w.request, w.policy, a, now)
		if err != nil {
			t.Fatal(err)
		}
		if len(pkcs10) > 0 {
			asked, err := x509.ParseCertificateRequest(pkcs10)
			if err != nil || asked.CheckSignature() != nil || !trust.SameKey(asked.PublicKey, c.Leaf.PublicKey) {
				t.Errorf("issued for %x", pkcs10)
			}
		} else if key, err := x509.ParsePKIXPublicKey(public); err != nil || !trust.SameKey(key, c.Leaf.PublicKey) {
			t.Errorf("issued for %x", public)
		}
		if c.Leaf.Subject.String() != "" || len(c.Leaf.URIs) != 1 || len(c.Leaf.DNSNames) > 0 || c.Leaf.IsCA {
			t.Errorf("the certificate says %v", c.Leaf)
		}
	})
}
