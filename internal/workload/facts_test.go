package workload_test

import (
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"

	"github.com/kubepki/kubepki/internal/workload"
)

func BenchmarkParseKey(b *testing.B) {
	for _, p := range []cmapi.CertificatePrivateKey{{}, {Size: 4096}, {Algorithm: cmapi.ECDSAKeyAlgorithm}, {Algorithm: cmapi.ECDSAKeyAlgorithm, Size: 384}, {Algorithm: cmapi.Ed25519KeyAlgorithm}} {
		spec := &cmapi.CertificateSpec{PrivateKey: &p}
		key, _ := workload.NewKey(spec)
		text, _ := workload.EncodeKey(key, spec)
		b.Run(string(p.Algorithm), func(b *testing.B) {
			for b.Loop() {
				if _, err := workload.ParseKey(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
