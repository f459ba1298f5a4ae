package check_test

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/testpki"
)

// wordsAlone are the rules whose mend is a decision or work on running components,
// which no command line makes.
var wordsAlone = []string{
	"authority-shared",            // the two get authorities of their own: a rotation
	"constraint-violated",         // the constraint is somebody's decision
	"key-weak",                    // of an authority or of tokens: a rotation
	"cert-not-yet-valid",          // it begins within minutes: a clock is wrong
	"kubelet-serving-self-signed", // the worker asks for it, or gets it from where the authority is
}

// harder are faults whose mend takes more than one step, or whose names are traps;
// the table of mutations has what each rule finds.
var harder = []mutation{
	{name: "a kubeconfig's cluster is called as a command is", brk: func(c *testpki.Cluster) {
		c.SetConfCA("cp1", "scheduler.conf", oldAuthority(c, "ca"))
		c.Edit("cp1", "scheduler.conf", "  name: kubernetes\n", "  name: \"k'$(touch /pwned)`touch /pwned`; touch /pwned #\"\n")
		c.Edit("cp1", "scheduler.conf", "    cluster: kubernetes\n", "    cluster: \"k'$(touch /pwned)`touch /pwned`; touch /pwned #\"\n")
	}},
	{name: "the cluster's authority has expired, and every kubeconfig holds it", at: days(3), brk: func(c *testpki.Cluster) {
		c.Resign("cp1", "ca", until(days(2)))
		for _, conf := range []string{"admin.conf", "super-admin.conf", "kubelet.conf", "controller-manager.conf", "scheduler.conf"} {
			c.SetConfCA("cp1", conf, c.Read("cp1", "pki/ca.crt"))
		}
	}},
	{name: "the authority of all nodes has expired", kind: testpki.HA, at: days(3), brk: func(c *testpki.Cluster) {
		c.Resign("cp1", "ca", until(days(2)))
		for _, n := range []string{"cp2", "cp3", "w1"} {
			c.Copy("cp1", "pki/ca.crt", n, "pki/ca.crt")
		}
	}},
	{name: "a worker kept the old certificate of the authority", kind: testpki.HA, at: days(3), brk: func(c *testpki.Cluster) {
		fresh := c.Read("cp1", "pki/ca.crt")
		c.Resign("cp1", "ca", until(days(2)))
		c.Copy("cp1", "pki/ca.crt", "w1", "pki/ca.crt")
		c.Write("cp1", "pki/ca.crt", fresh)
	}},
	{name: "all that one authority signed has expired", at: days(3), brk: func(c *testpki.Cluster) {
		for _, leaf := range []string{"apiserver", "apiserver-kubelet-client"} {
			c.Reissue("cp1", leaf, "ca", until(days(2)))
		}
		for _, conf := range []string{"admin.conf", "super-admin.conf", "kubelet.conf", "controller-manager.conf", "scheduler.conf"} {
			c.ReissueConf("cp1", conf, "ca", until(days(2)))
		}
	}},
	{name: "new nodes get certificates of an authority that nobody trusts", brk: func(c *testpki.Cluster) {
		c.Copy("cp1", "pki/ca.crt", "cp1", "pki/signer.crt")
		c.Copy("cp1", "pki/ca.key", "cp1", "pki/signer.key")
		c.Recreate("cp1", "signer")
		for _, half := range []string{"cert-file=/etc/kubernetes/pki/ca.crt", "key-file=/etc/kubernetes/pki/ca.key"} {
			c.Edit("cp1", "manifests/kube-controller-manager.yaml", "--cluster-signing-"+half, "--cluster-signing-"+strings.Replace(half, "/ca.", "/signer.", 1))
		}
	}},
	{name: "everything was opened to everybody", brk: func(c *testpki.Cluster) {
		filepath.WalkDir(c.Path("cp1", "/etc/kubernetes"), func(path string, _ fs.DirEntry, _ error) error { return os.Chmod(path, 0o777) })
	}},
	{name: "several certificates are of an older authority", brk: func(c *testpki.Cluster) {
		cert, key := c.Read("cp1", "pki/ca.crt"), c.Read("cp1", "pki/ca.key")
		c.Recreate("cp1", "ca")
		c.Reissue("cp1", "apiserver", "ca", nil)
		c.Reissue("cp1", "apiserver-kubelet-client", "ca", nil)
		c.ReissueConf("cp1", "scheduler.conf", "ca", nil)
		c.Write("cp1", "pki/ca.crt", cert)
		c.Write("cp1", "pki/ca.key", key)
	}},
	{name: "the certificate that the kubelet keeps for itself has expired", at: days(3), brk: func(c *testpki.Cluster) {
		c.ReissueConf("cp1", "kubelet.conf", "ca", until(days(2)))
		var both []byte
		for _, field := range []string{"client-certificate", "client-key"} {
			value := confField(c, "kubelet.conf", field+"-data: ")
			data, err := base64.StdEncoding.DecodeString(value)
			if err != nil {
				panic(err)
			}
			both = append(both, data...)
			c.Edit("cp1", "kubelet.conf", field+"-data: "+value, field+": /var/lib/kubelet/pki/kubelet-client-current.pem")
		}
		c.Write("cp1", "/var/lib/kubelet/pki/kubelet-client-2026-06-01-00-00-00.pem", both)
		os.Symlink("/var/lib/kubelet/pki/kubelet-client-2026-06-01-00-00-00.pem", c.Path("cp1", "/var/lib/kubelet/pki/kubelet-client-current.pem"))
	}},
}

// TestFixesMendWhatTheyAreFor runs the fix of each row's findings as it is printed,
// with sh, where the node's tree is /, and verifies again until the cluster is
// healthy. What is in capitals is filled in as the note says. Each run is many
// programs: of the rows that break one rule in one kind of cluster the first two are
// mended, and all of them in make test-long.
func TestFixesMendWhatTheyAreFor(t *testing.T) {
	const rounds = 8
	tools := fixTools(t)
	healthy := map[testpki.Kind]*testpki.Cluster{} // only read from
	rows := map[string]int{}
	for _, m := range slices.Concat(harder, mutations) {
		if m.live != nil {
			continue // what runs is restarted, not mended by a file
		}
		kind := cmp.Or(m.kind, testpki.Single)
		of := m.id + " " + string(kind)
		if rows[of]++; m.id != "" && rows[of] > 2 && os.Getenv("KUBEPKI_LAB_LONG") == "" {
			continue
		}
		if healthy[kind] == nil {
			healthy[kind] = testpki.New(t, kind)
		}
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			b := bench{t: t, tools: tools, cluster: testpki.New(t, kind), healthy: healthy[kind], at: m.at}
			if b.at.IsZero() {
				b.at = testpki.At
			}
			m.brk(b.cluster)
			for range rounds {
				if _, err := os.Stat(b.cluster.Path("cp1", "/pwned")); err == nil {
					t.Fatal("a name was run as a command")
				}
				left := b.findings()
				if len(left) == 0 {
					return
				}
				before := b.state()
				for _, f := range left {
					if f.FixKind == check.FixWords || f.Fix == "" {
						if slices.Contains(wordsAlone, f.ID) || b.elsewhere(f) {
							t.Logf("%s is mended by a person: %s", f.ID, f.Fix)
							return
						}
						t.Fatalf("%s of %s:%s (%s) has no command: %q", f.ID, f.Node, f.Path, f.Cause, f.Fix)
					}
					b.run(f)
				}
				if b.state() == before {
					t.Fatalf("the fixes changed nothing:\n%s", describeFixes(left))
				}
			}
			if left := b.findings(); len(left) > 0 {
				t.Errorf("not healthy after %d rounds:\n%s%s", rounds, describe(left), describeFixes(left))
			}
		})
	}
}

// elsewhere tells whether a fix says that the key is on another node, as it is.
func (b *bench) elsewhere(f check.Finding) bool {
	if at := strings.TrimPrefix(f.Fix, "certify "); at != f.Fix {
		// As the key of a root is, by design.
		crt, _, _ := strings.Cut(at, " ")
		_, err := os.Stat(b.cluster.Path(cmp.Or(f.Node, "cp1"), strings.TrimSuffix(crt, ".crt")+".key"))
		return os.IsNotExist(err)
	}
	return f.Node == "w1" && (strings.Contains(f.Fix, "where the key of its authority is") || strings.Contains(f.Fix, "where the kubelets' authority is"))
}

func describeFixes(all []check.Finding) string {
	var b strings.Builder
	for _, f := range all {
		fmt.Fprintf(&b, "  %s (%s): %s # %s\n", f.ID, f.FixKind, f.Fix, f.FixNote)
	}
	return b.String()
}

// bench is a broken cluster with what is needed to mend it.
type bench struct {
	t                *testing.T
	tools            string // folder of kubepki, kubectl and systemctl
	cluster, healthy *testpki.Cluster
	at               time.Time
}

func (b *bench) findings() []check.Finding {
	all := weighty(b.cluster.Verify(check.Options{At: b.at}))
	return slices.DeleteFunc(all, func(f check.Finding) bool { return f.ID == "authority-shared" && f.Severity == check.Warning })
}

// run runs a fix on its node.
func (b *bench) run(f check.Finding) {
	b.t.Helper()
	command := f.Fix
	if f.FixKind == check.FixFillIn {
		command = b.fillIn(f)
	}
	b.t.Logf("%s on %q: %s", f.ID, f.Node, command)
	if out, err := b.on(f.Node, command); err != nil {
		b.t.Fatalf("%s: %s\n%v\n%s", f.ID, command, err, out)
	}
}

var namedNode = regexp.MustCompile(`kubeconfig node (\S+) --file`)

var notedNode = regexp.MustCompile(`of node (\w+)`)

// fillIn does what the note of a fix says of the part in capitals.
func (b *bench) fillIn(f check.Finding) string {
	b.t.Helper()
	replace := func(part, with string) string {
		return regexp.MustCompile(`(^|[\s/='])`+part+`($|[\s/'])`).ReplaceAllString(f.Fix, "${1}"+with+"${2}")
	}
	switch {
	case strings.Contains(f.Fix, "BACKUP"):
		return replace("BACKUP", "/good")
	case strings.Contains(f.Fix, "OTHER"):
		return replace("OTHER", "/nodes/"+notedNode.FindStringSubmatch(f.FixNote)[1])
	case strings.Contains(f.Fix, "HOST:PORT"):
		return strings.ReplaceAll(f.Fix, "HOST:PORT", "api.example.test:6443")
	}
	file := filepath.Join(b.cluster.Dir, "handed")
	if from, command, ok := strings.Cut(f.FixNote, "prints on node "); ok && from != "" {
		node, command, _ := strings.Cut(command, ": ")
		command, _, _ = strings.Cut(command, ";")
		out, err := b.on(node, command)
		if err != nil {
			b.t.Fatalf("%s on %s: %v\n%s", command, node, err, out)
		}
		b.check(os.WriteFile(file, out, 0o600))
		defer os.Remove(file)
	} else {
		name := f.Node
		if said := namedNode.FindStringSubmatch(f.FixNote); said != nil && said[1] != "NAME" {
			name = said[1]
		}
		out, err := b.on("cp1", "kubepki kubeconfig node "+name)
		if err != nil {
			b.t.Fatalf("kubepki kubeconfig node: %v\n%s", err, out)
		}
		b.check(os.WriteFile(file, out, 0o600))
	}
	// The file is carried to the node by hand.
	target := b.cluster.Path(f.Node, "/handed")
	b.check(os.Rename(file, target))
	b.t.Cleanup(func() { os.Remove(target) })
	return replace("FILE", "/handed")
}

func (b *bench) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// enter makes a node's tree the root of a mount namespace, with the machine's
// programs in it, and runs a command there.
const enter = `set -e
for d in usr proc dev tmp tools good nodes; do mkdir -p "$ROOT/$d"; done
for d in bin sbin lib lib32 lib64; do
	if [ -L "/$d" ]; then ln -sfn "$(readlink "/$d")" "$ROOT/$d"; elif [ -d "/$d" ]; then mkdir -p "$ROOT/$d"; mount --rbind "/$d" "$ROOT/$d"; fi
done
for d in usr proc dev; do mount --rbind "/$d" "$ROOT/$d"; done
mount --bind "$TOOLS" "$ROOT/tools"
mount --bind "$GOOD" "$ROOT/good"
mount --bind "$NODES" "$ROOT/nodes"
exec env -i PATH=/tools:/usr/sbin:/usr/bin:/sbin:/bin HOME=/ KUBEPKI_TEST_NOW="$NOW" chroot "$ROOT" sh -c "$FIX"
`

func (b *bench) on(node, command string) ([]byte, error) {
	if node == "" {
		node = "cp1"
	}
	c := exec.Command("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", enter)
	c.Env = append(os.Environ(), "ROOT="+filepath.Join(b.cluster.Dir, node), "TOOLS="+b.tools, "GOOD="+filepath.Join(b.healthy.Dir, node), "NODES="+b.cluster.Dir,
		"NOW="+b.at.UTC().Format(time.RFC3339), "FIX="+command)
	return c.CombinedOutput()
}

// state is a digest of all nodes' files, backups left out.
func (b *bench) state() string {
	h := sha256.New()
	b.check(filepath.WalkDir(b.cluster.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() == "kubepki-backup" {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(h, path, info.Mode())
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			h.Write(data)
		}
		return nil
	}))
	return string(h.Sum(nil))
}

var toolsMade = sync.OnceValues(makeTools)

// fixTools is a folder with the programs that fixes call and that Debian's base
// system has not: kubepki, and kubectl, which is the lab's where that is built.
// systemctl only says that it was called: no kubelet runs here.
func fixTools(t *testing.T) string {
	t.Helper()
	dir, err := toolsMade()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func makeTools() (string, error) {
	dir, err := os.MkdirTemp("", "kubepki-test-tools-")
	if err != nil {
		return "", err
	}
	cleanTools = func() { os.RemoveAll(dir) }
	// The test binary acts as kubepki at another time than now, and as kubectl.
	build := exec.Command("go", "test", "-c", "-tags", "grpcnotrace", "-o", filepath.Join(dir, "kubepki"), "../../cmd/kubepki")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building kubepki: %w\n%s", err, out)
	}
	kubectl := filepath.Join(dir, "kubepki")
	if real, err := filepath.Abs("../../.build/kubectl"); err == nil {
		if _, err := os.Stat(real); err == nil {
			kubectl = real
		}
	}
	if err := os.Link(kubectl, filepath.Join(dir, "kubectl")); err != nil {
		data, err := os.ReadFile(kubectl)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, "kubectl"), data, 0o755); err != nil {
			return "", err
		}
	}
	return dir, os.WriteFile(filepath.Join(dir, "systemctl"), []byte("#!/bin/sh\necho \"$@\"\n"), 0o755)
}
