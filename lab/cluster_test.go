//go:build linux

package lab_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/kubepki/kubepki/lab"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// readyWait is for a component to become ready on a slow machine.
const readyWait = 90 * time.Second

// newNetwork makes a network in which the test itself has an address.
func newNetwork(t *testing.T) *lab.Network {
	t.Helper()
	network, err := lab.NewNetwork(netip.MustParsePrefix("10.99.0.254/24"), netip.MustParsePrefix("fd99::fe/64"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := network.Close(); err != nil {
			t.Error(err)
		}
	})
	return network
}

// addNode adds a node whose root folder is filled already.
func addNode(t *testing.T, network *lab.Network, name, root string, addresses ...string) *lab.Node {
	t.Helper()
	config := lab.NodeConfig{Name: name, Root: root, Programs: programs, Logs: t.TempDir()}
	for _, a := range addresses {
		config.Addresses = append(config.Addresses, netip.MustParsePrefix(a))
	}
	node, err := network.Node(config)
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// start starts a component without waiting for it.
func start(t *testing.T, node *lab.Node, component string, more ...string) *lab.Process {
	t.Helper()
	p, err := node.Start(component, more...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s on %s:\n%s", component, node.Name, p.Log())
		}
	})
	return p
}

// ready waits for components.
func ready(t *testing.T, processes ...*lab.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyWait)
	defer cancel()
	for _, p := range processes {
		if err := p.Ready(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// restConfig reads a kubeconfig as kubectl does, and calls from the test's own
// place in the network.
func restConfig(t *testing.T, kubeconfig string) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	config.Timeout = 10 * time.Second
	return config
}

// clientset is a client with the credential of a kubeconfig.
func clientset(t *testing.T, kubeconfig string) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(restConfig(t, kubeconfig))
	if err != nil {
		t.Fatal(err)
	}
	return client
}
