//go:build linux

package lab_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
	"github.com/kubepki/kubepki/lab/internal/objects"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// proxyModes are the ways in which kube-proxy says who it is, one on each
// worker.
var proxyModes = []string{"token-secret", "projected-token", "certificate"}

// services is a control plane with the objects of the lab, and three workers.
type services struct {
	*controlPlane
	api     *kubernetes.Clientset
	servers *objects.Servers
	workers []*worker
}

// startServices starts everything. The network of services leaves out the
// addresses of the nodes, for kube-proxy drops what is sent to an address of it
// that belongs to no service.
func startServices(t *testing.T) *services {
	t.Helper()
	dir := t.TempDir()
	args := []string{"init", "--out=" + dir, "--manifests", "--kube-proxy", "--key-algorithm=ECDSA-P256", "--service-cidr=10.96.0.0/16",
		"--control-plane-endpoint=10.99.0.11:6443", "--control-plane=cp1=10.99.0.11"}
	for i := range proxyModes {
		args = append(args, fmt.Sprintf("--worker=w%d=10.99.0.2%d", i+1, i+1))
	}
	run(t, "kubepki", args...)
	s := &services{controlPlane: &controlPlane{dir: dir, shape: "separate"}}
	var err error
	if s.servers, err = objects.Provision(t.Context(), s.path("", "servers"), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := objects.WriteAdmission(s.path("cp1", ""), s.servers.Webhook); err != nil {
		t.Fatal(err)
	}
	network := newNetwork(t)
	s.startControlPlane(t, network)
	for i, mode := range proxyModes {
		s.addWorker(t, network, fmt.Sprintf("w%d", i+1), netip.MustParseAddr(fmt.Sprintf("10.99.0.2%d", i+1)), mode)
	}
	return s
}

func (s *services) startControlPlane(t *testing.T, network *lab.Network) {
	t.Helper()
	node := addNode(t, network, "cp1", s.path("cp1", ""), "10.99.0.11/24")
	s.nodes = []*lab.Node{node}
	var flags []string
	for _, f := range objects.APIServerFlags() {
		flags = append(flags, f.Flag)
	}
	ready(t, start(t, node, "etcd", "--unsafe-no-fsync"), start(t, node, "kube-apiserver", flags...))
	ready(t, start(t, node, "kube-controller-manager"), start(t, node, "kube-scheduler"))
	s.admin = s.conf(t, "super-admin")
	s.api = s.client(t)
}

// addWorker starts a worker with the files of kubepki init.
func (s *services) addWorker(t *testing.T, network *lab.Network, name string, address netip.Addr, mode string) {
	t.Helper()
	w := startWorker(t, network, s.path(name, ""), kubelet.Config{Name: name, Addresses: []netip.Addr{address}})
	s.workers = append(s.workers, w)
	label := fmt.Appendf(nil, `{"metadata":{"labels":{"lab.kubepki.dev/kube-proxy":%q}}}`, mode)
	eventually(t, "label node "+name, func(ctx context.Context) error {
		_, err := s.api.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, label, metav1.PatchOptions{})
		return err
	})
}

func (s *services) values() objects.Values {
	return objects.Values{Server: "https://10.99.0.11:6443", Servers: *s.servers, KubeProxy: "kube-proxy"}
}

func TestServices(t *testing.T) {
	begin := time.Now()
	s := startServices(t)
	t.Log("nodes after", time.Since(begin))
	if err := objects.Apply(t.Context(), s.admin, s.values()); err != nil {
		t.Fatal(err)
	}
	t.Log("applied after", time.Since(begin))
	eventually(t, "all pods run", s.available)
	t.Log("pods run after", time.Since(begin))
}

// available tells which workload still lacks pods.
func (s *services) available(ctx context.Context) error {
	deployments, err := s.api.AppsV1().Deployments("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, d := range deployments.Items {
		if d.Status.AvailableReplicas != 1 {
			return fmt.Errorf("deployment %s has %d pods", d.Name, d.Status.AvailableReplicas)
		}
	}
	sets, err := s.api.AppsV1().DaemonSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, d := range sets.Items {
		if d.Status.NumberAvailable != 1 {
			return fmt.Errorf("daemon set %s has %d pods", d.Name, d.Status.NumberAvailable)
		}
	}
	return nil
}
