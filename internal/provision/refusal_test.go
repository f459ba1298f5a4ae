package provision_test

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/provision"
	"github.com/kubepki/kubepki/internal/trust"
)

const pki = "etc/kubernetes/pki/"

func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, n := range names {
		if err := os.Remove(filepath.Join(dir, n)); err != nil {
			t.Fatal(err)
		}
	}
}

func readKey(t *testing.T, path string) crypto.Signer {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	key, err := issue.ParsePrivateKey(data)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func encoded(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	data, err := issue.EncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// authority makes one that is not kubepki's.
func authority(t *testing.T, name string, change ...func(*issue.Template)) issue.Authority {
	t.Helper()
	template := issue.Template{
		Subject: pkix.Name{CommonName: name}, Authority: true,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(9000 * time.Hour),
	}
	for _, f := range change {
		f(&template)
	}
	key := newKey(t)
	c, err := issue.SelfSign(template, key)
	if err != nil {
		t.Fatal(err)
	}
	return issue.Authority{Certificate: c, Key: key}
}

func put(t *testing.T, dir, name string, a issue.Authority, withKey bool) {
	t.Helper()
	write(t, dir, name+".crt", trust.EncodeCertificates(a.Certificate))
	if withKey {
		write(t, dir, name+".key", encoded(t, a.Key))
	}
}

func TestContradictionsAreRefused(t *testing.T) {
	expired := func(e *issue.Template) { e.NotAfter = now.Add(-time.Minute) }
	later := func(e *issue.Template) { e.NotBefore = now.Add(time.Hour) }
	leaf := func(e *issue.Template) { e.Authority = false }
	// Each case changes a complete folder, or an empty one, and names the cause.
	for name, c := range map[string]struct {
		empty  bool
		change func(t *testing.T, dir string)
		want   string
	}{
		"an authority without its key where signing is needed": {true, func(t *testing.T, dir string) {
			put(t, dir, pki+"ca", authority(t, "kubernetes"), false)
		}, "the key of its authority"},
		"an expired authority": {true, func(t *testing.T, dir string) {
			put(t, dir, pki+"ca", authority(t, "kubernetes", expired), true)
		}, `pki/ca.crt: the authority "CN=kubernetes" expired at 2026-06-01T11:59:00Z`},
		"an authority of the future": {true, func(t *testing.T, dir string) {
			put(t, dir, pki+"ca", authority(t, "kubernetes", later), true)
		}, "is valid only from"},
		"a leaf where an authority is expected": {true, func(t *testing.T, dir string) {
			put(t, dir, pki+"ca", authority(t, "kubernetes", leaf), true)
		}, "is not an authority"},
		"another authority's key": {false, func(t *testing.T, dir string) {
			write(t, dir, pki+"ca.key", encoded(t, newKey(t)))
		}, "pki/ca.key: does not belong to the certificate"},
		"another leaf's key": {false, func(t *testing.T, dir string) {
			write(t, dir, pki+"apiserver.key", encoded(t, newKey(t)))
		}, "pki/apiserver.crt: its key does not belong"},
		"an authority that was made anew": {false, func(t *testing.T, dir string) {
			put(t, dir, pki+"ca", authority(t, "kubernetes"), true)
		}, "was not signed by its authority"},
		"an authority that is gone while its leaves stand": {false, func(t *testing.T, dir string) {
			remove(t, dir, pki+"front-proxy-ca.crt", pki+"front-proxy-ca.key")
		}, "a new one would not fit"},
		"the front proxy's authority is the cluster's": {true, func(t *testing.T, dir string) {
			a := authority(t, "kubernetes")
			put(t, dir, pki+"ca", a, true)
			put(t, dir, pki+"front-proxy-ca", a, true)
		}, "every client of the cluster could pass as the front proxy"},
		"a public key alone": {true, func(t *testing.T, dir string) {
			public, err := issue.EncodePublicKey(newKey(t).Public())
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, pki+"sa.pub", public)
		}, "without its private key"},
		"another public key": {false, func(t *testing.T, dir string) {
			public, err := issue.EncodePublicKey(newKey(t).Public())
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, pki+"sa.pub", public)
		}, "does not hold the public half"},
		"an Ed25519 key for tokens": {true, func(t *testing.T, dir string) {
			key, err := issue.GenerateKey(issue.Ed25519)
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, pki+"sa.key", encoded(t, key))
		}, "cannot sign tokens"},
		"a key of somebody else without a certificate": {true, func(t *testing.T, dir string) {
			write(t, dir, pki+"apiserver.key", encoded(t, newKey(t)))
		}, "stands there without its certificate"},
		"junk where a certificate is expected": {false, func(t *testing.T, dir string) {
			write(t, dir, pki+"apiserver.crt", []byte("junk\n"))
		}, "pki/apiserver.crt: holds no PEM block"},
		"a large file where a certificate is expected": {false, func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, pki+"apiserver.crt"), 100<<20); err != nil {
				t.Fatal(err)
			}
		}, "larger than 1 MiB"},
		"a loop of links": {false, func(t *testing.T, dir string) {
			remove(t, dir, pki+"ca.crt")
			if err := os.Symlink("ca.crt", filepath.Join(dir, pki+"ca.crt")); err != nil {
				t.Fatal(err)
			}
		}, "symbolic links"},
		"a kubeconfig that is none": {false, func(t *testing.T, dir string) {
			write(t, dir, "etc/kubernetes/admin.conf", []byte("a: [1\n"))
		}, "admin.conf: is not YAML"},
		"a kubeconfig for another server": {false, func(t *testing.T, dir string) {
			data, err := os.ReadFile(filepath.Join(dir, "etc/kubernetes/admin.conf"))
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, "etc/kubernetes/admin.conf", []byte(strings.Replace(string(data), "10.0.0.11", "10.0.0.99", 1)))
		}, "is https://10.0.0.99:6443, wanted is https://10.0.0.11:6443"},
		"somebody else's kubeconfig": {false, func(t *testing.T, dir string) {
			data, err := os.ReadFile(filepath.Join(dir, "etc/kubernetes/scheduler.conf"))
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, "etc/kubernetes/admin.conf", data)
		}, `common name is "system:kube-scheduler", asked was "kubernetes-admin"`},
		"an edited manifest": {false, func(t *testing.T, dir string) {
			write(t, dir, "etc/kubernetes/manifests/etcd.yaml", []byte("kind: Pod\n"))
		}, "is another manifest"},
		"the root of a k3s node": {true, func(t *testing.T, dir string) {
			write(t, dir, "etc/rancher/k3s/k3s.yaml", nil)
		}, "holds a k3s node"},
		"a certificates folder": {true, func(t *testing.T, dir string) {
			put(t, dir, "ca", authority(t, "kubernetes"), false)
		}, "is a certificates folder, not the root of a node"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := provision.Options{Cluster: single(t), Dir: t.TempDir(), Manifests: true}
			if !c.empty {
				must(t, o)
			}
			c.change(t, o.Dir)
			if strings.Contains(name, "loop of links") || strings.Contains(name, "large file") {
				_, err := try(o) // the tree cannot be read as a whole
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %s", err, c.want)
				}
				return
			}
			refused(t, o, c.want)
		})
	}
}

func TestAChangedConfigurationIsRefused(t *testing.T) {
	o := provision.Options{Cluster: single(t), Dir: t.TempDir()}
	must(t, o)
	o.Cluster = single(t, func(c *catalog.Cluster) { c.CertSANs = []string{"new.example.test"} })
	refused(t, o, `pki/apiserver.crt: DNS name "new.example.test" is missing from the certificate`)
	o.Cluster = single(t)
	o.Now = now.Add(2000 * time.Hour)
	refused(t, o, "pki/apiserver.crt: expired at 2026-07-13")
	o.Now = now
	o.Cluster = single(t, shape(catalog.Intermediate, false))
	refused(t, o, "the root authority that it hangs below is not")
	o.Cluster = single(t, shape(catalog.Shared, false))
	refused(t, o, "is another authority than")
}

func TestTwoNodesWithDifferentAuthoritiesAreRefused(t *testing.T) {
	o := provision.Options{Cluster: several(t), Dir: t.TempDir(), PerNode: true}
	put(t, o.Dir, "cp1/"+pki+"ca", authority(t, "kubernetes"), true)
	put(t, o.Dir, "cp2/"+pki+"ca", authority(t, "kubernetes"), true)
	refused(t, o, "cp2/etc/kubernetes/pki/ca.crt: is another authority than")
	remove(t, o.Dir, "cp2/"+pki+"ca.crt", "cp2/"+pki+"ca.key")
	write(t, o.Dir, "cp1/"+pki+"sa.key", encoded(t, newKey(t)))
	write(t, o.Dir, "cp2/"+pki+"sa.key", encoded(t, newKey(t)))
	refused(t, o, "cp2/etc/kubernetes/pki/sa.key: is another service-account key than")
}

func TestAnAuthorityOfOneNodeServesAll(t *testing.T) {
	o := provision.Options{Cluster: several(t), Dir: t.TempDir(), PerNode: true}
	a := authority(t, "given")
	put(t, o.Dir, "cp2/"+pki+"ca", a, true)
	must(t, o)
	for _, node := range []string{"cp1", "cp2", "w1"} {
		got := readCertificates(t, filepath.Join(o.Dir, node, pki+"ca.crt"))
		if !got[0].Equal(a.Certificate) {
			t.Errorf("%s has another authority", node)
		}
	}
	leaf := readCertificates(t, filepath.Join(o.Dir, "cp1", pki+"apiserver.crt"))[0]
	if err := leaf.CheckSignatureFrom(a.Certificate); err != nil {
		t.Error(err)
	}
}

// TestAKubeletThatRotatesIsKept: the kubelet moves its credential to a file of
// its own and writes its path into kubelet.conf.
func TestAKubeletThatRotatesIsKept(t *testing.T) {
	const current = "/var/lib/kubelet/pki/kubelet-client-current.pem"
	for name, perNode := range map[string]bool{"on the one node": false, "below a folder of nodes": true} {
		t.Run(name, func(t *testing.T) {
			o := provision.Options{Cluster: single(t), Dir: t.TempDir(), PerNode: perNode}
			before := actions(must(t, o))[provision.Made]
			root := o.Dir
			if perNode {
				root = filepath.Join(o.Dir, o.Cluster.ControlPlanes[0].Name)
			}
			combined := rotated(t, root, current)
			refused(t, o, "names the file "+current+", which does not exist")
			write(t, root, "var/lib/kubelet/pki/kubelet-client-2026.pem", combined)
			// The kubelet's link is absolute, as seen on the node.
			if err := os.Symlink("/var/lib/kubelet/pki/kubelet-client-2026.pem", filepath.Join(root, current)); err != nil {
				t.Fatal(err)
			}
			if a := actions(must(t, o)); a[provision.Kept] != before {
				t.Errorf("%v, want all %d kept", a, before)
			}
		})
	}
}

// rotated makes kubelet.conf name a file of its certificate and key, and returns
// the content of that file.
func rotated(t *testing.T, root, current string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "etc/kubernetes/kubelet.conf"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	var combined []byte
	for line := range strings.Lines(string(data)) {
		for _, field := range []string{"client-certificate", "client-key"} {
			if value, ok := strings.CutPrefix(line, "    "+field+"-data: "); ok {
				pem, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value))
				if err != nil {
					t.Fatal(err)
				}
				combined = append(combined, pem...)
				line = "    " + field + ": " + current + "\n"
			}
		}
		lines = append(lines, line)
	}
	write(t, root, "etc/kubernetes/kubelet.conf", []byte(strings.Join(lines, "")))
	return combined
}

func TestCertificatesDoNotOutliveTheirAuthority(t *testing.T) {
	o := provision.Options{Cluster: single(t), Dir: t.TempDir()}
	end := now.Add(10 * time.Hour)
	put(t, o.Dir, pki+"ca", authority(t, "kubernetes", func(e *issue.Template) { e.NotAfter = end }), true)
	p := must(t, o)
	leaf := readCertificates(t, filepath.Join(o.Dir, pki+"apiserver.crt"))[0]
	if !leaf.NotAfter.Equal(end) {
		t.Errorf("ends at %s, its authority at %s", leaf.NotAfter, end)
	}
	if len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "pki/ca.crt ends at") {
		t.Errorf("warnings %q, want one about the authority's end", p.Warnings)
	}
	if leaf.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("key usage %b, want digitalSignature alone for an ECDSA key", leaf.KeyUsage)
	}
}
