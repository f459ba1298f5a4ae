package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/cluster"
	"github.com/kubepki/kubepki/lab/internal/cri"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
	"github.com/kubepki/kubepki/lab/internal/objects"
)

// Options say what to run.
type Options struct {
	Folder   cluster.Folder
	Programs string // absolute path of the folder that build.sh filled
	// Proxy listens on the loopback of the machine outside. Nil: no way in but
	// by [Client] and by entering the namespaces.
	Proxy net.Listener
	Log   *slog.Logger
}

// Supervisor runs one cluster.
type Supervisor struct {
	Options
	wanted   cluster.Wanted
	spec     *catalog.Cluster
	machines []cluster.Machine
	network  *lab.Network
	nodes    map[string]*lab.Node
	units    []*unit
	started  time.Time
	down     context.CancelFunc

	serving chan struct{} // closed when an API server was ready for the first time
	joining chan struct{} // closed when nodes may join, and join is set
	join    *kubelet.Join

	runtimes map[string]*cri.Server // by node
	values   objects.Values         // of what runs in pods

	mu       sync.Mutex
	setup    string // what keeps the cluster from being set up; empty: nothing
	setupEnd bool
}

// Run runs the cluster of a folder until the context ends or a client says so.
// It must be called inside the lab's namespaces.
func Run(ctx context.Context, o Options) error {
	wanted, err := o.Folder.Wanted()
	if err != nil {
		return err
	}
	spec, err := wanted.Cluster()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &Supervisor{
		Options: o, wanted: wanted, spec: spec, machines: cluster.Machines(spec), nodes: map[string]*lab.Node{},
		started: time.Now(), down: cancel, setup: "waiting for an API server",
		serving: make(chan struct{}), joining: make(chan struct{}),
	}
	if s.wanted.Loopback {
		for i := range s.machines {
			s.machines[i].Kubelet = false
		}
	}
	return s.run(ctx)
}

func (s *Supervisor) run(ctx context.Context) error {
	if err := s.makeNetwork(); err != nil {
		return err
	}
	err := s.prepareServers(ctx)
	if err == nil {
		err = s.startRuntimes()
	}
	if err == nil {
		err = s.runAll(ctx)
	}
	for _, r := range s.runtimes {
		err = errors.Join(err, r.Close())
	}
	return errors.Join(err, s.network.Close())
}

// startRuntimes starts a container runtime for each node with a kubelet.
func (s *Supervisor) startRuntimes() error {
	s.runtimes = map[string]*cri.Server{}
	for _, m := range s.machines {
		if !m.Kubelet {
			continue
		}
		runtime, err := cri.Start(s.nodes[m.Name], m.Address)
		if err != nil {
			return fmt.Errorf("container runtime of %s: %w", m.Name, err)
		}
		s.runtimes[m.Name] = runtime
	}
	return nil
}

// makeNetwork makes the network, and a node for each machine.
func (s *Supervisor) makeNetwork() error {
	hosts := cluster.Hosts(s.spec)
	if s.wanted.Loopback {
		s.network = lab.NewLoopback()
	} else {
		if err := s.resolve(hosts); err != nil {
			return err
		}
		var err error
		if s.network, err = lab.NewNetwork(cluster.Administrator...); err != nil {
			return err
		}
	}
	for _, m := range s.machines {
		node, err := s.network.Node(lab.NodeConfig{
			Name: m.Name, Root: s.Folder.Root(m.Name), Programs: s.Programs, Logs: s.Folder.Logs(),
			Addresses: []netip.Prefix{netip.PrefixFrom(m.Address, m.Address.BitLen())},
			Hosts:     hosts, Handle: s.Folder.Network(m.Name), Machine: true,
		})
		if err != nil {
			return errors.Join(err, s.network.Close())
		}
		s.nodes[m.Name] = node
	}
	return nil
}

// resolve makes the cluster's names known to whoever stands beside the nodes, by
// a hosts file that is seen inside the lab alone.
func (s *Supervisor) resolve(hosts map[string]netip.Addr) error {
	own, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for name, address := range hosts {
		own = fmt.Appendf(own, "%s %s\n", address, name)
	}
	file := filepath.Join(s.Folder.Run(), "hosts")
	if err := os.WriteFile(file, own, 0o644); err != nil {
		return err
	}
	err = unix.Mount(file, "/etc/hosts", "", unix.MS_BIND, "")
	if errors.Is(err, unix.ENOENT) {
		return nil // a machine without the file: then names of nodes are not resolved beside them
	}
	if err != nil {
		return fmt.Errorf("mount %s at /etc/hosts: %w", file, err)
	}
	return nil
}

// runAll runs everything and returns when the context has ended and everything
// that was started has.
func (s *Supervisor) runAll(ctx context.Context) error {
	control, err := listenControl(s.Folder)
	if err != nil {
		return err
	}
	if err := s.writeKubeconfig(); err != nil {
		return err
	}
	s.units = s.plan()
	var servers, etcd, others sync.WaitGroup
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	servers.Go(func() { s.serveHTTP(serving, control, s.handler()) })
	if s.Proxy != nil {
		servers.Go(func() { s.serveHTTP(serving, s.Proxy, &proxy{dial: new(net.Dialer).DialContext}) })
	}
	failed := s.balance(serving, &servers)
	if failed != nil {
		s.down() // nobody could reach the control plane
	}
	others.Go(func() { s.setUp(ctx) })
	// etcd ends last: the others say goodbye to it.
	storing, stopStoring := context.WithCancel(context.WithoutCancel(ctx))
	for _, u := range s.units {
		if u.component == "etcd" {
			etcd.Go(func() { u.run(storing) })
		} else {
			others.Go(func() { u.run(ctx) })
		}
	}
	<-ctx.Done()
	others.Wait()
	stopStoring()
	etcd.Wait()
	stopServing()
	servers.Wait()
	return failed
}

// serveHTTP serves until the context ends.
func (s *Supervisor) serveHTTP(ctx context.Context, listener net.Listener, handler http.Handler) {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() {
		// The answer to the one who said "down" is still to be sent.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(last) != nil {
			server.Close()
		}
	})
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		s.Log.Error("serve", "address", listener.Addr().String(), "error", err)
	}
}

// balance starts the load balancer if the cluster has one.
func (s *Supervisor) balance(ctx context.Context, running *sync.WaitGroup) error {
	address, behind, ok := cluster.Endpoint(s.spec)
	if !ok {
		return nil
	}
	node := s.nodes["lb"]
	listener, err := node.Listen("tcp", address)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	b := &balancer{dial: node.Dial, behind: behind, ready: s.apiserverReady}
	running.Go(func() {
		if err := b.serve(ctx, listener); err != nil {
			s.Log.Error("load balancer", "error", err)
		}
	})
	return nil
}

// apiserverReady tells whether the API server at an address, HOST:PORT, is ready.
func (s *Supervisor) apiserverReady(address string) bool {
	for i, n := range s.spec.ControlPlanes {
		if net.JoinHostPort(n.Address.String(), strconv.Itoa(n.BindPort)) != address {
			continue
		}
		for _, u := range s.find(s.spec.ControlPlanes[i].Name + "/kube-apiserver") {
			u.mu.Lock()
			defer u.mu.Unlock()
			return u.ready
		}
	}
	return false
}

// plan lists the components, in the order in which they are shown.
func (s *Supervisor) plan() []*unit {
	now := make(chan struct{})
	close(now)
	var units []*unit
	for _, m := range s.machines {
		node := s.nodes[m.Name]
		for _, component := range m.Static {
			after := s.serving
			if component == "etcd" || component == "kube-apiserver" {
				after = now
			}
			units = append(units, newUnit(node, component, after, func() (*lab.Manifest, error) { return s.static(m, component) }))
		}
		if m.Kubelet {
			units = append(units, s.kubelet(m))
		}
	}
	return units
}

// kubelet is the kubelet of a node. That of a worker waits for a token. Control
// planes are kept free of other pods, unless there is no other place.
func (s *Supervisor) kubelet(m cluster.Machine) *unit {
	node, after := s.nodes[m.Name], s.serving
	if m.Role == cluster.Worker {
		after = s.joining
	}
	u := newUnit(node, "kubelet", after, func() (*lab.Manifest, error) {
		c := kubelet.Config{Name: m.Name, Addresses: []netip.Addr{m.Address}, ControlPlane: m.Role == cluster.ControlPlane && len(s.spec.Workers) > 0}
		if m.Role == cluster.Worker {
			c.Join = s.join
		}
		return kubelet.Prepare(node.Root, c)
	})
	u.serves = netip.AddrPortFrom(m.Address, kubeletPort).String()
	return u
}

// kubeletPort is the kubelet's default.
const kubeletPort = 10250

// static describes a component by its static-pod manifest.
func (s *Supervisor) static(m cluster.Machine, component string) (*lab.Manifest, error) {
	manifest, err := lab.ReadManifest(s.Folder.Root(m.Name), component)
	if err != nil {
		return nil, err
	}
	if component == "etcd" {
		// It survives the end of its process, and need not survive a power cut.
		manifest.Command = append(manifest.Command, "--unsafe-no-fsync")
	}
	if s.wanted.Loopback {
		onLoopback(manifest, s.Folder.Root(m.Name), m.Address)
	}
	return manifest, nil
}

// find returns the units of a name: COMPONENT, NODE, or NODE/COMPONENT.
func (s *Supervisor) find(name string) []*unit {
	var found []*unit
	for _, u := range s.units {
		if name == u.component || name == u.node.Name || name == u.node.Name+"/"+u.component {
			found = append(found, u)
		}
	}
	return found
}
