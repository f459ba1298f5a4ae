//go:build linux

package lab_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/kubepki/kubepki/lab"
	"k8s.io/client-go/rest"
)

// controlPlane is a cluster made by kubepki init: an etcd member on each control
// plane, and on cp1 an API server, a controller manager and a scheduler.
type controlPlane struct {
	dir   string // as given to --out
	shape string // as given to --authorities
	nodes []*lab.Node
	// worker tells that there is a worker too, w1, on which nothing runs.
	worker bool
	admin  *rest.Config // super-admin.conf of cp1
	// Of cp1.
	apiserver, manager *lab.Process
	// office holds the authorities with their keys, in the places that they
	// have in the certificates folder; empty: that of cp1.
	office string
}

// path is a path on a node.
func (c *controlPlane) path(node, path string) string { return filepath.Join(c.dir, node, path) }

// pki is a file below the certificates folder of cp1.
func (c *controlPlane) pki(path string) string {
	return c.path("cp1", filepath.Join("etc/kubernetes/pki", path))
}

// authority is the path of an authority and its key, without the extension.
func (c *controlPlane) authority(name string) string {
	if c.office != "" {
		return filepath.Join(c.office, name)
	}
	return c.pki(name)
}

// conf is the client configuration of a kubeconfig of cp1.
func (c *controlPlane) conf(t *testing.T, name string) *rest.Config {
	t.Helper()
	return restConfig(t, c.path("cp1", filepath.Join("etc/kubernetes", name+".conf")))
}

// initCluster runs kubepki init for some control planes and a worker.
func initCluster(t testing.TB, controlPlanes int, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"init", "--out=" + dir, "--manifests", "--control-plane-endpoint=10.99.0.11:6443"}
	for i := 1; i <= controlPlanes; i++ {
		args = append(args, fmt.Sprintf("--control-plane=cp%d=10.99.0.1%d", i, i))
	}
	run(t, "kubepki", append(append(args, "--worker=w1=10.99.0.21"), flags...)...)
	return dir
}

// startCluster starts what initCluster made, each component from its manifest.
func startCluster(t *testing.T, dir, shape string, controlPlanes int) *controlPlane {
	t.Helper()
	return startClusterIn(t, newNetwork(t), dir, shape, controlPlanes)
}

// startClusterIn is startCluster in a network that has room for more, with more
// flags for the controller manager.
func startClusterIn(t *testing.T, network *lab.Network, dir, shape string, controlPlanes int, manager ...string) *controlPlane {
	t.Helper()
	c := &controlPlane{dir: dir, shape: shape}
	var members []*lab.Process
	for i := 1; i <= controlPlanes; i++ {
		name := fmt.Sprintf("cp%d", i)
		node := addNode(t, network, name, filepath.Join(dir, name), fmt.Sprintf("10.99.0.1%d/24", i))
		c.nodes = append(c.nodes, node)
		// A test's data need not survive a power cut.
		members = append(members, start(t, node, "etcd", "--unsafe-no-fsync"))
	}
	c.apiserver = start(t, c.nodes[0], "kube-apiserver")
	ready(t, append(members, c.apiserver)...)
	c.manager = start(t, c.nodes[0], "kube-controller-manager", manager...)
	ready(t, c.manager, start(t, c.nodes[0], "kube-scheduler"))
	c.admin = c.conf(t, "super-admin")
	return c
}
