//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/approve"
	"github.com/kubepki/kubepki/lab/internal/cri"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"
)

// worker is a node with a kubelet and its container runtime.
type worker struct {
	name     string
	root     string
	node     *lab.Node
	runtime  *cri.Server
	manifest *lab.Manifest
	kubelet  *lab.Process
}

// bootstrapToken makes what kubeadm makes for nodes that join, and a token.
func bootstrapToken(t *testing.T, c *controlPlane) string {
	t.Helper()
	out := kubeadm(t, c.path("cp1", ""), plainConfig, "init", "phase", "bootstrap-token")
	token := regexp.MustCompile(`[a-z0-9]{6}\.[a-z0-9]{16}`).FindString(out.stdout)
	if token == "" {
		t.Fatalf("kubeadm says no token:\n%s%s", out.stdout, out.stderr)
	}
	return token
}

// startWorker starts a runtime and a kubelet on a new node.
func startWorker(t *testing.T, network *lab.Network, root string, c kubelet.Config) *worker {
	t.Helper()
	config := lab.NodeConfig{Name: c.Name, Root: root, Programs: programs, Logs: t.TempDir(), Machine: true}
	for _, a := range c.Addresses {
		config.Addresses = append(config.Addresses, netip.PrefixFrom(a, 24))
	}
	node, err := network.Node(config)
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{name: c.Name, root: root, node: node}
	if w.runtime, err = cri.Start(node, c.Addresses...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.runtime.Close(); err != nil {
			t.Error(err)
		}
	})
	if w.manifest, err = kubelet.Prepare(root, c); err != nil {
		t.Fatal(err)
	}
	w.startKubelet(t)
	return w
}

func (w *worker) startKubelet(t *testing.T) {
	t.Helper()
	var err error
	if w.kubelet, err = w.node.Run(w.manifest); err != nil {
		t.Fatal(err)
	}
	process := w.kubelet
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("kubelet on %s:\n%s", w.name, process.Log())
		}
	})
}

// nodeReady waits until the API server says that the node is ready.
func nodeReady(t *testing.T, client *kubernetes.Clientset, name string) *corev1.Node {
	t.Helper()
	var node *corev1.Node
	eventually(t, "node "+name+" is ready", func(ctx context.Context) (err error) {
		if node, err = client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
				return fmt.Errorf("%s: %s", c.Reason, c.Message)
			} else if c.Type == corev1.NodeReady {
				return nil
			}
		}
		return errors.New("no condition Ready yet")
	})
	return node
}

// labNodes are the nodes of this file, as the lab knows them.
var labNodes = map[string][]netip.Addr{
	"w2": {netip.MustParseAddr("10.99.0.22")},
	"w3": {netip.MustParseAddr("10.99.0.23")},
}

// startApprover approves serving certificates until the test ends.
func startApprover(t *testing.T, c *controlPlane) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var log bytes.Buffer // read when the approver has ended
	lookup := func(name string) ([]netip.Addr, bool) {
		addresses, ok := labNodes[name]
		return addresses, ok
	}
	client := c.client(t)
	go func() { ended <- approve.Run(ctx, client, lookup, slog.New(slog.NewTextHandler(&log, nil))) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("approver:\n%s", &log)
		}
	})
}

// join starts a worker of labNodes that joins by token.
func join(t *testing.T, network *lab.Network, c *controlPlane, root, name, token string) *worker {
	t.Helper()
	return startWorker(t, network, filepath.Join(root, name), kubelet.Config{
		Name: name, Addresses: labNodes[name],
		Join: &kubelet.Join{Server: "https://10.99.0.11:6443", Authority: read(t, c.pki("ca.crt")), Token: token},
	})
}

// kubectl runs the real one as the administrator.
func kubectl(t *testing.T, c *controlPlane, args ...string) (output, error) {
	t.Helper()
	return try(t, "kubectl", append([]string{"--kubeconfig=" + c.path("cp1", "etc/kubernetes/super-admin.conf")}, args...)...)
}

func TestRealKubelets(t *testing.T) {
	dir := initCluster(t, 1, "--key-algorithm=ECDSA-P256")
	// Before the network: it is removed after all is unmounted. And so long that
	// no socket below it could have its whole path for an address.
	roots := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	network := newNetwork(t)
	c := startClusterIn(t, network, dir, "separate", 1)
	startApprover(t, c)
	token := bootstrapToken(t, c)
	w2 := join(t, network, c, roots, "w2", token)
	ready(t, w2.kubelet)
	nodeReady(t, c.client(t), "w2")
	t.Run("a node that has joined has the files of a real one", func(t *testing.T) { testJoined(t, w2) })
	t.Run("a kubelet serves the certificate that it asked for", func(t *testing.T) { testServing(t, c, w2) })
	// A certificate for a minute is renewed within half of one: it began five
	// minutes ago, so that seven to nine tenths of its time are soon over.
	if err := c.manager.Stop(); err != nil {
		t.Fatal(err)
	}
	c.manager = start(t, c.nodes[0], "kube-controller-manager", "--cluster-signing-duration=1m")
	w3 := join(t, network, c, roots, "w3", token)
	t.Run("pods are processes", func(t *testing.T) { testPods(t, c) })
	t.Run("a kubelet that was killed comes back with its files", func(t *testing.T) { testKilled(t, c, w2) })
	t.Run("a kubelet renews its certificates", func(t *testing.T) { testRenewed(t, c, w3) })
}

// testJoined looks at the files of a worker.
func testJoined(t *testing.T, w *worker) {
	eventually(t, "the kubelet has joined", func(context.Context) error {
		if joined, err := kubelet.Joined(w.root); !joined {
			return fmt.Errorf("not yet: %w", err)
		}
		return nil
	})
	config, err := clientcmd.LoadFromFile(filepath.Join(w.root, kubelet.Kubeconfig))
	if err != nil {
		t.Fatal(err)
	}
	const current = "/var/lib/kubelet/pki/kubelet-client-current.pem"
	for name, user := range config.AuthInfos {
		if user.ClientCertificate != current || user.ClientKey != current {
			t.Errorf("%s of kubelet.conf points at %q and %q; want %s", name, user.ClientCertificate, user.ClientKey, current)
		}
	}
	target, err := os.Readlink(filepath.Join(w.root, current))
	if err != nil || !regexp.MustCompile(`/kubelet-client-\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d\.pem$`).MatchString(target) {
		t.Errorf("kubelet-client-current.pem leads to %q, %v; want a dated file", target, err)
	}
	if _, err := os.Stat(filepath.Join(w.root, kubelet.BootstrapKubeconfig)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the bootstrap kubeconfig is still there: %v", err)
	}
	verify(t, "--root="+w.root)
}

// testServing dials the kubelet.
func testServing(t *testing.T, c *controlPlane, w *worker) {
	var leaf *x509.Certificate
	eventually(t, "the kubelet serves", func(ctx context.Context) (err error) {
		leaf, err = served(ctx, t, c, w.name)
		return err
	})
	if got := leaf.Subject.CommonName; got != "system:node:"+w.name {
		t.Errorf("the certificate is of %q", got)
	}
}

// served is the certificate that a node's kubelet serves, after the cluster's
// authority, the node's name and its address were found to fit.
func served(ctx context.Context, t *testing.T, c *controlPlane, name string) (*x509.Certificate, error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(read(t, c.pki("ca.crt")))
	address := labNodes[name][0].String()
	dialer := &tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: address}}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(address, "10250"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	leaf := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
	return leaf, leaf.VerifyHostname(name)
}

// clientScript is a pod that shows its token to the API server, time and again.
const clientScript = `S=/var/run/secrets/kubernetes.io/serviceaccount
while :; do
  kubectl --server=https://10.99.0.11:6443 --certificate-authority=$S/ca.crt --token="$(cat $S/token)" auth whoami
  sleep 1
done`

// testPods runs pods of every kind.
func testPods(t *testing.T, c *controlPlane) {
	pods := c.client(t).CoreV1().Pods("default")
	script := func(name string, policy corev1.RestartPolicy, image, script string) {
		t.Helper()
		eventually(t, "create pod "+name, func(ctx context.Context) error {
			_, err := pods.Create(ctx, &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: name},
				Spec: corev1.PodSpec{
					HostNetwork: true, NodeName: "w2", RestartPolicy: policy, TerminationGracePeriodSeconds: ptr.To[int64](1),
					Containers: []corev1.Container{{Name: name, Image: image, Command: []string{"sh", "-c", script}}},
				},
			}, metav1.CreateOptions{})
			return err // there is no service account at first
		})
	}
	script("client", corev1.RestartPolicyAlways, cri.Registry+"kubectl:v1", clientScript)
	script("ends", corev1.RestartPolicyNever, cri.Registry+"kubectl:v1", "echo the end >&2; exit 3")
	script("again", corev1.RestartPolicyAlways, cri.Registry+"kubectl:v1", "exit 0")
	script("fake", corev1.RestartPolicyAlways, "registry.k8s.io/pause:3.10", "never run")

	eventually(t, "a pod's token is taken for its service account", func(context.Context) error {
		return says(t, c, "system:serviceaccount:default:default", "logs", "client")
	})
	eventually(t, "commands run in a pod, with its files", func(context.Context) error {
		return says(t, c, "token", "exec", "client", "--", "ls", "/var/run/secrets/kubernetes.io/serviceaccount")
	})
	if out, err := kubectl(t, c, "exec", "client", "--", "sh", "-c", "exit 7"); err == nil || !strings.Contains(out.stderr, "exit code 7") {
		t.Errorf("a command that exits with 7: %v %s", err, out.stderr)
	}
	if err := says(t, c, "ok", "get", "--raw", "/api/v1/nodes/w2/proxy/healthz"); err != nil {
		t.Error(err)
	}
	eventually(t, "a container's exit code is seen", func(ctx context.Context) error {
		return terminated(ctx, pods, "ends", func(s corev1.ContainerStatus) bool {
			return s.State.Terminated != nil && s.State.Terminated.ExitCode == 3
		})
	})
	eventually(t, "a container that has ended is started again", func(ctx context.Context) error {
		return terminated(ctx, pods, "again", func(s corev1.ContainerStatus) bool { return s.RestartCount > 0 })
	})
	eventually(t, "another image is a fake that runs", func(ctx context.Context) error {
		return terminated(ctx, pods, "fake", func(s corev1.ContainerStatus) bool { return s.State.Running != nil })
	})
	if err := says(t, c, "runs nothing", "logs", "fake"); err != nil {
		t.Error(err)
	}
	// kubectl waits for the pod to be gone: its process, that is, and its volumes.
	if out, err := kubectl(t, c, "delete", "pod", "client", "--timeout=20s"); err != nil {
		t.Errorf("delete a pod: %v %s", err, out.stderr)
	}
}

// says checks that kubectl succeeds and says something.
func says(t *testing.T, c *controlPlane, want string, args ...string) error {
	t.Helper()
	out, err := kubectl(t, c, args...)
	if err == nil && !strings.Contains(out.stdout, want) {
		err = fmt.Errorf("says %q; want %q", out.stdout, want)
	}
	if err != nil {
		return fmt.Errorf("kubectl %s: %w %s", strings.Join(args, " "), err, out.stderr)
	}
	return nil
}

func terminated(ctx context.Context, pods typedcorev1.PodInterface, name string, ok func(corev1.ContainerStatus) bool) error {
	pod, err := pods.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if len(pod.Status.ContainerStatuses) != 1 || !ok(pod.Status.ContainerStatuses[0]) {
		return fmt.Errorf("%+v", pod.Status.ContainerStatuses)
	}
	return nil
}

// testKilled kills the kubelet, as no program can catch it.
func testKilled(t *testing.T, c *controlPlane, w *worker) {
	before := contents(t, filepath.Join(w.root, "etc/kubernetes"))
	leaf, err := served(t.Context(), t, c, w.name)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.kubelet.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	w.startKubelet(t)
	ready(t, w.kubelet)
	eventually(t, "the node is ready again", func(ctx context.Context) error {
		node, err := c.client(t).CoreV1().Nodes().Get(ctx, w.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue && condition.LastHeartbeatTime.After(killed) {
				return nil
			}
		}
		return fmt.Errorf("%+v", node.Status.Conditions)
	})
	again, err := served(t.Context(), t, c, w.name)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Equal(leaf) {
		t.Error("it serves another certificate")
	}
	if d := cmp.Diff(before, contents(t, filepath.Join(w.root, "etc/kubernetes"))); d != "" {
		t.Errorf("its files have changed (-before +after):\n%s", d)
	}
	eventually(t, "it has its pods of before", func(context.Context) error { return says(t, c, "runs nothing", "logs", "fake") })
}

// testRenewed waits until a kubelet has renewed both of its certificates.
func testRenewed(t *testing.T, c *controlPlane, w *worker) {
	client := filepath.Join(w.root, kubelet.CertificatesDir, "kubelet-client-current.pem")
	var firstLink string
	eventually(t, "the kubelet has a client certificate", func(context.Context) (err error) {
		firstLink, err = os.Readlink(client)
		return err
	})
	var first *x509.Certificate
	eventually(t, "the kubelet serves", func(ctx context.Context) (err error) {
		first, err = served(ctx, t, c, w.name)
		return err
	})
	eventually(t, "the kubelet has renewed its client certificate", func(context.Context) error {
		if link, err := os.Readlink(client); err != nil || link == firstLink {
			return fmt.Errorf("%s, %w", link, err)
		}
		return nil
	})
	eventually(t, "the kubelet has renewed its serving certificate", func(ctx context.Context) error {
		leaf, err := served(ctx, t, c, w.name)
		if err == nil && leaf.Equal(first) {
			return errors.New("it is the first")
		}
		return err
	})
	nodeReady(t, c.client(t), w.name)
}
