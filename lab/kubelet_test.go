//go:build linux

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/cri"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
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
	keepLogs(t, config.Logs)
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

func TestKubelet(t *testing.T) {
	dir := initCluster(t, 1, "--key-algorithm=ECDSA-P256")
	root := filepath.Join(t.TempDir(), "w2") // before the network: it is removed after all is unmounted
	network := newNetwork(t)
	plane := startClusterIn(t, network, dir, "separate", 1)
	w := startWorker(t, network, root, kubelet.Config{
		Name: "w2", Addresses: []netip.Addr{netip.MustParseAddr("10.99.0.22")},
		Join: &kubelet.Join{Server: "https://10.99.0.11:6443", Authority: read(t, plane.pki("ca.crt")), Token: bootstrapToken(t, plane)},
	})
	ready(t, w.kubelet)
	client := plane.client(t)
	nodeReady(t, client, "w2")
	pod, err := client.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "client"},
		Spec: corev1.PodSpec{
			HostNetwork: true, NodeName: "w2",
			Containers: []corev1.Container{{
				Name: "client", Image: cri.Registry + "kubectl:v1",
				Command: []string{"sh", "-c"},
				Args: []string{`S=/var/run/secrets/kubernetes.io/serviceaccount
while :; do kubectl --server=https://10.99.0.11:6443 --certificate-authority=$S/ca.crt --token="$(cat $S/token)" auth whoami -o name; id -u; sleep 1; done`},
			}, {Name: "fake", Image: "registry.k8s.io/pause:3.10"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod runs", func(ctx context.Context) error {
		p, err := client.CoreV1().Pods("default").Get(ctx, pod.Name, metav1.GetOptions{})
		if err == nil && p.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("%s: %+v", p.Status.Phase, p.Status.ContainerStatuses)
		}
		return err
	})
}
