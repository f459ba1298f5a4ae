//go:build linux

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/kubepki/kubepki/lab"
)

// A whole program calls startEtcd by lab.Main, as the tests of this package do.
func Example() {
	if err := startEtcd(); err != nil {
		log.Fatal(err)
	}
	// Output: etcd is ready at http://127.0.0.1:2381/readyz
}

func startEtcd() (err error) {
	dir, err := os.MkdirTemp("", "lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	root := filepath.Join(dir, "cp1")
	init := exec.Command(filepath.Join(programs, "kubepki"), "init", "--root="+root, "--manifests", "--key-algorithm=ECDSA-P256",
		"--node-name=cp1", "--apiserver-advertise-address=10.99.0.11")
	if out, err := init.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	network, err := lab.NewNetwork(netip.MustParsePrefix("10.99.0.254/24"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	node, err := network.Node(lab.NodeConfig{
		Name:      "cp1",
		Root:      root,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.99.0.11/24")},
		Programs:  programs,
		Logs:      dir,
	})
	if err != nil {
		return err
	}
	etcd, err := node.Start("etcd")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := etcd.Ready(ctx); err != nil {
		return err
	}
	fmt.Println("etcd is ready at", etcd.Manifest.Probe)
	return nil
}
