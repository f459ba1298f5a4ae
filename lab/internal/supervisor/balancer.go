package supervisor

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubepki/kubepki/lab/internal/cluster"
)

// dialWait is for one API server behind the balancer: it is on this machine.
const dialWait = 2 * time.Second

// balancer hands each connection to one of the API servers, in turn, and to the
// next when one does not answer. It sees nothing but bytes: TLS is between the
// client and the API server.
type balancer struct {
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	behind []string
	// ready tells whether an API server takes new clients: one may listen before
	// it knows its users, and still listen when it is about to end.
	ready func(address string) bool
	turn  atomic.Uint32
}

// serve accepts until the listener is closed, and returns when every connection
// has ended; closing ctx closes them.
func (b *balancer) serve(ctx context.Context, listener net.Listener) error {
	var connections sync.WaitGroup
	defer connections.Wait()
	for {
		client, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		connections.Go(func() { b.connect(ctx, client) })
	}
}

func (b *balancer) connect(ctx context.Context, client net.Conn) {
	defer client.Close()
	server, err := b.choose(ctx)
	if err != nil {
		return // the client sees a closed connection, as behind any balancer
	}
	join(ctx, client, server)
}

// choose connects to the first API server in turn that answers, one that is ready
// if there is one.
func (b *balancer) choose(ctx context.Context) (net.Conn, error) {
	first := int(b.turn.Add(1)) % len(b.behind)
	inTurn := slices.Concat(b.behind[first:], b.behind[:first])
	notReady := slices.DeleteFunc(slices.Clone(inTurn), b.ready)
	inTurn = append(slices.DeleteFunc(inTurn, func(a string) bool { return slices.Contains(notReady, a) }), notReady...)
	var errs []error
	for _, address := range inTurn {
		ctx, cancel := context.WithTimeout(ctx, dialWait)
		conn, err := b.dial(ctx, "tcp", address)
		cancel()
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// join copies in both directions until both sides have said all, one has failed,
// or the context ends, and closes the server's side.
func join(ctx context.Context, client, server net.Conn) {
	defer server.Close()
	stop := context.AfterFunc(ctx, func() { client.Close(); server.Close() })
	defer stop()
	var copies sync.WaitGroup
	for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
		copies.Go(func() {
			to, from := pair[0], pair[1]
			_, err := io.Copy(to, from)
			half, ok := to.(interface{ CloseWrite() error })
			if err != nil || !ok || half.CloseWrite() != nil {
				client.Close()
				server.Close()
			}
		})
	}
	copies.Wait()
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
	context.AfterFunc(ctx, func() { _ = listener.Close() })
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
	for _, n := range s.spec.ControlPlanes {
		if net.JoinHostPort(n.Address.String(), strconv.Itoa(n.BindPort)) != address {
			continue
		}
		return slices.ContainsFunc(s.find(n.Name+"/kube-apiserver"), (*unit).isReady)
	}
	return false
}
