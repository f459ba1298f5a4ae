package lab

import (
	"context"
	"net"
	"runtime"
	"syscall"
)

// NewLoopback returns a network for a machine that allows no namespaces, with
// less: every node is an address of the machine's own loopback, and shares the
// files, the ports and the processes of the machine. A component sees the
// machine's "/", so that what it is started from must name the node's files by
// their paths on the machine. [Main] is not needed.
func NewLoopback() *Network { return &Network{shared: newMachine()} }

// place is where the processes and the sockets of a node are.
type place interface {
	// do calls f where what it starts and opens belongs to the node.
	do(f func() error) error
	dial(ctx context.Context, network, address string) (net.Conn, error)
	close() error
}

// machine is the place of all nodes on loopback: the machine itself.
type machine struct{ work chan func() }

func newMachine() *machine {
	m := &machine{work: make(chan func())}
	go func() {
		// The kernel ends a process when the thread that started it ends, see
		// endWithParent: this one ends with the program.
		runtime.LockOSThread()
		for f := range m.work {
			f()
		}
	}()
	return m
}

func (m *machine) do(f func() error) error {
	done := make(chan error)
	m.work <- func() { done <- f() }
	return <-done
}

func (m *machine) dial(ctx context.Context, network, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, address)
}

// close does nothing: other nodes are there.
func (m *machine) close() error { return nil }

// endWithParent makes a process end with the program that started it, however
// that ends. In the lab's namespaces the kernel does so by itself.
func endWithParent(attributes *syscall.SysProcAttr) { attributes.Pdeathsig = syscall.SIGKILL }
