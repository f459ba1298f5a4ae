package provision_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/provision"
	"github.com/kubepki/kubepki/internal/trust"
)

// TestAFolderThatIsALink: certificates often stand on another disk.
func TestAFolderThatIsALink(t *testing.T) {
	for name, c := range map[string]struct {
		folder, target, real string
		exists               bool
	}{
		"pki, relative":             {pki, "../../data/pki", "data/pki", true},
		"pki, absolute":             {pki, "/data/pki", "data/pki", true},
		"etc, as on macOS":          {"etc", "private/etc", "private/etc", true},
		"etc/kubernetes, absolute":  {"etc/kubernetes", "/data/kubernetes", "data/kubernetes", true},
		"pki, to one not there yet": {pki, "/new/pki", "new/pki", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := provision.Options{Cluster: single(t), Dir: t.TempDir(), Manifests: true}
			link := filepath.Join(o.Dir, c.folder)
			if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
				t.Fatal(err)
			}
			if c.exists {
				if err := os.MkdirAll(filepath.Join(o.Dir, c.real), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink(c.target, link); err != nil {
				t.Fatal(err)
			}
			made := actions(must(t, o))
			if len(tree(t, filepath.Join(o.Dir, c.real))) < 10 {
				t.Error("the files are not where the link leads")
			}
			before := tree(t, filepath.Join(o.Dir, c.real))
			if d := cmp.Diff(map[provision.Action]int{provision.Kept: made[provision.Made]}, actions(must(t, o))); d != "" {
				t.Errorf("second run, want -, got +:\n%s", d)
			}
			if d := cmp.Diff(before, tree(t, filepath.Join(o.Dir, c.real))); d != "" {
				t.Errorf("the second run changed files:\n%s", d)
			}
			if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
				t.Errorf("the link became %v, %v", info, err)
			}
		})
	}
}

func TestWhatStandsInTheWayIsNamed(t *testing.T) {
	empty := func(names ...string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			for _, n := range names {
				write(t, dir, n, nil)
			}
		}
	}
	for name, c := range map[string]struct {
		complete bool
		change   func(t *testing.T, dir string)
		want     string
	}{
		"an empty authority":      {true, empty(pki + "ca.crt"), "pki/ca.crt: is empty: a certificate is expected"},
		"an empty leaf":           {false, empty(pki + "apiserver.crt"), "pki/apiserver.crt: is empty: a certificate is expected"},
		"an empty key":            {false, empty(pki + "apiserver.key"), "pki/apiserver.key: holds no PEM block"},
		"a file instead of pki":   {false, empty("etc/kubernetes/pki"), "etc/kubernetes/pki: is a file, not a folder"},
		"a file instead of etcd/": {false, empty(pki + "etcd"), "pki/etcd: is a file, not a folder"},
		"a file instead of etc":   {false, empty("etc"), "etc: is a file, not a folder"},
		"a file, and kubeconfigs beside it": {true, func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, pki)); err != nil {
				t.Fatal(err)
			}
			write(t, dir, "etc/kubernetes/pki", nil)
		}, "etc/kubernetes/pki: is a file, not a folder"},
		"a link that leads nowhere": {false, func(t *testing.T, dir string) {
			write(t, dir, pki+"x", nil)
			if err := os.Symlink("/gone", filepath.Join(dir, pki+"ca.crt")); err != nil {
				t.Fatal(err)
			}
		}, "pki/ca.crt: leads to /gone, which does not exist"},
		"a server that may not sign handshakes": {true, func(t *testing.T, dir string) {
			restrict(t, dir, pki+"apiserver", x509.KeyUsageKeyEncipherment)
		}, "pki/apiserver.crt: key usage digitalSignature is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := provision.Options{Cluster: single(t), Dir: t.TempDir()}
			if c.complete {
				must(t, o)
			}
			c.change(t, o.Dir)
			if strings.Contains(name, "link") {
				if _, err := try(o); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %s", err, c.want) // tree cannot read such a link
				}
				return
			}
			refused(t, o, c.want)
		})
	}
}

// restrict signs the certificate of a pair again, with another key usage.
func restrict(t *testing.T, dir, name string, usage x509.KeyUsage) {
	t.Helper()
	old := readCertificates(t, filepath.Join(dir, name+".crt"))[0]
	ca := readCertificates(t, filepath.Join(dir, pki+"ca.crt"))[0]
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: old.Subject, DNSNames: old.DNSNames, IPAddresses: old.IPAddresses,
		NotBefore: old.NotBefore, NotAfter: old.NotAfter, KeyUsage: usage, ExtKeyUsage: old.ExtKeyUsage,
	}, ca, old.PublicKey, readKey(t, filepath.Join(dir, pki+"ca.key")))
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, name+".crt", trust.EncodeCertificates(c))
}

func TestWhatIsKeptButShouldBeKnown(t *testing.T) {
	o := provision.Options{Cluster: single(t), Dir: t.TempDir()}
	if p := must(t, o); len(p.Warnings) > 0 {
		t.Errorf("warnings %q over a new folder", p.Warnings)
	}
	if p := must(t, o); len(p.Warnings) > 0 {
		t.Errorf("warnings %q over a folder that is as asked", p.Warnings)
	}
	o.Cluster = single(t, func(c *catalog.Cluster) { c.Algorithm = string(issue.RSA2048) })
	p := must(t, o)
	if len(p.Warnings) != 1 || !strings.HasPrefix(p.Warnings[0], "kept with their keys of ECDSA-P256, though the configuration says RSA-2048: ") ||
		!strings.Contains(p.Warnings[0], "apiserver, ") || !strings.Contains(p.Warnings[0], "ca, ") {
		t.Errorf("warnings %q, want one about the algorithm", p.Warnings)
	}
	o.Cluster = single(t)
	if err := os.Chmod(filepath.Join(o.Dir, pki+"ca.key"), 0o666); err != nil {
		t.Fatal(err)
	}
	if p := must(t, o); len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "pki/ca.key is kept with mode 0666") {
		t.Errorf("warnings %q, want one about ca.key", p.Warnings)
	}
}

func TestAuthoritiesThatForbidWhatTheySign(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*x509.Certificate)
		want   string
	}{
		"other names":     {func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"foo.example"} }, `is not permitted by any constraint`},
		"other usages":    {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, "may not be used for serverAuth"},
		"no usage at all": {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }, "may not be used for "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := provision.Options{Cluster: single(t), Dir: t.TempDir()}
			putAuthority(t, o.Dir, newKey(t), c.change)
			refused(t, o, c.want)
			refused(t, o, "pki/ca.crt: forbids what it is to sign, /etc/kubernetes/")
		})
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	o := provision.Options{Cluster: single(t), Dir: t.TempDir()}
	putAuthority(t, o.Dir, weak, func(*x509.Certificate) {})
	refused(t, o, "an RSA key of 1024 bits is too weak")
	o.Dir = t.TempDir()
	write(t, o.Dir, pki+"sa.key", encoded(t, weak))
	if p := must(t, o); len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "pki/sa.key is kept, and yet: an RSA key of 1024 bits is too weak") {
		t.Errorf("warnings %q, want one about sa.key", p.Warnings)
	}
}

func putAuthority(t *testing.T, dir string, key crypto.Signer, change func(*x509.Certificate)) {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "given"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(9000 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	change(c)
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, pki+"ca.crt", trust.EncodeCertificates(c))
	write(t, dir, pki+"ca.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

// TestHelpOfWrongAnswers: who has no authority at hand cannot have a pair made.
func TestHelpOfWrongAnswers(t *testing.T) {
	o := provision.Options{Cluster: single(t), Dir: t.TempDir(), CSROnly: true}
	must(t, o)
	s := newSigner(t, o.Dir)
	s.change = func(file string, e *issue.Template) {
		if strings.HasSuffix(file, "pki/apiserver") {
			e.Subject = pkix.Name{CommonName: "other"}
		}
	}
	s.placeAuthorities(t)
	s.answer(t)
	o.CSROnly = false
	_, err := try(o)
	var r *provision.Refusal
	if !errors.As(err, &r) || !strings.Contains(r.Hint(), "apiserver.csr signed again") || strings.Contains(r.Hint(), "new pair") {
		t.Errorf("got %v, want a hint to have the request signed again", err)
	}

	shared := provision.Options{Cluster: single(t), Dir: t.TempDir()}
	must(t, shared)
	shared.Cluster = single(t, shape(catalog.Shared, false))
	if _, err := try(shared); !errors.As(err, &r) || !strings.Contains(r.Hint(), "leave out --authorities shared") {
		t.Errorf("got %v, want a hint that names the flag", err)
	}
	shared.Cluster = single(t, shape(catalog.Separate, true))
	if _, err := try(shared); !errors.As(err, &r) || !strings.Contains(r.Hint(), "--kubelet-authority") {
		t.Errorf("got %v, want a hint that names the flag", err)
	}

	at := provision.Options{Cluster: single(t), Dir: t.TempDir()}
	must(t, at)
	at.Now = now.Add(2000 * time.Hour)
	if _, err := try(at); !errors.As(err, &r) || !strings.Contains(r.Hint(), "to have a new pair made") {
		t.Errorf("got %v, want a hint to have the pair made anew", err)
	}
}
