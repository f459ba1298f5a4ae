package provision_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/provision"
	"github.com/kubepki/kubepki/internal/trust"
)

// signer is an authority elsewhere that answers requests.
type signer struct {
	dir         string
	authorities map[string]issue.Authority
	// change alters what an answer holds; nil: as asked.
	change func(file string, t *issue.Template)
}

func newSigner(t *testing.T, dir string) *signer {
	t.Helper()
	return &signer{dir: dir, authorities: map[string]issue.Authority{
		"ca": authority(t, "outer-ca"), "front-proxy-ca": authority(t, "outer-front-proxy"), "etcd/ca": authority(t, "outer-etcd"),
	}}
}

func (s *signer) authorityOf(file string) string {
	switch {
	case strings.Contains(file, "etcd"):
		return "etcd/ca"
	case strings.Contains(file, "front-proxy"):
		return "front-proxy-ca"
	}
	return "ca"
}

func (s *signer) placeAuthorities(t *testing.T) {
	t.Helper()
	for name, a := range s.authorities {
		put(t, s.dir, pki+name, a, false)
	}
}

// answer signs all requests below the folder, and returns how many.
func (s *signer) answer(t *testing.T) int {
	t.Helper()
	count := 0
	for file := range tree(t, s.dir) {
		base, ok := strings.CutSuffix(file, ".csr")
		if !ok {
			continue
		}
		count++
		data, err := os.ReadFile(filepath.Join(s.dir, file))
		if err != nil {
			t.Fatal(err)
		}
		r, err := issue.ParseRequest(data)
		if err != nil {
			t.Fatal(err)
		}
		usages, unknown, err := issue.RequestedUsages(r)
		if err != nil || len(unknown) > 0 || len(usages) == 0 {
			t.Fatalf("%s asks for usages %v, %v: %v", file, usages, unknown, err)
		}
		template := issue.Template{
			Subject: r.Subject, DNSNames: r.DNSNames, Addresses: r.IPAddresses, Usages: usages,
			NotBefore: now.Add(-time.Minute), NotAfter: now.Add(100 * time.Hour),
		}
		a := s.authorities[s.authorityOf(base)]
		if s.change != nil {
			s.change(base, &template)
		}
		c, err := issue.Sign(template, r.PublicKey, a)
		if err != nil {
			t.Fatal(err)
		}
		write(t, s.dir, base+".crt", trust.EncodeCertificates(c))
	}
	return count
}

func TestAuthoritiesElsewhere(t *testing.T) {
	o := provision.Options{Cluster: single(t), Dir: t.TempDir(), CSROnly: true}
	first := must(t, o)
	if a := actions(first); a[provision.Requested] != 12 || a[provision.Awaited] != 3 || a[provision.Made] != 1 {
		t.Fatalf("first run: %v, want 12 requested, 3 awaited, 1 made (sa)", a)
	}
	before := tree(t, o.Dir)
	must(t, o)
	if d := cmp.Diff(before, tree(t, o.Dir)); d != "" {
		t.Errorf("asking twice changed files:\n%s", d)
	}
	for name := range before {
		if strings.HasSuffix(name, ".conf") || strings.HasSuffix(name, ".crt") {
			t.Errorf("%s is there before anything was signed", name)
		}
	}
	o.CSROnly = false
	refused(t, o, "pki/front-proxy-ca.crt")
	refused(t, o, "12 certificate requests are not signed yet")

	s := newSigner(t, o.Dir)
	if n := s.answer(t); n != 12 {
		t.Fatalf("%d requests were signed, want 12", n)
	}
	refused(t, o, "the certificate of the authority that is to sign is missing")
	s.placeAuthorities(t)
	remove(t, o.Dir, pki+"apiserver.crt")
	refused(t, o, "1 certificate request is not signed yet: "+filepath.Join(o.Dir, pki+"apiserver.csr"))

	s.answer(t)
	o.Manifests = true
	second := must(t, o)
	if a := actions(second); a[provision.TakenIn] != 12 || a[provision.Kept] != 4 {
		t.Errorf("second run: %v, want 12 taken in, 4 kept", a)
	}
	after := tree(t, o.Dir)
	if manifest := after["etc/kubernetes/manifests/kube-controller-manager.yaml"]; !strings.Contains(manifest, "--cluster-signing-key-file=\n") {
		t.Error("the controller-manager is to sign with a key that is not at hand")
	}
	must(t, o)
	if d := cmp.Diff(after, tree(t, o.Dir)); d != "" {
		t.Errorf("the third run changed files:\n%s", d)
	}
}

func TestAnAuthorityAtHandSignsAndTheOthersAreAsked(t *testing.T) {
	o := provision.Options{Cluster: single(t), Dir: t.TempDir(), CSROnly: true}
	put(t, o.Dir, pki+"front-proxy-ca", authority(t, "front"), true)
	p := must(t, o)
	want := map[provision.Action]int{provision.Requested: 11, provision.Awaited: 2, provision.Made: 2, provision.Kept: 1}
	if d := cmp.Diff(want, actions(p)); d != "" {
		t.Errorf("want -, got +:\n%s", d)
	}
}

func TestWrongAnswersAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(file string, t *issue.Template)
		spoil  func(t *testing.T, s *signer)
		want   string
	}{
		"a name is missing": {change: func(file string, e *issue.Template) {
			if strings.HasSuffix(file, "pki/apiserver") {
				e.DNSNames = e.DNSNames[1:]
			}
		}, want: `pki/apiserver.crt: DNS name "cp1" is missing`},
		"an address is missing": {change: func(file string, e *issue.Template) {
			if strings.HasSuffix(file, "pki/apiserver") {
				e.Addresses = nil
			}
		}, want: "pki/apiserver.crt: IP address 10.96.0.1 is missing"},
		"another common name": {change: func(file string, e *issue.Template) {
			if strings.HasSuffix(file, "scheduler.conf") {
				e.Subject.CommonName = "scheduler"
			}
		}, want: `scheduler.conf.crt: common name is "scheduler", asked was "system:kube-scheduler"`},
		"no group": {change: func(file string, e *issue.Template) {
			if strings.HasSuffix(file, "kubelet.conf") {
				e.Subject.Organization = nil
			}
		}, want: `asked were ["system:nodes"]`},
		"the wrong usage": {change: func(file string, e *issue.Template) {
			e.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}, want: "extended usage clientAuth is missing"},
		"an authority": {change: func(file string, e *issue.Template) {
			if strings.HasSuffix(file, "admin.conf") {
				e.Authority = true
			}
		}, want: "is an authority (CA:TRUE), asked was a leaf"},
		"expired": {change: func(file string, e *issue.Template) {
			e.NotBefore, e.NotAfter = now.Add(-time.Hour), now.Add(-time.Minute)
		}, want: "expired at"},
		"another authority": {spoil: func(t *testing.T, s *signer) {
			s.authorities["ca"] = authority(t, "third-ca")
			s.placeAuthorities(t)
		}, want: "was not signed by its authority"},
		"for another key": {spoil: func(t *testing.T, s *signer) {
			data, err := os.ReadFile(filepath.Join(s.dir, pki+"etcd/server.crt"))
			if err != nil {
				t.Fatal(err)
			}
			write(t, s.dir, pki+"etcd/peer.crt", data)
		}, want: "pki/etcd/peer.crt: its key does not belong"},
		"another request": {spoil: func(t *testing.T, s *signer) {
			remove(t, s.dir, pki+"etcd/peer.crt")
			data, err := os.ReadFile(filepath.Join(s.dir, pki+"etcd/server.csr"))
			if err != nil {
				t.Fatal(err)
			}
			write(t, s.dir, pki+"etcd/peer.csr", data)
		}, want: "pki/etcd/peer.csr: was not made with the key"},
		"the key is gone": {spoil: func(t *testing.T, s *signer) {
			remove(t, s.dir, "etc/kubernetes/admin.conf.key")
		}, want: "stands there without its key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := provision.Options{Cluster: single(t), Dir: t.TempDir(), CSROnly: true}
			must(t, o)
			s := newSigner(t, o.Dir)
			s.change = c.change
			s.placeAuthorities(t)
			s.answer(t)
			if c.spoil != nil {
				c.spoil(t, s)
			}
			o.CSROnly = false
			refused(t, o, c.want)
		})
	}
}

func TestRequestsOfIntermediateAndKubeletAuthorities(t *testing.T) {
	o := provision.Options{Cluster: single(t, shape(catalog.Intermediate, true)), Dir: t.TempDir(), CSROnly: true}
	p := must(t, o)
	// root, ca, front-proxy, etcd, kubelet and the bundle of two.
	if a := actions(p); a[provision.Awaited] != 6 || a[provision.Requested] != 13 {
		t.Errorf("%v, want 6 awaited and 13 requested", a)
	}
}

func TestAnIntermediateThatSignsNeedsItsRoot(t *testing.T) {
	o := provision.Options{Cluster: single(t, shape(catalog.Intermediate, false)), Dir: t.TempDir(), CSROnly: true}
	put(t, o.Dir, pki+"ca", authority(t, "kubernetes"), true)
	refused(t, o, "pki/ca.crt: is there, but the root authority that it hangs below is not")
}

// TestAnswersWithAChain: the authority elsewhere signs with an intermediate,
// and its answers bring it along.
func TestAnswersWithAChain(t *testing.T) {
	o := provision.Options{Cluster: single(t), Dir: t.TempDir(), CSROnly: true}
	must(t, o)
	s := newSigner(t, o.Dir)
	s.placeAuthorities(t)
	above := s.authorities["ca"]
	key := newKey(t)
	below, err := issue.Sign(issue.Template{
		Subject: pkix.Name{CommonName: "issuing"}, Authority: true, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(1000 * time.Hour),
	}, key.Public(), above)
	if err != nil {
		t.Fatal(err)
	}
	s.authorities["ca"] = issue.Authority{Certificate: below, Key: key}
	s.answer(t)
	o.CSROnly = false
	refused(t, o, "was not signed by its authority")
	for file := range tree(t, o.Dir) {
		base, ok := strings.CutSuffix(file, ".csr")
		if !ok || s.authorityOf(base) != "ca" {
			continue
		}
		leaf := readCertificates(t, filepath.Join(o.Dir, base+".crt"))[0]
		write(t, o.Dir, base+".crt", trust.EncodeCertificates(leaf, below))
	}
	must(t, o)
	data, err := os.ReadFile(filepath.Join(o.Dir, "etc/kubernetes/admin.conf"))
	if err != nil {
		t.Fatal(err)
	}
	place := trust.Place{Path: "/etc/kubernetes/admin.conf"}
	k, materials, _ := layout.ParseKubeconfig(place, data)
	chains := 0
	for _, m := range materials {
		if m.Place == k.Certificate && len(m.Certificates) == 2 && m.Certificates[1].Equal(below) {
			chains++
		}
		if m.Place == k.CA && !m.Certificates[0].Equal(above.Certificate) {
			t.Error("admin.conf trusts another authority")
		}
	}
	if chains != 1 {
		t.Error("admin.conf does not bring the intermediate along")
	}
}
