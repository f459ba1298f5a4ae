//go:build linux

package lab_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/approve"
	"github.com/kubepki/kubepki/lab/internal/cri"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
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
	"cp1": {netip.MustParseAddr("10.99.0.11")}, // without a kubelet: its credential asks
	"w1":  {netip.MustParseAddr("10.99.0.21")},
	"w2":  {netip.MustParseAddr("10.99.0.22")},
	"w3":  {netip.MustParseAddr("10.99.0.23")},
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
	if err := kubelet.Possible(); err != nil {
		t.Skip(err) // light nodes are tested all the same
	}
	dir := initCluster(t, 1, "--key-algorithm=ECDSA-P256")
	// Before the network: it is removed after all is unmounted. And so long that
	// no socket below it could have its whole path for an address.
	roots := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	network := newNetwork(t)
	c := startClusterIn(t, network, dir, "separate", 1)
	startApprover(t, c)
	token := bootstrapToken(t, c)
	w1 := startWorker(t, network, c.path("w1", ""), kubelet.Config{Name: "w1", Addresses: labNodes["w1"], ControlPlane: true})
	w2 := join(t, network, c, roots, "w2", token)
	ready(t, w1.kubelet, w2.kubelet)
	t.Run("a node that has joined has the files of a real one", func(t *testing.T) { testJoined(t, w2) })
	t.Run("a kubelet serves the certificate that it asked for", func(t *testing.T) { testServing(t, c, w1, w2) })
	// A certificate for a minute is renewed within half of one: it began five
	// minutes ago, so that seven to nine tenths of its time are soon over.
	if err := c.manager.Stop(); err != nil {
		t.Fatal(err)
	}
	c.manager = start(t, c.nodes[0], "kube-controller-manager", "--cluster-signing-duration=1m",
		"--leader-elect=false") // it need not wait for the lease of the one that was stopped
	w3 := join(t, network, c, roots, "w3", token)
	t.Run("a node that init made becomes a control plane", func(t *testing.T) { testFromInit(t, c, w1) })
	nodeReady(t, c.client(t), "w2")
	t.Run("pods are processes", func(t *testing.T) { testPods(t, c) })
	t.Run("a kubelet that was killed comes back with its files", func(t *testing.T) { testKilled(t, c, w2) })
	t.Run("a kubelet renews its certificates", func(t *testing.T) { testRenewed(t, c, w3) })
	t.Run("the approver goes on when the API server was killed", func(t *testing.T) { testApproverGoesOn(t, c) })
}

// testFromInit looks at a node that began with a certificate in its kubelet.conf,
// as control planes do.
func testFromInit(t *testing.T, c *controlPlane, w *worker) {
	node := nodeReady(t, c.client(t), w.name)
	if taints := node.Spec.Taints; !slices.ContainsFunc(taints, func(t corev1.Taint) bool { return t.Key == "node-role.kubernetes.io/control-plane" }) {
		t.Errorf("the taints are %v", taints)
	}
	if err := kubelet.MarkControlPlane(t.Context(), c.client(t), w.name); err != nil {
		t.Error(err)
	}
	if err := says(t, c, "node/w1", "get", "node", "-o", "name", "-l", "node-role.kubernetes.io/control-plane"); err != nil {
		t.Error(err)
	}
	testJoined(t, w)
}

// testJoined looks at the files of a worker.
func testJoined(t *testing.T, w *worker) {
	finished(t, w)
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
	if err != nil || !regexp.MustCompile(`(^|/)kubelet-client-\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d\.pem$`).MatchString(target) {
		t.Errorf("kubelet-client-current.pem leads to %q, %v; want a dated file", target, err)
	}
	if _, err := os.Stat(filepath.Join(w.root, kubelet.BootstrapKubeconfig)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the bootstrap kubeconfig is still there: %v", err)
	}
	verify(t, "--root="+w.root)
}

// finished waits until the kubelet has a client certificate that it asked for.
func finished(t *testing.T, w *worker) {
	t.Helper()
	eventually(t, "the kubelet has a certificate", func(context.Context) error {
		if done, err := kubelet.Finish(w.root); !done {
			return fmt.Errorf("not yet: %w", err)
		}
		return nil
	})
}

// testServing dials kubelets.
func testServing(t *testing.T, c *controlPlane, workers ...*worker) {
	for _, w := range workers {
		var leaf *x509.Certificate
		eventually(t, "the kubelet serves", func(ctx context.Context) (err error) {
			leaf, err = served(ctx, t, c, w.name)
			return err
		})
		if got := leaf.Subject.CommonName; got != "system:node:"+w.name {
			t.Errorf("the certificate is of %q", got)
		}
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
	testTerminal(t, c)
	testPortForward(t, c)
	// kubectl waits for the pod to be gone: its process, that is, and its volumes.
	if out, err := kubectl(t, c, "delete", "pod", "client", "--timeout=20s"); err != nil {
		t.Errorf("delete a pod: %v %s", err, out.stderr)
	}
}

// testTerminal asks a command in a pod how large its terminal is.
func testTerminal(t *testing.T, c *controlPlane) {
	request := c.client(t).CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name("client").SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: []string{"sh", "-c", sizeScript}, Stdout: true, TTY: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(c.admin, "GET", request.URL().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), readyWait)
	defer cancel()
	eventually(t, "a command has a terminal", func(context.Context) error {
		var out bytes.Buffer
		err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Tty: true, TerminalSizeQueue: &terminalSize{Width: 132, Height: 43}})
		if err == nil && out.String() != "43 132\r\n" {
			err = fmt.Errorf("stty says %q", out.String())
		}
		return err
	})
}

// sizeScript waits until it has been told the size.
const sizeScript = `until [ "$(stty size)" = "43 132" ]; do :; done; stty size`

// terminalSize is told once.
type terminalSize remotecommand.TerminalSize

func (s *terminalSize) Next() *remotecommand.TerminalSize {
	if s.Width == 0 {
		return nil
	}
	size := remotecommand.TerminalSize(*s)
	*s = terminalSize{}
	return &size
}

// testPortForward reaches the kubelet's own health port, which is the pod's too.
func testPortForward(t *testing.T, c *controlPlane) {
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs, "kubectl"),
		"--kubeconfig="+c.path("cp1", "etc/kubernetes/super-admin.conf"), "port-forward", "pod/client", ":10248")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // it has no other end
		_ = cmd.Wait()
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	port := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line)
	if err != nil || port == "" {
		t.Fatalf("port-forward says %q, %v", line, err)
	}
	client := &http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get("http://" + port + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err != nil || string(body) != "ok" {
		t.Errorf("the kubelet says %q, %v", body, err)
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
	var leaf *x509.Certificate
	eventually(t, "the kubelet serves", func(ctx context.Context) (err error) {
		leaf, err = served(ctx, t, c, w.name)
		return err
	})
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

// testApproverGoesOn kills the API server, and asks for a certificate with the
// credential of a node when it is back.
func testApproverGoesOn(t *testing.T, c *controlPlane) {
	if err := c.apiserver.Kill(); err != nil {
		t.Fatal(err)
	}
	c.apiserver = start(t, c.nodes[0], "kube-apiserver")
	ready(t, c.apiserver)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{Organization: []string{"system:nodes"}, CommonName: "system:node:cp1"},
		DNSNames: []string{"cp1"},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	node, err := kubernetes.NewForConfig(c.conf(t, "kubelet"))
	if err != nil {
		t.Fatal(err)
	}
	request := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "after"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			SignerName: certificatesv1.KubeletServingSignerName,
			Usages:     []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth},
		},
	}
	eventually(t, "ask for a certificate", func(ctx context.Context) error {
		_, err := node.CertificatesV1().CertificateSigningRequests().Create(ctx, request, metav1.CreateOptions{})
		return err
	})
	eventually(t, "the approver approves", func(ctx context.Context) error {
		csr, err := c.client(t).CertificatesV1().CertificateSigningRequests().Get(ctx, request.Name, metav1.GetOptions{})
		if err == nil && len(csr.Status.Conditions) == 0 {
			return errNotSigned
		}
		return err
	})
}
