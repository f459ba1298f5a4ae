package workload

import (
	"bytes"
	"encoding/pem"
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"

	"github.com/kubepki/kubepki/internal/trust"
)

// What the quick look at an RSA key takes, crypto/x509 takes, and finds the same.
func TestTheQuickLookAtAKeyAgreesWithTheSlowOne(t *testing.T) {
	for _, encoding := range []cmapi.PrivateKeyEncoding{cmapi.PKCS1, cmapi.PKCS8} {
		spec := &cmapi.CertificateSpec{PrivateKey: &cmapi.CertificatePrivateKey{Encoding: encoding}}
		key, err := NewKey(spec)
		if err != nil {
			t.Fatal(err)
		}
		text, err := EncodeKey(key, spec)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		if got := rsaPublicOf(trust.Block{Type: block.Type, DER: block.Bytes}); got == nil || !got.Equal(key.Public()) {
			t.Fatalf("%s: a good key is not seen quickly", encoding)
		}
		taken := 0
		for i := range block.Bytes {
			if i%7 != 0 { // each seventh byte: the slow look takes its time
				continue
			}
			broken := bytes.Clone(block.Bytes)
			broken[i] ^= 0x10
			quick := rsaPublicOf(trust.Block{Type: block.Type, DER: broken})
			if quick == nil {
				continue
			}
			taken++
			slow, err := ParseKey(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: broken}))
			if err != nil || !quick.Equal(slow.Public()) {
				t.Errorf("%s: with byte %d broken the quick look says %v, the slow one %v", encoding, i, quick.E, err)
			}
		}
		if taken > 8 { // lengths and versions that nobody reads
			t.Errorf("%s: %d broken keys are taken", encoding, taken)
		}
	}
}

func BenchmarkPublicOf(b *testing.B) {
	for _, p := range []cmapi.CertificatePrivateKey{{}, {Size: 4096}, {Algorithm: cmapi.ECDSAKeyAlgorithm}} {
		spec := &cmapi.CertificateSpec{PrivateKey: &p}
		key, _ := NewKey(spec)
		text, _ := EncodeKey(key, spec)
		b.Run(string(p.Algorithm), func(b *testing.B) {
			for b.Loop() {
				if _, err := publicOf(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
