//go:build linux

package lab_test

import (
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

// verification is what the tests read of kubepki verify -o json.
type verification struct {
	APIVersion, Kind string
	Healthy          bool
	Links            []struct {
		Number         int
		Caller, Callee string
		OK             bool
		Halves         []struct{ Side, State, Proof string }
	}
	Findings []struct{ ID, Severity, Node, Path, Field, Cause, Fix, FixKind string }
}

// look runs kubepki verify and returns what it found.
func look(t *testing.T, args ...string) verification {
	t.Helper()
	out, err := try(t, "kubepki", append([]string{"verify", "-o=json"}, args...)...)
	var v verification
	if err := json.Unmarshal([]byte(out.stdout), &v); err != nil {
		t.Fatalf("kubepki verify: %v\n%s%s", err, out.stdout, out.stderr)
	}
	if v.Kind != "Verification" || v.Healthy != (err == nil) {
		t.Errorf("%s, healthy %t, ended with %v", v.Kind, v.Healthy, err)
	}
	return v
}

// verify runs kubepki verify, which must find the cluster healthy.
func verify(t *testing.T, args ...string) verification {
	t.Helper()
	v := look(t, args...)
	if !v.Healthy {
		t.Error("not healthy")
	}
	for _, f := range v.Findings {
		if f.Severity != "info" {
			t.Errorf("%s %s: %s %s %s: %s", f.Severity, f.ID, f.Node, f.Path, f.Field, f.Cause)
		}
	}
	return v
}

// worse lists the ids of the findings that are more than information.
func worse(v verification) []string {
	var ids []string
	for _, f := range v.Findings {
		if f.Severity != "info" {
			ids = append(ids, f.ID)
		}
	}
	return ids
}

// proved checks that each of the numbered links is seen, whole and proved by a
// handshake.
func proved(t *testing.T, v verification, numbers ...int) {
	t.Helper()
	for _, number := range numbers {
		seen := false
		for _, link := range v.Links {
			if link.Number != number {
				continue
			}
			for _, half := range link.Halves {
				seen = seen || half.Proof == "handshake"
				if half.State == "broken" {
					t.Errorf("link %d, %s to %s: the %s half is broken", number, link.Caller, link.Callee, half.Side)
				}
			}
		}
		if !seen {
			t.Errorf("link %d is not proved by a handshake", number)
		}
	}
}

func TestVerifyFindsNothingWrongInTheFilesOfKubeadm(t *testing.T) {
	for _, c := range equivalenceCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			root := kubeadmNode(t, c.config)
			switch {
			case strings.Contains(c.config, "http://10.99.0.31"):
				if got := worse(look(t, "--root="+root)); !slices.Equal(got, []string{"plain-http"}) {
					t.Errorf("%q; want plain-http alone", got)
				}
			case strings.Contains(c.config, "external:"):
				giveEtcdFiles(t, root, c.config)
				proved(t, verify(t, "--root="+root), 5, 6, 9)
			default:
				proved(t, verify(t, "--root="+root), 1, 3, 5, 6, 9)
			}
		})
	}
}

var etcdFile = regexp.MustCompile(`(caFile|certFile|keyFile): (/[^\s,}]+)`)

// giveEtcdFiles puts the files of an external etcd where the configuration says
// that they are. kubeadm expects them from the administrator.
func giveEtcdFiles(t *testing.T, root, config string) {
	t.Helper()
	from := filepath.Join(kubeadmNode(t, plainConfig), "etc/kubernetes/pki")
	source := map[string]string{"caFile": "etcd/ca.crt", "certFile": "apiserver-etcd-client.crt", "keyFile": "apiserver-etcd-client.key"}
	for _, field := range etcdFile.FindAllStringSubmatch(config, -1) {
		to := filepath.Join(root, field[2])
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, to, string(read(t, filepath.Join(from, source[field[1]]))))
	}
}

func TestVerifyFindsNothingWrongInTheFilesOfInit(t *testing.T) {
	for _, flags := range [][]string{
		{"--key-algorithm=RSA-2048"},
		{"--key-algorithm=ECDSA-P256", "--authorities=intermediate"},
		{"--key-algorithm=Ed25519", "--kubelet-authority"},
		{"--key-algorithm=ECDSA-P384", "--authorities=intermediate", "--kubelet-authority", "--kube-proxy"},
	} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			t.Parallel()
			proved(t, verify(t, initCluster(t, 3, flags...)), 1, 3, 5, 6, 8, 9)
		})
	}
}

func TestKubeadmReadsTheFilesOfInit(t *testing.T) {
	for _, c := range quickCases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			initNode(t, c.config, root)
			out := kubeadm(t, root, c.config, "certs", "check-expiration", "--output=json")
			var info struct{ Certificates, CertificateAuthorities []expiration }
			if err := json.Unmarshal([]byte(out.stdout), &info); err != nil {
				t.Fatalf("%v\n%s", err, out.stdout)
			}
			certificates, authorities := 11, 3
			if strings.Contains(c.config, "external:") {
				certificates, authorities = 7, 2
			}
			if len(info.Certificates) != certificates || len(info.CertificateAuthorities) != authorities {
				t.Errorf("kubeadm lists %d certificates and %d authorities", len(info.Certificates), len(info.CertificateAuthorities))
			}
			for _, e := range append(info.Certificates, info.CertificateAuthorities...) {
				if e.Missing || e.ExternallyManaged || e.ResidualTime < 80*24*3600 {
					t.Errorf("%s: missing %t, managed elsewhere %t, %d s left", e.Name, e.Missing, e.ExternallyManaged, e.ResidualTime)
				}
			}
		})
	}
}

// expiration is one certificate of output.kubeadm.k8s.io's
// CertificateExpirationInfo.
type expiration struct {
	Name              string
	ResidualTime      int64
	Missing           bool
	ExternallyManaged bool
}

func TestOpensslAcceptsEveryLeaf(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatalf("%v: install openssl", err)
	}
	for _, shape := range []string{"separate", "intermediate", "shared"} {
		for _, algorithm := range []string{"RSA-2048", "ECDSA-P256", "ECDSA-P384", "Ed25519"} {
			t.Run(shape+" "+algorithm, func(t *testing.T) {
				t.Parallel()
				dir := initCluster(t, 1, "--authorities="+shape, "--key-algorithm="+algorithm, "--kube-proxy")
				pki := filepath.Join(dir, "cp1/etc/kubernetes/pki")
				leaves := leavesBelow(t, dir)
				if len(leaves) < 14 {
					t.Errorf("only %d leaves were found", len(leaves))
				}
				for leaf, purposes := range leaves {
					for _, purpose := range purposes {
						anchor := anchorOf(pki, shape, leaf)
						run(t, openssl, "verify", "-x509_strict", "-purpose="+purpose, "-CAfile="+anchor, "-untrusted="+leaf, leaf)
					}
				}
			})
		}
	}
}

// leavesBelow finds the leaves of all nodes and what each is for. Those that
// are embedded in kubeconfigs are written beside them as NAME.conf.crt.
func leavesBelow(t *testing.T, dir string) map[string][]string {
	t.Helper()
	purposes := map[string][]string{
		"apiserver.crt": {"sslserver"}, "server.crt": {"sslserver", "sslclient"}, "peer.crt": {"sslserver", "sslclient"},
	}
	leaves := map[string][]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		switch filepath.Ext(path) {
		case ".conf":
			path = extract(t, path)
		case ".crt":
		default:
			return nil
		}
		if certificates := certificatesIn(read(t, path)); len(certificates) > 0 && !certificates[0].IsCA {
			if leaves[path] = purposes[filepath.Base(path)]; leaves[path] == nil {
				leaves[path] = []string{"sslclient"}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return leaves
}

// extract writes the client certificate of a kubeconfig to a file.
func extract(t *testing.T, kubeconfig string) string {
	t.Helper()
	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	user := config.AuthInfos[config.Contexts[config.CurrentContext].AuthInfo]
	if block, _ := pem.Decode(user.ClientCertificateData); block == nil {
		t.Fatalf("%s: no certificate is embedded", kubeconfig)
	}
	return write(t, kubeconfig+".crt", string(user.ClientCertificateData))
}

// anchorOf is the file of the authority that openssl is to trust for a leaf.
func anchorOf(pki, shape, leaf string) string {
	switch {
	case shape == "intermediate":
		return filepath.Join(pki, "root-ca.crt")
	case filepath.Base(leaf) == "front-proxy-client.crt":
		return filepath.Join(pki, "front-proxy-ca.crt")
	case filepath.Base(filepath.Dir(leaf)) == "etcd" || filepath.Base(leaf) == "apiserver-etcd-client.crt":
		return filepath.Join(pki, "etcd/ca.crt")
	}
	return filepath.Join(pki, "ca.crt")
}
