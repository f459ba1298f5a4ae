//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const currentClient = "var/lib/kubelet/pki/kubelet-client-current.pem"

// joiner is the root of a node that kubepki joins, with what it is told.
func joiner(t *testing.T, c *controlPlane, roots, name, token string) (root string, config kubelet.Config) {
	t.Helper()
	root = filepath.Join(roots, name)
	config = kubelet.Config{
		Name: name, Addresses: labNodes[name],
		Join: &kubelet.Join{Server: "https://10.99.0.11:6443", Authority: read(t, c.pki("ca.crt")), Token: token},
	}
	if len(config.Addresses) == 0 {
		config.Addresses = []netip.Addr{netip.MustParseAddr("10.99.0.99")} // no kubelet will run there
	}
	if _, err := kubelet.Prepare(root, config); err != nil {
		t.Fatal(err)
	}
	return root, config
}

// clientRequests are the requests for client certificates of a node.
func clientRequests(t *testing.T, c *controlPlane, node string) []certificatesv1.CertificateSigningRequest {
	t.Helper()
	list, err := c.client(t).CertificatesV1().CertificateSigningRequests().List(t.Context(), metav1.ListOptions{
		FieldSelector: "spec.signerName=" + certificatesv1.KubeAPIServerClientKubeletSignerName,
	})
	if err != nil {
		t.Fatal(err)
	}
	var of []certificatesv1.CertificateSigningRequest
	for _, r := range list.Items {
		block, _ := pem.Decode(r.Spec.Request)
		if block != nil && bytes.Contains(block.Bytes, []byte("system:node:"+node)) {
			of = append(of, r)
		}
	}
	return of
}

func TestNodesJoinByKubepki(t *testing.T) {
	dir := initCluster(t, 1, "--key-algorithm=ECDSA-P256")
	roots := t.TempDir() // before the network: it is removed after all is unmounted
	network := newNetwork(t)
	c := startClusterIn(t, network, dir, "separate", 1)
	token := bootstrapToken(t, c)
	root, config := joiner(t, c, roots, "w2", token)
	out := run(t, "kubepki", "node", "join", "--root="+root, "--node-name=w2")
	if !strings.HasPrefix(out.stdout, "joined: system:node:w2 at https://10.99.0.11:6443, valid until ") {
		t.Errorf("it says %s%s", out.stdout, out.stderr)
	}
	again := run(t, "kubepki", "node", "join", "--root="+root, "--node-name=w2")
	if !strings.HasPrefix(again.stdout, "already joined: system:node:w2 ") || len(clientRequests(t, c, "w2")) != 1 {
		t.Errorf("again it says %s%s", again.stdout, again.stderr)
	}
	t.Run("a token or an authority that is wrong is said", func(t *testing.T) { testJoinRefused(t, c, roots, token) })
	t.Run("the cluster is found by a pin", func(t *testing.T) { testJoinByPin(t, c, roots, token) })
	if err := kubelet.Possible(); err != nil {
		t.Log(err)
	} else {
		t.Run("the files are a kubelet's, and a kubelet starts with them", func(t *testing.T) {
			of := join(t, network, c, roots, "w3", token)
			w2 := startWorker(t, network, root, config)
			testLikeAKubelets(t, of, root)
			nodeReady(t, c.client(t), "w2")
			if n := len(clientRequests(t, c, "w2")); n != 1 {
				t.Errorf("the kubelet asked for another certificate: there are %d requests", n)
			}
			if err := w2.kubelet.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("a certificate is rotated", func(t *testing.T) { testRotatedByKubepki(t, c, root) })
	if err := c.manager.Stop(); err != nil {
		t.Fatal(err)
	}
	t.Run("a request is denied", func(t *testing.T) { testJoinDenied(t, c, roots, token) })
	t.Run("killed while it waits, it goes on", func(t *testing.T) { testJoinKilled(t, network, c, roots, token) })
}

// modes lists the files of a client below a root, dates left out.
func modes(t *testing.T, root string) []string {
	t.Helper()
	var all []string
	dates := regexp.MustCompile(`\d{4}(-\d\d){5}`)
	for _, folder := range []string{"var/lib/kubelet/pki", "etc/kubernetes"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(p string, d fs.DirEntry, err error) error {
			if err != nil || strings.HasPrefix(d.Name(), "kubelet.") && d.Name() != "kubelet.conf" { // serving certificate
				return err
			}
			info, err := d.Info()
			target, _ := os.Readlink(p)
			all = append(all, dates.ReplaceAllString(fmt.Sprintln(info.Mode(), strings.TrimPrefix(p, root), target), "DATE"))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// testLikeAKubelets compares what kubepki wrote with what a real kubelet did.
func testLikeAKubelets(t *testing.T, of *worker, root string) {
	finished(t, of)
	if diff := cmp.Diff(modes(t, of.root), modes(t, root)); diff != "" {
		t.Error(diff)
	}
	const conf = "etc/kubernetes/kubelet.conf"
	if diff := cmp.Diff(string(read(t, filepath.Join(of.root, conf))), string(read(t, filepath.Join(root, conf)))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(blockTypes(t, of.root), blockTypes(t, root)); diff != "" {
		t.Error(diff)
	}
}

// blockTypes are those of the newest pair: its link is the node's.
func blockTypes(t *testing.T, root string) []string {
	t.Helper()
	var types []string
	for data := newestPair(t, root); ; {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			return types
		}
		types = append(types, b.Type)
	}
}

func newestPair(t *testing.T, root string) []byte {
	t.Helper()
	target, err := os.Readlink(filepath.Join(root, currentClient))
	if err != nil {
		t.Fatal(err)
	}
	return read(t, filepath.Join(root, target))
}

func testJoinRefused(t *testing.T, c *controlPlane, roots, token string) {
	for name, row := range map[string]struct{ token, authority, want string }{
		"e1": {"abcdef.0123456789abcdef", "ca.crt", "401 Unauthorized"},
		"e2": {token, "front-proxy-ca.crt", "its certificate is not trusted"},
	} {
		root, config := joiner(t, c, roots, name, row.token)
		config.Join.Authority = read(t, c.pki(row.authority))
		if _, err := kubelet.Prepare(root, config); err != nil {
			t.Fatal(err)
		}
		out, err := try(t, "kubepki", "node", "join", "--root="+root, "--node-name="+name)
		if err == nil || !strings.Contains(out.stderr, row.want) || !strings.Contains(out.stderr, "kubepki: hint: ") || strings.Contains(out.stderr, row.token) {
			t.Errorf("%s: %v\n%s", name, err, out.stderr)
		}
		if n := len(clientRequests(t, c, name)); n != 0 {
			t.Errorf("%s: there are %d requests", name, n)
		}
	}
}

func testJoinByPin(t *testing.T, c *controlPlane, roots, token string) {
	pin := sha256.Sum256(authorityOf(t, c).RawSubjectPublicKeyInfo)
	root := filepath.Join(roots, "w5")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{"node", "join", "--root=" + root, "--node-name=w5", "--server=10.99.0.11:6443", "--token-file=" + write(t, filepath.Join(t.TempDir(), "token"), token+"\n")}
	out, err := try(t, "kubepki", append(args, "--discovery-token-ca-cert-hash=sha256:"+strings.Repeat("0", 64))...)
	if err == nil || !strings.Contains(out.stderr, "pinned") {
		t.Errorf("with another pin: %v\n%s", err, out.stderr)
	}
	run(t, "kubepki", append(args, fmt.Sprintf("--discovery-token-ca-cert-hash=sha256:%x", pin))...)
	if got := string(read(t, filepath.Join(root, "etc/kubernetes/pki/ca.crt"))); got != string(read(t, c.pki("ca.crt"))) {
		t.Errorf("the authority is\n%s", got)
	}
	verify(t, "--root="+root)
}

func authorityOf(t *testing.T, c *controlPlane) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(read(t, c.pki("ca.crt")))
	authority, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

func testRotatedByKubepki(t *testing.T, c *controlPlane, root string) {
	before := newestPair(t, root)
	if out := run(t, "kubepki", "node", "rotate", "--root="+root); !strings.HasPrefix(out.stdout, "not due: system:node:w2 ") {
		t.Errorf("it says %s", out.stdout)
	}
	out := run(t, "kubepki", "node", "rotate", "--root="+root, "--force")
	after := newestPair(t, root)
	if !strings.HasPrefix(out.stdout, "rotated: system:node:w2 ") || bytes.Equal(before, after) {
		t.Errorf("it says %s", out.stdout)
	}
	_, oldKey, _ := bytes.Cut(before, []byte("BEGIN EC PRIVATE KEY"))
	if len(oldKey) == 0 || bytes.Contains(after, oldKey) {
		t.Error("the key is the old one")
	}
	requests := clientRequests(t, c, "w2")
	if n := len(requests); n != 2 || requests[0].Spec.Username == requests[1].Spec.Username {
		t.Errorf("there are %d requests, want one by token and one by the node", n)
	}
	verify(t, "--root="+root)
}

// testJoinDenied, and what follows, run while nobody approves or signs.
func testJoinDenied(t *testing.T, c *controlPlane, roots, token string) {
	root, _ := joiner(t, c, roots, "w6", token)
	cmd, stderr := background(t, "node", "join", "--root="+root, "--node-name=w6")
	name := awaitClientRequest(t, c, "w6")
	if out, err := kubectl(t, c, "certificate", "deny", name); err != nil {
		t.Fatalf("%v\n%s", err, out.stderr)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), "request "+name+" was denied: KubectlDeny") || !strings.Contains(stderr.String(), "kubectl delete csr "+name) {
		t.Errorf("%v\n%s", err, stderr)
	}
	if _, err := os.Stat(filepath.Join(root, kubelet.BootstrapKubeconfig)); err != nil {
		t.Error(err)
	}
}

// background starts kubepki. What it says is to be read when it has ended.
func background(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command(filepath.Join(programs, "kubepki"), args...)
	stderr := &bytes.Buffer{}
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return cmd, stderr
}

func awaitClientRequest(t *testing.T, c *controlPlane, node string) (name string) {
	t.Helper()
	eventually(t, "node "+node+" asks for a certificate", func(context.Context) error {
		requests := clientRequests(t, c, node)
		if len(requests) != 1 {
			return fmt.Errorf("there are %d requests", len(requests))
		}
		name = requests[0].Name
		return nil
	})
	return name
}

// testJoinKilled kills kubepki, and a real kubelet, while their requests wait:
// kubepki goes on with both.
func testJoinKilled(t *testing.T, network *lab.Network, c *controlPlane, roots, token string) {
	root, _ := joiner(t, c, roots, "w7", token)
	cmd, _ := background(t, "node", "join", "--root="+root, "--node-name=w7")
	names := map[string]string{"w7": awaitClientRequest(t, c, "w7")}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // killed
	begun := map[string]string{"w7": root}
	if kubelet.Possible() == nil {
		names["w1"], begun["w1"] = beginWithAKubelet(t, network, c, roots, token)
	}
	c.manager = start(t, c.nodes[0], "kube-controller-manager", "--leader-elect=false")
	for node, root := range begun {
		out := run(t, "kubepki", "node", "join", "--root="+root, "--node-name="+node, "--timeout=1m")
		if requests := clientRequests(t, c, node); len(requests) != 1 || requests[0].Name != names[node] || !strings.Contains(out.stderr, "going on with request "+names[node]) {
			t.Errorf("%s: there are %d requests, and it says\n%s", node, len(requests), out.stderr)
		}
		verify(t, "--root="+root)
	}
}

// beginWithAKubelet lets a real kubelet send its request, and kills it. One that
// rotates its certificates keeps its first key in memory alone; this one does
// not, and so keeps the key on the disk as kubepki does.
func beginWithAKubelet(t *testing.T, network *lab.Network, c *controlPlane, roots, token string) (request, root string) {
	t.Helper()
	root, config := joiner(t, c, roots, "w1", token)
	node, err := network.Node(lab.NodeConfig{
		Name: "w1", Root: root, Programs: programs, Logs: t.TempDir(), Machine: true,
		Addresses: []netip.Prefix{netip.PrefixFrom(config.Addresses[0], 24)},
	})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := kubelet.Prepare(root, config)
	if err != nil {
		t.Fatal(err)
	}
	manifest.Command = append(manifest.Command, "--rotate-certificates=false")
	process, err := node.Run(manifest)
	if err != nil {
		t.Fatal(err)
	}
	request = awaitClientRequest(t, c, "w1")
	if err := process.Kill(); err != nil {
		t.Error(err)
	}
	return request, root
}
