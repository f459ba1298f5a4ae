package signer_test

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/signer"
	"github.com/kubepki/kubepki/internal/trust"
)

// authority makes a root, or an authority below another, that lives an hour
// from now on.
func authority(t testing.TB, name string, above ...issue.Authority) issue.Authority {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	return certify(t, name, key, above...)
}

func certify(t testing.TB, name string, key crypto.Signer, above ...issue.Authority) issue.Authority {
	t.Helper()
	now := time.Now()
	template := issue.Template{Subject: pkix.Name{CommonName: name}, Authority: true, NotBefore: now.Add(-issue.Backdate), NotAfter: now.Add(time.Hour)}
	var c *x509.Certificate
	var err error
	if len(above) == 0 {
		c, err = issue.SelfSign(template, key)
	} else {
		c, err = issue.Sign(template, key.Public(), above[0])
	}
	if err != nil {
		t.Fatal(err)
	}
	return issue.Authority{Certificate: c, Key: key}
}

// pair is a pair of files, with what told has said.
type pair struct {
	certificate, key string
	mu               sync.Mutex
	taken            []string
	problems         []string
}

func newPair(t testing.TB) *pair {
	dir := t.TempDir()
	return &pair{certificate: filepath.Join(dir, "ca.crt"), key: filepath.Join(dir, "ca.key")}
}

func (p *pair) told(c *x509.Certificate, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.problems = append(p.problems, err.Error())
	} else {
		p.taken = append(p.taken, c.Subject.CommonName)
	}
}

func (p *pair) write(t testing.TB, a issue.Authority, above ...issue.Authority) {
	t.Helper()
	p.writeCertificate(t, a, above...)
	p.writeKey(t, a)
}

func (p *pair) writeCertificate(t testing.TB, a issue.Authority, above ...issue.Authority) {
	t.Helper()
	file := []*x509.Certificate{a.Certificate}
	for _, b := range above {
		file = append(file, b.Certificate)
	}
	put(t, p.certificate, trust.EncodeCertificates(file...))
}

func (p *pair) writeKey(t testing.TB, a issue.Authority) {
	t.Helper()
	data, err := issue.EncodePrivateKey(a.Key)
	if err != nil {
		t.Fatal(err)
	}
	put(t, p.key, data)
}

func put(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *pair) open(t testing.TB) *signer.Reloaded {
	t.Helper()
	r, err := signer.Files(p.certificate, p.key, p.told)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// after returns the name of what signs some looks later.
func after(t testing.TB, r *signer.Reloaded, looks int) string {
	t.Helper()
	var a issue.Authority
	for range looks {
		time.Sleep(time.Second)
		var err error
		if a, err = r.Authority(); err != nil {
			t.Fatal(err)
		}
		if err := a.Usable(time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	return a.Certificate.Subject.CommonName
}

func (p *pair) want(t testing.TB, taken, problem string) {
	t.Helper()
	if got := strings.Join(p.taken, ","); got != taken {
		t.Errorf("taken up %q, want %q", got, taken)
	}
	switch {
	case problem == "" && len(p.problems) > 0:
		t.Errorf("told of %q", p.problems)
	case problem != "" && (len(p.problems) != 1 || !strings.Contains(p.problems[0], problem)):
		t.Errorf("told of %q, want %q once", p.problems, problem)
	}
}

func TestChangedPairIsTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.write(t, authority(t, "one"))
		r := p.open(t)
		if got := after(t, r, 3); got != "one" {
			t.Errorf("%s signs", got)
		}
		p.write(t, authority(t, "two"))
		if got := after(t, r, 1); got != "one" {
			t.Errorf("%s signs at the first look: it may be half written", got)
		}
		if got := after(t, r, 1); got != "two" {
			t.Errorf("%s signs", got)
		}
		p.want(t, "two", "")
	})
}

func TestCertificateMadeAnewForTheSameKeyIsTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, one := newPair(t), authority(t, "one")
		p.write(t, one)
		r := p.open(t)
		p.writeCertificate(t, certify(t, "renewed", one.Key))
		if got := after(t, r, 2); got != "renewed" {
			t.Errorf("%s signs", got)
		}
	})
}

func TestPairIsNotTakenUp(t *testing.T) {
	rows := map[string]struct {
		harm func(t *testing.T, p *pair)
		want string
	}{
		"when only the key has changed":         {func(t *testing.T, p *pair) { p.writeKey(t, authority(t, "two")) }, "does not belong to the key"},
		"when only the certificate has changed": {func(t *testing.T, p *pair) { p.writeCertificate(t, authority(t, "two")) }, "does not belong to the key"},
		"when the certificate is cut off":       {func(t *testing.T, p *pair) { cut(t, p.certificate) }, "no end"},
		"when the key is cut off":               {func(t *testing.T, p *pair) { cut(t, p.key) }, "no end"},
		"when the key is empty":                 {func(t *testing.T, p *pair) { put(t, p.key, nil) }, "no private key"},
		"when the key is gone":                  {func(t *testing.T, p *pair) { os.Remove(p.key) }, "no such file"},
		"when the key is a folder": {func(t *testing.T, p *pair) {
			os.Remove(p.key)
			if err := os.Mkdir(p.key, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
		"when it is no authority": {func(t *testing.T, p *pair) {
			a := authority(t, "above")
			key := authority(t, "x").Key
			c, err := issue.Sign(issue.Template{Subject: pkix.Name{CommonName: "leaf"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}, key.Public(), a)
			if err != nil {
				t.Fatal(err)
			}
			p.write(t, issue.Authority{Certificate: c, Key: key})
		}, "is not an authority"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, one := newPair(t), authority(t, "one")
				p.write(t, one)
				r := p.open(t)
				row.harm(t, p)
				if got := after(t, r, 5); got != "one" {
					t.Errorf("%s signs", got)
				}
				p.want(t, "", row.want)

				os.Remove(p.key)
				p.write(t, authority(t, "two"))
				if got := after(t, r, 2); got != "two" {
					t.Errorf("mended, and %s signs", got)
				}
			})
		})
	}
}

func TestExpiredAuthorityIsNotTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		old := authority(t, "old")
		time.Sleep(2 * time.Hour)
		p.write(t, authority(t, "one"))
		r := p.open(t)
		p.write(t, old)
		if got := after(t, r, 3); got != "one" {
			t.Errorf("%s signs", got)
		}
		p.want(t, "", "expired")
	})
}

func TestProblemThatPassesBetweenTwoLooksIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, one := newPair(t), authority(t, "one")
		p.write(t, one)
		r := p.open(t)
		two := authority(t, "two")
		p.writeCertificate(t, two)
		after(t, r, 1)
		p.writeKey(t, two)
		if got := after(t, r, 2); got != "two" {
			t.Errorf("%s signs", got)
		}
		p.want(t, "two", "")
	})
}

func TestChainOfAuthoritiesInTheFile(t *testing.T) {
	root := authority(t, "root")
	upper := authority(t, "upper", root)
	lower := authority(t, "lower", upper)
	p := newPair(t)
	p.write(t, lower, upper, root)
	a, err := p.open(t).Authority()
	if err != nil || len(a.Chain) != 2 || a.Chain[0] != a.Certificate || a.Chain[1].Subject.CommonName != "upper" {
		t.Errorf("chain %d, %v", len(a.Chain), err)
	}
	p.write(t, root)
	if a, err = p.open(t).Authority(); err != nil || len(a.Chain) != 0 {
		t.Errorf("chain of a root: %d, %v", len(a.Chain), err)
	}
}

func TestFilesThatCannotBeOpened(t *testing.T) {
	p := newPair(t)
	if _, err := signer.Files(p.certificate, p.key, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	p.write(t, authority(t, "one"))
	p.writeKey(t, authority(t, "two"))
	_, err := signer.Files(p.certificate, p.key, nil)
	if err == nil || !strings.Contains(err.Error(), "ca.crt") || strings.Contains(err.Error(), "PRIVATE") {
		t.Errorf("got %v", err)
	}
}

func TestPairThatChangesWhileManySign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		p.write(t, authority(t, "one"))
		r := p.open(t)
		stop := make(chan struct{})
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(100 * time.Millisecond):
					}
					a, err := r.Authority()
					if err != nil || a.Usable(time.Now()) != nil {
						t.Errorf("no pair: %v", err)
					}
				}
			})
		}
		for range 20 {
			two := authority(t, "two")
			p.writeKey(t, two)
			time.Sleep(700 * time.Millisecond)
			p.writeCertificate(t, two)
			time.Sleep(3 * time.Second)
		}
		close(stop)
		all.Wait()
		if len(p.taken) != 20 {
			t.Errorf("taken up %d times of 20; %q", len(p.taken), p.problems)
		}
	})
}

func BenchmarkAuthority(b *testing.B) {
	p := newPair(b)
	p.write(b, authority(b, "one"))
	r := p.open(b)
	for b.Loop() {
		if _, err := r.Authority(); err != nil {
			b.Fatal(err)
		}
	}
}

func cut(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put(t, path, data[:len(data)/2])
}
