package controller

import (
	"fmt"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/kubepki/kubepki/internal/csr"
)

// BenchmarkRequest takes one request from its creation to its certificate, with
// an API server in memory, whose work is part of the figure, and an authority
// with an ECDSA key.
func BenchmarkRequest(b *testing.B) {
	bench := newBench(b, newAPI(), nil)
	bench.start(b)
	defer bench.stop()
	all := make([]*certificatesv1.CertificateSigningRequest, b.N)
	for i := range all {
		all[i] = bootstrap(b, fmt.Sprint("csr-", i), fmt.Sprint("n", i), newKey(b))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, o := range all {
		bench.create(o)
	}
	for i := range all {
		for bench.state(fmt.Sprint("csr-", i)) != csr.Issued {
			time.Sleep(time.Millisecond)
		}
	}
}

// BenchmarkLedger is what the ledger itself costs for one request: what is seen,
// taken, written and done.
func BenchmarkLedger(b *testing.B) {
	l := newLedger(DefaultWorkers)
	o := bootstrap(b, "one", "n1", newKey(b))
	now := time.Now()
	for i := range b.N {
		l.observe(at(o, 3*i+1), now)
		it, _, _ := l.take()
		l.wrote(it, at(o, 3*i+2, certificatesv1.CertificateApproved))
		l.wrote(it, issuedAt(o, 3*i+3))
		l.done(it, finished, now)
		l.remove("one", "uid-one")
	}
}
