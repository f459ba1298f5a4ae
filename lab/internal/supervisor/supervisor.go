package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

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
	if s.wanted.WithoutKubelets {
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
			_ = server.Close()
		}
	})
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		s.Log.Error("serve", "address", listener.Addr().String(), "error", err)
	}
}
