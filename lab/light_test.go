//go:build linux

package lab_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
	"github.com/kubepki/kubepki/lab/internal/light"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// lightNodesEnv is how many light nodes TestLightNodes runs, to measure them.
// More than a hundred have no room for their addresses, and serve nothing.
const lightNodesEnv = "KUBEPKI_LAB_LIGHT_NODES"

func TestLightNodes(t *testing.T) {
	count := 10
	if value := os.Getenv(lightNodesEnv); value != "" {
		var err error
		if count, err = strconv.Atoi(value); err != nil {
			t.Fatalf("%s: %v", lightNodesEnv, err)
		}
	}
	var nodes []light.Node
	place := lab.NodeConfig{Name: "light", Root: t.TempDir(), Programs: programs, Logs: t.TempDir()}
	address := netip.MustParseAddr("10.99.0.100")
	for i := range count {
		nodes = append(nodes, light.Node{Name: fmt.Sprintf("light%d", i), Address: address})
		place.Addresses = append(place.Addresses, netip.PrefixFrom(address, 24))
		address = address.Next()
	}
	if count > 100 {
		place.Addresses = place.Addresses[:1]
	}
	network := newNetwork(t)
	c := startClusterIn(t, network, initCluster(t, 1, "--key-algorithm=ECDSA-P256"), "separate", 1, light.ManagerFlags()...)
	for _, n := range nodes {
		labNodes[n.Name] = []netip.Addr{n.Address}
	}
	startApprover(t, c)
	stands, err := network.Node(place)
	if err != nil {
		t.Fatal(err)
	}
	options := light.Options{
		Dir: t.TempDir(), Nodes: nodes, Dial: stands.Dial, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Join: kubelet.Join{Server: "https://10.99.0.11:6443", Authority: read(t, c.pki("ca.crt")), Token: bootstrapToken(t, c)},
	}
	if count <= 100 {
		options.Listen = stands.Listen
	}
	before, began := residentKiB(t), time.Now()
	stop := runLight(t, options)
	nodesReady(t, c, count)
	t.Logf("%d light nodes were ready after %v, with %d KiB of memory each", count, time.Since(began).Round(time.Millisecond), (residentKiB(t)-before)/count)
	if options.Listen != nil {
		testLight(t, c, filepath.Join(options.Dir, "light0"))
	}
	// Those that have joined need no token.
	stop()
	options.Join.Token = "aaaaaa.aaaaaaaaaaaaaaaa"
	files := contents(t, filepath.Join(options.Dir, "light0/etc/kubernetes"))
	runLight(t, options)
	nodesReady(t, c, count)
	if d := cmp.Diff(files, contents(t, filepath.Join(options.Dir, "light0/etc/kubernetes"))); d != "" {
		t.Errorf("the files of light0 have changed (-before +after):\n%s", d)
	}
}

// runLight runs light nodes until the test ends, or what it returns is called.
func runLight(t *testing.T, options light.Options) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- light.Run(ctx, options) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// nodesReady waits until so many nodes are ready and have renewed their leases.
func nodesReady(t *testing.T, c *controlPlane, count int) {
	t.Helper()
	client, began := c.client(t), time.Now().Add(-time.Second)
	eventually(t, "all nodes are ready", func(ctx context.Context) error {
		nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		are := 0
		for _, n := range nodes.Items {
			for _, condition := range n.Status.Conditions {
				if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
					are++
				}
			}
		}
		leases, err := client.CoordinationV1().Leases(corev1.NamespaceNodeLease).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		fresh := 0
		for _, l := range leases.Items {
			if l.Spec.RenewTime != nil && l.Spec.RenewTime.After(began) {
				fresh++
			}
		}
		if are < count || fresh < count {
			return fmt.Errorf("%d are ready, %d have a fresh lease, of %d", are, fresh, count)
		}
		return nil
	})
}

// testLight looks at a light node as at a real one.
func testLight(t *testing.T, c *controlPlane, root string) {
	eventually(t, "a light node serves the certificate that it asked for", func(ctx context.Context) error {
		_, err := served(ctx, t, c, "light0")
		return err
	})
	testJoined(t, &worker{name: "light0", root: root})
	if err := says(t, c, "ok", "get", "--raw", "/api/v1/nodes/light0/proxy/healthz"); err != nil {
		t.Error(err)
	}
	if out, err := kubectl(t, c, "get", "--raw", "/api/v1/nodes/light0/proxy/pods"); err == nil || !strings.Contains(out.stderr, "NotFound") {
		t.Errorf("its pods: %v %s", err, out.stderr)
	}
}

// residentKiB is the memory that this program has in use.
func residentKiB(t *testing.T) int {
	t.Helper()
	for line := range strings.Lines(string(read(t, "/proc/self/status"))) {
		var kib int
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib
		}
	}
	t.Fatal("/proc/self/status has no VmRSS")
	return 0
}
