package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
)

// Node is a machine of the cluster: a root folder and a network namespace with
// the node's addresses. It is safe for concurrent use.
type Node struct {
	// Name of the node, for messages and names of log files.
	Name string
	// Root is the folder that is the node's "/".
	Root string
	// Programs is the folder with the programs that build.sh made.
	Programs string

	logs   string
	place  place
	shared bool         // its place is the machine's own: see NewLoopback
	off    func() error // takes its place away

	mu      sync.Mutex
	running []*Process
}

// NodeConfig describes a node to [Network.Node].
type NodeConfig struct {
	Name      string         // name of the node
	Root      string         // absolute path of the folder that is its "/"
	Addresses []netip.Prefix // its addresses, with the length of the network's prefix
	Programs  string         // absolute path of the folder that build.sh filled
	Logs      string         // absolute path of an existing folder, for the logs of its components
	// Hosts are further names that the node resolves.
	Hosts map[string]netip.Addr
	// Handle is the absolute path of a file, made anew, by which other programs
	// can enter the node's network; empty: none.
	Handle  string
	Machine bool // has the machine's programs, devices and kernel files too, as a kubelet needs them
}

// Node adds a node to the network. No component of it runs yet. Besides what
// stands in its root folder already, it gets what every machine has and the
// components expect: /etc/hosts and /tmp.
func (n *Network) Node(c NodeConfig) (*Node, error) {
	if err := machineFiles(c); err != nil {
		return nil, fmt.Errorf("node %s: %w", c.Name, err)
	}
	node := &Node{Name: c.Name, Root: c.Root, Programs: c.Programs, logs: c.Logs}
	if n.shared != nil {
		node.place, node.shared, node.off = n.shared, true, n.shared.close
	} else {
		ns, off, err := n.namespaceOf(c)
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", c.Name, errors.Join(err, off()))
		}
		node.place, node.off = ns, off
	}
	n.nodes = append(n.nodes, node)
	return node, nil
}

// namespaceOf makes what is a node's own. What was done is undone by off, which
// is to be called after an error too.
func (n *Network) namespaceOf(c NodeConfig) (ns *namespace, off func() error, err error) {
	var undo []func() error
	off = func() error {
		var errs []error
		for _, f := range slices.Backward(undo) {
			errs = append(errs, f())
		}
		return errors.Join(errs...)
	}
	if ns, err = newNamespace(); err != nil {
		return nil, off, err
	}
	undo = append(undo, ns.close)
	if c.Handle != "" {
		if err := ns.mount(c.Handle); err != nil {
			return nil, off, err
		}
	}
	port := fmt.Sprintf("port%d", len(n.nodes))
	undo = append(undo, func() error { return unplug(port) })
	if err := n.plug(ns, port, c.Addresses); err != nil || !c.Machine {
		return ns, off, err
	}
	undo = append(undo, func() error { return UnmountMachine(c.Root) })
	return ns, off, MountMachine(c.Root, c.Programs)
}

func machineFiles(c NodeConfig) error {
	if err := os.MkdirAll(filepath.Join(c.Root, "tmp"), 0o700); err != nil {
		return err
	}
	etc := filepath.Join(c.Root, "etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return err
	}
	hosts := "127.0.0.1 localhost\n::1 localhost\n"
	for _, a := range c.Addresses {
		hosts += fmt.Sprintf("%s %s\n", a.Addr(), c.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Hosts)) {
		if name != c.Name {
			hosts += fmt.Sprintf("%s %s\n", c.Hosts[name], name)
		}
	}
	return os.WriteFile(filepath.Join(etc, "hosts"), []byte(hosts), 0o644)
}

// Dial connects from the node, so that 127.0.0.1 is the node's own. The
// address must be an IP address with a port.
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return n.place.dial(ctx, network, address)
}

// Listen listens on the node, so that 127.0.0.1 is the node's own. The address
// must be an IP address with a port, which may be 0.
func (n *Node) Listen(network, address string) (net.Listener, error) {
	var listener net.Listener
	err := n.place.do(func() (err error) {
		listener, err = net.Listen(network, address)
		return err
	})
	return listener, err
}

// Launch starts a command in the node's network, but with nothing else of the
// node: its root folder, say, is for the caller to set. The command must not
// have been started, and does not end with the node.
func (n *Node) Launch(cmd *exec.Cmd) error { return n.place.do(cmd.Start) }

// Client returns an HTTP client that calls from the node, with a transport of
// its own that the caller may change.
func (n *Node) Client() (*http.Client, *http.Transport) {
	transport := &http.Transport{DialContext: n.Dial, ForceAttemptHTTP2: true}
	return &http.Client{Transport: transport}, transport
}

// Start starts a component of the node from the argument list of its
// static-pod manifest, unchanged but for more arguments at its end. The
// component sees the node's root folder as "/", the node's network as its own,
// and no environment. Its output goes to NODE-COMPONENT.log in the logs folder.
// Start does not wait: see [Process.Ready].
func (n *Node) Start(component string, more ...string) (*Process, error) {
	manifest, err := ReadManifest(n.Root, component)
	if err != nil {
		return nil, err
	}
	manifest.Command = append(slices.Clone(manifest.Command), more...)
	return n.Run(manifest)
}

// Run starts a component as [Node.Start] does, from a description that need not
// stand in a file.
func (n *Node) Run(manifest *Manifest) (*Process, error) {
	p := &Process{Manifest: manifest, node: n, log: filepath.Join(n.logs, n.Name+"-"+manifest.Name+".log")}
	if err := p.start(); err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", manifest.Name, n.Name, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.running = slices.DeleteFunc(n.running, func(p *Process) bool { return p.runs() != nil })
	n.running = append(n.running, p)
	return p, nil
}

// close switches the node off: it kills what runs on it, and takes its network
// away.
func (n *Node) close() error {
	var errs []error
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.running {
		errs = append(errs, p.Kill())
	}
	n.running = nil
	return errors.Join(append(errs, n.off())...)
}
