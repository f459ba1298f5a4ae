//go:build linux

package lab_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/kubepki/kubepki/lab"
)

// A kubelet mounts volumes and calls the machine's programs: its node has both.
func TestANodeIsAMachine(t *testing.T) {
	root := t.TempDir() // before the network: it is removed after all is unmounted
	network := newNetwork(t)
	if _, err := network.Node(lab.NodeConfig{
		Name: "w1", Root: root, Programs: programs, Logs: t.TempDir(), Machine: true,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.99.0.21/24")},
	}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"usr/bin/env", "bin/mount", "proc/self/mountinfo", "sys/class/net", "dev/null"} {
		if _, err := os.Stat(filepath.Join(root, path)); err != nil {
			t.Error(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "proc/sys/vm/swappiness"), []byte("60"), 0o600); err == nil {
		t.Error("the machine's kernel can be told through a node how to swap")
	}
	for _, path := range []string{"usr/written", "sys/written"} {
		if err := os.WriteFile(filepath.Join(root, path), nil, 0o600); err == nil {
			t.Errorf("the machine's /%s can be written to through a node", filepath.Dir(path))
		}
	}
	// Whoever removes a node's folder must not remove the machine.
	if err := os.Remove(filepath.Join(root, "dev/full")); err == nil {
		t.Error("a device of the machine can be removed through a node")
	}
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Error(err)
	}
}
