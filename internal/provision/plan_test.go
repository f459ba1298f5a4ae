package provision_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/provision"
	"github.com/kubepki/kubepki/internal/trust"
)

var shapes = map[string]func(*catalog.Cluster){
	"separate":                   shape(catalog.Separate, false),
	"separate with kubelets'":    shape(catalog.Separate, true),
	"intermediate":               shape(catalog.Intermediate, false),
	"intermediate and kubelets'": shape(catalog.Intermediate, true),
	"shared":                     shape(catalog.Shared, false),
}

func TestASecondRunChangesNothing(t *testing.T) {
	for name, change := range shapes {
		for _, o := range []provision.Options{
			{Cluster: single(t, change), Manifests: true},
			{Cluster: several(t, change), PerNode: true, Manifests: true},
		} {
			o.Dir = filepath.Join(t.TempDir(), "new")
			first := must(t, o)
			before := tree(t, o.Dir)
			second := must(t, o)
			if d := cmp.Diff(before, tree(t, o.Dir)); d != "" {
				t.Errorf("%s: the second run changed files:\n%s", name, d)
			}
			a, b := actions(first), actions(second)
			if a[provision.Made] == 0 || len(a) != 1 || len(b) != 1 || b[provision.Kept] != a[provision.Made] {
				t.Errorf("%s: first run %v, second run %v", name, a, b)
			}
		}
	}
}

// TestDeletingAnyFile deletes each file of a node in turn and expects what
// docs/configuration.md says.
func TestDeletingAnyFile(t *testing.T) {
	o := provision.Options{Cluster: single(t), Dir: t.TempDir(), Manifests: true}
	must(t, o)
	whole := tree(t, o.Dir)
	outcome := func(name string) string {
		switch base := filepath.Base(name); {
		case strings.HasSuffix(base, ".conf"), strings.HasSuffix(base, ".yaml"), base == "sa.pub":
			return "" // made anew
		case base == "sa.key":
			return "without its private key"
		case base == "ca.key", base == "front-proxy-ca.key":
			return "kept" // an authority whose key is elsewhere
		case base == "ca.crt", base == "front-proxy-ca.crt":
			return "without its certificate"
		case strings.HasSuffix(base, ".crt"):
			return "without its certificate"
		}
		return "without its key"
	}
	count := 0
	for name, content := range whole {
		if strings.HasPrefix(content, "d") {
			continue
		}
		count++
		path := filepath.Join(o.Dir, name)
		data, mode := restorable(t, path)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		switch want := outcome(name); want {
		case "kept":
			// The controller-manager's manifest would say that it cannot sign.
			quiet := o
			quiet.Manifests = false
			p := must(t, quiet)
			if a := actions(p); a[provision.Made] > 0 {
				t.Errorf("without %s: %v", name, a)
			}
		case "":
			must(t, o)
			after := tree(t, o.Dir)
			if after[name] == "" {
				t.Errorf("%s was not made anew", name)
			}
			after[name] = content
			if d := cmp.Diff(whole, after); d != "" {
				t.Errorf("completing %s changed other files:\n%s", name, d)
			}
		default:
			refused(t, o, want)
		}
		if err := os.WriteFile(path, data, mode); err != nil {
			t.Fatal(err)
		}
	}
	if count != 31 {
		t.Errorf("a node has %d files, want 31", count)
	}
}

func restorable(t *testing.T, path string) ([]byte, fs.FileMode) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return data, info.Mode().Perm()
}

func TestADeletedPairIsMadeAnewAlone(t *testing.T) {
	o := provision.Options{Cluster: single(t), Dir: t.TempDir()}
	must(t, o)
	before := tree(t, o.Dir)
	pair := []string{"etc/kubernetes/pki/apiserver.crt", "etc/kubernetes/pki/apiserver.key"}
	for _, f := range pair {
		if err := os.Remove(filepath.Join(o.Dir, f)); err != nil {
			t.Fatal(err)
		}
	}
	p := must(t, o)
	if a := actions(p); a[provision.Made] != 1 {
		t.Errorf("actions %v, want one made", a)
	}
	after := tree(t, o.Dir)
	for _, f := range pair {
		if after[f] == "" || after[f] == before[f] {
			t.Errorf("%s was not made anew", f)
		}
		delete(before, f)
		delete(after, f)
	}
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("other files changed:\n%s", d)
	}
}

func TestFilesAndModesAreKubeadms(t *testing.T) {
	dir := t.TempDir()
	must(t, provision.Options{Cluster: single(t), Dir: dir, Manifests: true})
	got := map[string]string{}
	for name, content := range tree(t, dir) {
		got[name], _, _ = strings.Cut(content, " ")
	}
	delete(got, ".") // the test's own
	want := map[string]string{
		"etc": "drwxr-xr-x", "etc/kubernetes": "drwxr-xr-x", "etc/kubernetes/pki": "drwxr-xr-x",
		"etc/kubernetes/pki/etcd": "drwxr-xr-x", "etc/kubernetes/manifests": "drwx------",
		"etc/kubernetes/pki/sa.key": "-rw-------", "etc/kubernetes/pki/sa.pub": "-rw-------",
	}
	for _, n := range []string{"ca", "apiserver", "apiserver-kubelet-client", "apiserver-etcd-client", "front-proxy-ca",
		"front-proxy-client", "etcd/ca", "etcd/server", "etcd/peer", "etcd/healthcheck-client"} {
		want["etc/kubernetes/pki/"+n+".crt"], want["etc/kubernetes/pki/"+n+".key"] = "-rw-r--r--", "-rw-------"
	}
	for _, n := range []string{"admin", "super-admin", "controller-manager", "scheduler", "kubelet"} {
		want["etc/kubernetes/"+n+".conf"] = "-rw-------"
	}
	for _, n := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		want["etc/kubernetes/manifests/"+n+".yaml"] = "-rw-------"
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("want -, got +:\n%s", d)
	}
}

// TestNodesHoldOnlyWhatTheyMay looks for authority keys where none may be.
func TestNodesHoldOnlyWhatTheyMay(t *testing.T) {
	for name, change := range shapes {
		dir := t.TempDir()
		must(t, provision.Options{Cluster: several(t, change), Dir: dir, PerNode: true})
		files := tree(t, dir)
		keys := authorityKeys(t, files)
		for file, content := range files {
			node, _, _ := strings.Cut(file, "/")
			for key := range keys {
				if !strings.Contains(content, key) {
					continue
				}
				base := filepath.Base(file)
				allowed := node == "authorities" || strings.HasPrefix(node, "cp") && base != "root-ca.key"
				if !allowed {
					t.Errorf("%s: %s holds the key of an authority", name, file)
				}
			}
		}
	}
}

// authorityKeys returns the private keys of all authorities.
func authorityKeys(t *testing.T, files map[string]string) map[string]bool {
	t.Helper()
	keys := map[string]bool{}
	for file, content := range files {
		if strings.HasSuffix(file, "ca.key") {
			_, pem, _ := strings.Cut(content, " ")
			keys[pem] = true
		}
	}
	if len(keys) < 2 {
		t.Fatalf("only %d authority keys found", len(keys))
	}
	return keys
}

func TestKubeconfigsAndLeavesVerifyWithOpenssl(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	for name, change := range shapes {
		// Longer RSA keys take a minute, and differ in their length alone.
		for _, algorithm := range []issue.Algorithm{issue.RSA2048, issue.ECDSAP256, issue.ECDSAP384, issue.Ed25519} {
			if algorithm == issue.RSA2048 && name != "separate" {
				continue
			}
			dir := t.TempDir()
			c := single(t, change)
			c.Algorithm = string(algorithm)
			must(t, provision.Options{Cluster: c, Dir: dir, Now: now})
			pki := filepath.Join(dir, "etc/kubernetes/pki")
			leaves := map[string]string{
				"apiserver": "ca", "apiserver-kubelet-client": "ca", "front-proxy-client": "front-proxy-ca",
				"apiserver-etcd-client": "etcd/ca", "etcd/server": "etcd/ca", "etcd/peer": "etcd/ca", "etcd/healthcheck-client": "etcd/ca",
			}
			for leaf, authority := range leaves {
				args := []string{"verify", "-attime", strconv.FormatInt(now.Unix(), 10), "-x509_strict"}
				if c.Shape == catalog.Intermediate {
					args = append(args, "-CAfile", filepath.Join(pki, "root-ca.crt"), "-untrusted", filepath.Join(pki, leaf+".crt"))
				} else {
					args = append(args, "-CAfile", filepath.Join(pki, authority+".crt"))
				}
				out, err := exec.Command(openssl, append(args, filepath.Join(pki, leaf+".crt"))...).CombinedOutput()
				if err != nil {
					t.Errorf("%s, %s: openssl refuses %s: %s", name, algorithm, leaf, bytes.ReplaceAll(out, []byte("\n"), []byte("; ")))
				}
			}
		}
	}
}

func TestServiceAccountKeyIsNeverEd25519(t *testing.T) {
	dir := t.TempDir()
	p := must(t, provision.Options{Cluster: single(t, func(c *catalog.Cluster) { c.Algorithm = "Ed25519" }), Dir: dir})
	for file, want := range map[string]issue.Algorithm{"sa.key": issue.ECDSAP256, "ca.key": issue.Ed25519} {
		key := readKey(t, filepath.Join(dir, "etc/kubernetes/pki", file))
		if got := issue.AlgorithmOf(key.Public()); got != want {
			t.Errorf("%s is %s, want %s", file, got, want)
		}
	}
	if len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "Ed25519") {
		t.Errorf("warnings %q, want one about the service-account key", p.Warnings)
	}
}

func TestSharedAuthorityIsOneAndWarned(t *testing.T) {
	dir := t.TempDir()
	p := must(t, provision.Options{Cluster: single(t, shape(catalog.Shared, false)), Dir: dir})
	files := tree(t, dir)
	if files["etc/kubernetes/pki/ca.crt"] != files["etc/kubernetes/pki/etcd/ca.crt"] {
		t.Error("the authorities of cluster and etcd differ")
	}
	if files["etc/kubernetes/pki/ca.crt"] == files["etc/kubernetes/pki/front-proxy-ca.crt"] {
		t.Error("the front proxy's authority is the cluster's")
	}
	if len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "etcd") {
		t.Errorf("warnings %q, want one", p.Warnings)
	}
}

func TestIntermediateBundlesHoldNoRoot(t *testing.T) {
	dir := t.TempDir()
	must(t, provision.Options{Cluster: single(t, shape(catalog.Intermediate, true)), Dir: dir})
	pki := filepath.Join(dir, "etc/kubernetes/pki")
	root := readCertificates(t, filepath.Join(pki, "root-ca.crt"))[0]
	for file, count := range map[string]int{"ca": 1, "front-proxy-ca": 1, "etcd/ca": 1, "kubelet-ca": 1, "client-ca": 2} {
		bundle := readCertificates(t, filepath.Join(pki, file+".crt"))
		if len(bundle) != count || slices.ContainsFunc(bundle, root.Equal) {
			t.Errorf("%s.crt holds %d certificates, want %d without the root", file, len(bundle), count)
		}
		if err := bundle[0].CheckSignatureFrom(root); err != nil {
			t.Errorf("%s.crt: %v", file, err)
		}
	}
	if chain := readCertificates(t, filepath.Join(pki, "apiserver.crt")); len(chain) != 2 {
		t.Errorf("apiserver.crt holds %d certificates, want leaf and intermediate", len(chain))
	}
}

func TestDryRunWritesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	p, err := provision.Plan(provision.Options{Cluster: single(t), Dir: dir, DryRun: true, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	if a := actions(p); a[provision.Made] != 16 || p.Pending() != 27 || p.Keys() != 16 {
		t.Errorf("%v, %d files, %d keys; want 16 made, 27 files, 16 keys", a, p.Pending(), p.Keys())
	}
	if err := p.Apply(context.Background(), nil); err == nil {
		t.Error("a plan that was made to be looked at was applied")
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder was made: %v", err)
	}
}

func TestAnEndedContextLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	p, err := provision.Plan(provision.Options{Cluster: single(t), Dir: dir, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := p.Apply(ctx, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	if files := slices.Collect(maps.Keys(tree(t, dir))); len(files) != 1 {
		t.Errorf("files were left: %q", files)
	}
}

func readCertificates(t *testing.T, path string) []*x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := trust.ParseCertificates(data)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
