package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/cluster"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
)

// namespaces tells whether the machine allows what the lab needs: nil is yes, an
// error says why not. It tries, in a process of its own.
func namespaces(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	output, err := exec.CommandContext(ctx, self, "try-namespaces").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s", bytes.TrimSpace(output))
	}
	return nil
}

// newTryCommand is what namespaces tries.
func newTryCommand() *cobra.Command {
	return &cobra.Command{
		Use: "try-namespaces", Hidden: true,
		RunE: func(*cobra.Command, []string) error {
			return asExit(lab.Main(func() int {
				network, err := lab.NewNetwork(cluster.Administrator...)
				if err == nil {
					err = network.Close()
				}
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					return 1
				}
				return 0
			}))
		},
	}
}

// say says how the lab will run. One that was made in namespaces cannot run
// without.
func say(ctx context.Context, talk io.Writer, wanted cluster.Wanted) error {
	sayWatches(talk, wanted)
	refused := namespaces(ctx)
	if wanted.Loopback {
		if err := freeOnLoopback(wanted); err != nil {
			return err
		}
	}
	switch {
	case wanted.Loopback && refused != nil:
		fmt.Fprintf(talk, "on loopback: control planes, and light nodes instead of kubelets and pods: %v\n", refused)
	case wanted.Loopback:
		fmt.Fprintln(talk, "on loopback: control planes, and light nodes instead of kubelets and pods")
	case refused != nil:
		return hintedError{fmt.Errorf("the lab was made in namespaces, and cannot have them now: %w", refused), "allow user namespaces again, or make another lab with --dir"}
	case wanted.WithoutKubelets:
		fmt.Fprintln(talk, "in namespaces of its own, with light nodes instead of kubelets and pods")
		if err := kubelet.Possible(); err != nil {
			fmt.Fprintf(talk, "kubepki-lab: warning: %v\n", err)
		}
	default:
		fmt.Fprintln(talk, "in namespaces of its own: every node has its address, and nothing is reachable from outside")
	}
	return nil
}

// freeOnLoopback tells whether the addresses of the API servers are free: another
// lab on loopback has the same ones, and would answer in their place.
func freeOnLoopback(wanted cluster.Wanted) error {
	spec, err := wanted.Cluster()
	if err != nil {
		return err
	}
	for _, n := range spec.ControlPlanes {
		address := netip.AddrPortFrom(n.Address, uint16(n.BindPort)).String()
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return hintedError{fmt.Errorf("kube-apiserver of %s: %w", n.Name, err), "one lab at a time can run on loopback: end the other one, or whatever listens there"}
		}
		if err := listener.Close(); err != nil {
			return err
		}
	}
	return nil
}
