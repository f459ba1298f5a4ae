package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridgeName is the bridge that all nodes are plugged into.
const bridgeName = "lab0"

// Network is the cluster's network: a bridge in the program's own network
// namespace. The program itself stands on it with an address of its own, as an
// administrator's machine would. It is not safe for concurrent use.
type Network struct {
	bridge *netlink.Bridge // nil: on loopback
	shared *machine        // on loopback, else nil
	nodes  []*Node
}

// NewNetwork makes the network and gives the program the addresses of itself, on a
// machine without IPv6 those of IPv4 alone.
// The program must have been started by [Main].
func NewNetwork(itself ...netip.Prefix) (*Network, error) {
	if !Inside() {
		return nil, errors.New("a network can only be made inside the lab's namespaces: call lab.Main first")
	}
	n := &Network{bridge: &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}}
	if err := netlink.LinkAdd(n.bridge); err != nil {
		return nil, fmt.Errorf("add bridge %s: %w", bridgeName, err)
	}
	if err := up("lo"); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	if !hasIPv6() {
		itself = slices.DeleteFunc(slices.Clone(itself), func(p netip.Prefix) bool { return p.Addr().Is6() })
	}
	if err := up(bridgeName, itself...); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	if err := reachAll(bridgeName); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// AddAddresses gives the program itself more addresses.
func (n *Network) AddAddresses(addresses ...netip.Prefix) error { return up(bridgeName, addresses...) }

// Close switches every node off and takes the network away. Components that
// should end in order are to be stopped before by [Process.Stop].
func (n *Network) Close() error {
	var errs []error
	for _, node := range n.nodes {
		errs = append(errs, node.close())
	}
	n.nodes = nil
	if n.shared != nil {
		close(n.shared.work)
		return errors.Join(errs...)
	}
	if err := netlink.LinkDel(n.bridge); err != nil {
		errs = append(errs, fmt.Errorf("delete bridge %s: %w", bridgeName, err))
	}
	return errors.Join(errs...)
}

// namespace is a network namespace that threads can enter.
type namespace struct {
	file   *os.File
	handle string // a file that it is mounted on, for other programs to enter; may be empty
}

// mount makes the namespace known to others by a file, as ip-netns(8) does.
func (ns *namespace) mount(handle string) error {
	if err := os.WriteFile(handle, nil, 0o600); err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.file.Fd()), handle, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount a network namespace at %s: %w", handle, err)
	}
	ns.handle = handle
	return nil
}

// close gives the namespace up. It ends with the last process in it.
func (ns *namespace) close() error {
	var err error
	if ns.handle != "" {
		err = errors.Join(unix.Unmount(ns.handle, unix.MNT_DETACH), os.Remove(ns.handle))
	}
	return errors.Join(err, ns.file.Close())
}

// newNamespace makes an empty network namespace.
func newNamespace() (*namespace, error) {
	ns := &namespace{}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		var err error
		ns.file, err = os.Open(currentNamespace)
		return err
	})
	return ns, err
}

// currentNamespace is the network namespace of the calling thread.
const currentNamespace = "/proc/thread-self/ns/net"

// do calls f on a thread that stands in the namespace. Sockets and processes
// that f makes belong to the namespace for good.
func (ns *namespace) do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// onThread calls f on a thread of its own, which ends after it, so that what f
// does to the thread's namespaces cannot leak into other goroutines.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		done <- f()
	}()
	return <-done
}

// plug joins the namespace to the bridge by a pair of interfaces: eth0 on the
// node's side, with its addresses, and port on the bridge's side.
func (n *Network) plug(ns *namespace, port string, addresses []netip.Prefix) error {
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: port + "p"}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("add interfaces %s: %w", port, err)
	}
	if err := netlink.LinkSetMaster(pair, n.bridge); err != nil {
		return fmt.Errorf("plug %s into %s: %w", port, bridgeName, err)
	}
	peer, err := netlink.LinkByName(pair.PeerName)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", pair.PeerName, err)
	}
	if err := netlink.LinkSetNsFd(peer, int(ns.file.Fd())); err != nil {
		return fmt.Errorf("move interface %s to its node: %w", pair.PeerName, err)
	}
	if err := up(port); err != nil {
		return err
	}
	return ns.do(func() error {
		if err := up("lo"); err != nil {
			return err
		}
		inside, err := netlink.LinkByName(pair.PeerName)
		if err != nil {
			return fmt.Errorf("find interface %s: %w", pair.PeerName, err)
		}
		if err := netlink.LinkSetName(inside, "eth0"); err != nil {
			return fmt.Errorf("name interface %s: %w", pair.PeerName, err)
		}
		if err := up("eth0", addresses...); err != nil {
			return err
		}
		return reachAll("eth0")
	})
}

// unplug removes a pair of interfaces if it is there. The kernel would do so by
// itself, but only some time after the last process of the node has ended.
func unplug(port string) error {
	link, err := netlink.LinkByName(port)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find interface %s: %w", port, err)
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("delete interface %s: %w", port, err)
	}
	return nil
}

// up switches an interface of the thread's namespace on and gives it addresses.
func up(name string, addresses ...netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	for _, a := range addresses {
		address := &netlink.Addr{IPNet: &net.IPNet{
			IP:   a.Addr().AsSlice(),
			Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen()),
		}}
		if a.Addr().Is6() {
			// Else the address is tentative for a second and cannot be bound.
			address.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(link, address); err != nil {
			return fmt.Errorf("add address %s to %s: %w", a, name, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("switch on interface %s: %w", name, err)
	}
	return nil
}

// hasIPv6 tells whether the machine's kernel has IPv6.
func hasIPv6() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return err == nil
}

// reachAll makes every address a neighbour at the interface, so that nodes of a
// configuration need not be in one subnet. Services need it too: what is dialled
// must have a route before kube-proxy's rules put an endpoint in its place.
func reachAll(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	everything := []string{"0.0.0.0/0"}
	if hasIPv6() {
		everything = append(everything, "::/0")
	}
	for _, all := range everything {
		_, destination, err := net.ParseCIDR(all)
		if err != nil {
			return err
		}
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: destination, Scope: netlink.SCOPE_LINK}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("add the route to %s at %s: %w", all, name, err)
		}
	}
	return nil
}

// dial connects from within the namespace.
func (ns *namespace) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := ns.do(func() error {
		var err error
		// One address family at a time: a dialler that races two would leave
		// this thread.
		conn, err = (&net.Dialer{FallbackDelay: -1}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}
