package controller

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/kubepki/kubepki/internal/csr"
)

func TestRequestsThatAreAlikeGetOneCertificate(t *testing.T) {
	within(t, nil, func(t *testing.T, b *bench) {
		first := bootstrap(t, "csr-0", "n1", newKey(t))
		again := func(name string, change func(*certificatesv1.CertificateSigningRequest)) {
			o := first.DeepCopy()
			o.Name, o.UID = name, ""
			change(o)
			b.create(o)
		}
		b.create(first)
		for i := range 5 {
			again(fmt.Sprint("csr-", i+1), func(*certificatesv1.CertificateSigningRequest) {})
		}
		life := int32(3600)
		again("shorter", func(o *certificatesv1.CertificateSigningRequest) { o.Spec.ExpirationSeconds = &life })
		issued := func(name string) func() bool { return func() bool { return b.state(name) == csr.Issued } }
		for _, name := range []string{"csr-0", "csr-1", "csr-2", "csr-3", "csr-4", "csr-5", "shorter"} {
			waitFor(t, name+" is issued", issued(name))
			same := bytes.Equal(b.get(name).Status.Certificate, b.get("csr-0").Status.Certificate)
			if same != (name != "shorter") {
				t.Errorf("%s has the certificate of csr-0: %t", name, same)
			}
		}
		time.Sleep(3 * alikeFor)
		again("late", func(*certificatesv1.CertificateSigningRequest) {})
		waitFor(t, "late is issued", issued("late"))
		if bytes.Equal(b.get("late").Status.Certificate, b.get("csr-0").Status.Certificate) {
			t.Error("a request that came much later has the old certificate")
		}
	})
}

func TestWhatWasSignedIsForgotten(t *testing.T) {
	var a alike
	now := time.Now()
	sum := func(i int) [32]byte { return [32]byte{byte(i), byte(i >> 8), byte(i >> 16)} }
	for i := range 10 * maxAlike {
		a.put(sum(i), []byte("ca"), signature{chain: []byte("x")}, now)
	}
	if n := len(a.young) + len(a.old); n > 2*maxAlike {
		t.Errorf("%d are kept, want %d at most", n, 2*maxAlike)
	}
	last := sum(10*maxAlike - 1)
	if _, ok := a.get(last, []byte("ca"), now); !ok {
		t.Error("the last is forgotten")
	}
	if _, ok := a.get(last, []byte("other ca"), now); ok {
		t.Error("the certificate of another authority is given")
	}
	if _, ok := a.get(last, []byte("ca"), now.Add(2*alikeFor)); ok {
		t.Error("it is kept for too long")
	}
}
