package mtlsgrpc_test

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/mtlsgrpc"
)

func TestCallsAreJudged(t *testing.T) {
	ca, foreign := tlstest.Authority(t, "ca"), tlstest.Authority(t, "ca")
	rows := map[string]struct {
		client       *tls.Certificate
		authorizer   mtls.Authorizer
		code         codes.Code
		told, logged string
	}{
		"who may":                         {leaf(t, ca, "jane"), mtls.UserNamed("jane"), codes.OK, "", ""},
		"who may not":                     {leaf(t, ca, "john"), mtls.UserNamed("jane"), codes.PermissionDenied, "not allowed", "is none of"},
		"everybody, without authorizer":   {leaf(t, ca, "jane"), nil, codes.PermissionDenied, "not allowed", "no authorizer"},
		"who shows nothing":               {nil, mtls.Anyone(), codes.Unauthenticated, "a client certificate is needed", "no certificate"},
		"who is of another authority":     {leaf(t, foreign, "jane"), mtls.Anyone(), codes.Unauthenticated, "the client certificate is not accepted", "unknown authority"},
		"whose certificate has expired":   {leaf(t, ca, "jane", tlstest.Expired), mtls.Anyone(), codes.Unauthenticated, "the client certificate is not accepted", "expired"},
		"whose certificate is a server's": {leaf(t, ca, "jane", tlstest.For(forServers)), mtls.Anyone(), codes.Unauthenticated, "the client certificate is not accepted", "incompatible key usage"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			its, mine := tlstest.Snapshot(t, leaf(t, ca, "server"), ca), tlstest.Snapshot(t, row.client, ca)
			w := &world{source: its, clients: mtls.UnverifiedClients, guard: &mtlsgrpc.Guard{Source: its, Allow: row.authorizer}}
			w.serve(t)
			client := w.dial(t, mine, nil)
			user, err := call(t, client)
			check := func(kind, user string, err error) {
				t.Helper()
				if s := status.Convert(err); s.Code() != row.code || s.Message() != row.told || len(s.Details()) > 0 {
					t.Errorf("%s: %v", kind, err)
				}
				if err == nil && user != "jane" {
					t.Errorf("%s: the handler sees %q", kind, user)
				}
			}
			check("a call", user, err)
			user, err = exchange(t, client)
			check("a stream", user, err)
			want := 2 // refusals
			switch {
			case row.code == codes.OK:
				want = 0
			case row.told == "the client certificate is not accepted":
				want = 1 // of the connection, whatever is called on it
			}
			if got := w.log.String(); strings.Count(got, "client refused") != want || !strings.Contains(got, row.logged) || strings.Count(got, "method=/grpc.testing.TestService/") != want {
				t.Errorf("the log says %s", got)
			}
		})
	}
}

// exchange sends a message in a stream of its own.
func exchange(t testing.TB, c grpc_testing.TestServiceClient) (string, error) {
	t.Helper()
	s, err := c.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ping(s)
}

type duplex = grpc.BidiStreamingClient[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]

func ping(s duplex) (string, error) {
	_ = s.Send(&grpc_testing.StreamingOutputCallRequest{}) // why it fails is what Recv says
	answer, err := s.Recv()
	return string(answer.GetPayload().GetBody()), err
}

type nothing struct{}

func (nothing) Snapshot() (*mtls.Snapshot, error) { return nil, errors.New("the disk is away") }

// What the server lacks is not the client's fault, and lets nobody in.
func TestCallsThatCannotBeJudged(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	its, mine := tlstest.Snapshot(t, leaf(t, ca, "server"), ca), tlstest.Snapshot(t, leaf(t, ca, "jane"), ca)
	for logged, source := range map[string]mtls.Source{"the disk is away": nothing{}, "no bundle": &mtls.Snapshot{}} {
		w := &world{source: its, clients: mtls.RequireClients, guard: &mtlsgrpc.Guard{Source: source, Allow: mtls.Anyone()}}
		w.serve(t)
		_, err := call(t, w.dial(t, mine, nil))
		if status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), logged) || !strings.Contains(w.log.String(), logged) {
			t.Errorf("%v; the log says %s", err, &w.log)
		}
	}
}

func TestWithoutTLSNobodyIsLetIn(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	its := tlstest.Snapshot(t, nil, ca)
	var log output
	server := grpc.NewServer(grpc.UnaryInterceptor(mtlsgrpc.Unary(its, mtls.Anyone(), log.logger())), grpc.StreamInterceptor(mtlsgrpc.Stream(its, mtls.Anyone(), log.logger())))
	grpc_testing.RegisterTestServiceServer(server, service{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(server.Stop)
	w := &world{address: l.Addr().String()}
	client := w.dial(t, its, nil, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if _, err := call(t, client); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a call: %v", err)
	}
	if _, err := exchange(t, client); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a stream: %v", err)
	}
}

// Streams and calls go on while both sides' leaves and the authority are
// replaced, and who comes anew sees the newest.
func TestRotationLosesNoCall(t *testing.T) {
	r := newRotation(t)
	r.serve(t)
	traffic := &traffic{stop: make(chan struct{})}
	defer traffic.all.Wait()
	defer close(traffic.stop)
	for range 2 {
		s := open(t, r.dial(t, &r.mine, nil))
		traffic.run(t, func() error { // in a stream that stands all the while
			_, err := ping(s)
			return err
		})
		traffic.run(t, func() error { // by a connection for each call
			conn, err := grpc.NewClient(r.address, grpc.WithTransportCredentials(mtlsgrpc.ClientCredentials(&r.mine, nil)))
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = grpc_testing.NewTestServiceClient(conn).UnaryCall(t.Context(), &grpc_testing.SimpleRequest{})
			return err
		})
	}
	for i, step := range r.steps(t) {
		step()
		if traffic.flows(5); t.Failed() {
			t.Fatalf("step %d", i)
		}
	}
	if user, err := call(t, r.dial(t, &r.mine, nil)); err != nil || user != "jane-2" {
		t.Errorf("in the end %q calls: %v", user, err)
	}
}

// traffic is calls that are made all the while.
type traffic struct {
	stop   chan struct{}
	all    sync.WaitGroup
	made   []*atomic.Int64 // by each
	failed atomic.Bool
}

func (l *traffic) run(t *testing.T, call func() error) {
	made := &atomic.Int64{}
	l.made = append(l.made, made)
	l.all.Go(func() {
		for {
			select {
			case <-l.stop:
				return
			default:
			}
			if err := call(); err != nil {
				t.Error(err)
				l.failed.Store(true)
				return
			}
			made.Add(1)
		}
	})
}

// flows waits until everybody has made some more calls.
func (l *traffic) flows(n int64) {
	for _, made := range l.made {
		for before := made.Load(); made.Load() < before+n && !l.failed.Load(); {
			time.Sleep(time.Millisecond)
		}
	}
}

// An authority that is taken out of use takes the calls of its clients with it,
// on connections that stand too.
func TestCallsOnAStandingConnection(t *testing.T) {
	r := newRotation(t)
	r.serve(t)
	client := r.dial(t, &r.mine, nil)
	if user, err := call(t, client); err != nil || user != "jane-1" {
		t.Fatalf("%q: %v", user, err)
	}
	set(t, &r.server, leaf(t, r.old, "server-1"), r.new)
	_, err := call(t, client)
	if s := status.Convert(err); s.Code() != codes.Unauthenticated || s.Message() != "the client certificate is not accepted" {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(r.log.String(), "unknown authority") {
		t.Errorf("the log says %s", &r.log)
	}
	set(t, &r.server, leaf(t, r.old, "server-1"), r.old)
	if _, err := call(t, client); err != nil {
		t.Errorf("trusted again: %v", err)
	}
}

// Streams of a client that is no longer good end, whatever the handler returns;
// those of others, and those that nobody can judge now, go on.
func TestStreamsAreJudgedAgain(t *testing.T) {
	r := newRotation(t)
	r.guard.Again = 10 * time.Millisecond
	var source broken
	source.Source = &r.server
	r.guard.Source = &source
	r.serve(t)
	set(t, &r.server, leaf(t, r.old, "server-1"), r.old, r.new)
	second := tlstest.Snapshot(t, leaf(t, r.new, "jane-2"), r.old)
	old, other := r.dial(t, &r.mine, nil), r.dial(t, second, nil)

	waits, err := old.StreamingOutputCall(t.Context(), &grpc_testing.StreamingOutputCallRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := waits.Recv(); err != nil {
		t.Fatal(err)
	}
	pings, stays := open(t, old), open(t, other)

	source.broken.Store(true)
	time.Sleep(50 * time.Millisecond)
	source.broken.Store(false)
	if _, err := ping(pings); err != nil {
		t.Fatalf("while the source had an error: %v", err)
	}

	set(t, &r.server, leaf(t, r.old, "server-1"), r.new)
	ends := func(kind string, err error) {
		t.Helper()
		if s := status.Convert(err); s.Code() != codes.Unauthenticated || s.Message() != "the client certificate is not accepted" {
			t.Errorf("%s: %v", kind, err)
		}
	}
	_, err = waits.Recv()
	ends("a handler that waits for its context", err)
	_, err = pings.Recv()
	ends("a handler that waits for messages", err)
	_, err = exchange(t, old)
	ends("a stream that begins", err)
	if _, err := ping(stays); err != nil {
		t.Errorf("the stream of a client that is good: %v", err)
	}
}

func open(t testing.TB, c grpc_testing.TestServiceClient) duplex {
	t.Helper()
	s, err := c.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ping(s); err != nil {
		t.Fatal(err)
	}
	return s
}

// broken is a source that has an error at times.
type broken struct {
	mtls.Source
	broken atomic.Bool
}

func (b *broken) Snapshot() (*mtls.Snapshot, error) {
	if b.broken.Load() {
		return nothing{}.Snapshot()
	}
	return b.Source.Snapshot()
}

// Both sides close what is no longer good, and the next call is made by the
// newest.
func TestConnectionsAreClosed(t *testing.T) {
	for name, server := range map[string]bool{"by the server": true, "by the client": false} {
		t.Run(name, func(t *testing.T) {
			r := newRotation(t)
			watched := mtls.NewConnections(&r.mine, nil)
			if server {
				watched = mtls.NewConnections(&r.server, nil)
				r.watch = watched
			}
			r.serve(t)
			var client grpc_testing.TestServiceClient
			if server {
				client = r.dial(t, &r.mine, nil)
			} else {
				client = r.dial(t, nil, nil, grpc.WithTransportCredentials(mtlsgrpc.WatchedCredentials(watched, nil)))
			}
			stands := open(t, client)
			closed := 0
			for i, step := range r.steps(t) {
				step()
				closed += watched.CloseStale()
				if early := i < 5; early && closed > 0 {
					t.Fatalf("closed at step %d, while all is well", i)
				}
			}
			if closed != 1 {
				t.Errorf("%d connections are closed", closed)
			}
			if _, err := ping(stands); status.Code(err) != codes.Unavailable {
				t.Errorf("the stream of before: %v", err)
			}
			answer, err := client.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{}, grpc.WaitForReady(true))
			if err != nil || answer.GetUsername() != "jane-2" || watched.Len() != 1 {
				t.Errorf("the next call is %q's: %v; %d connections", answer.GetUsername(), err, watched.Len())
			}
		})
	}
}

// A handshake that fails leaves nothing behind.
func TestConnectionsForgetFailedHandshakes(t *testing.T) {
	r := newRotation(t)
	r.watch = mtls.NewConnections(&r.server, nil)
	r.serve(t)
	strange := tlstest.Snapshot(t, leaf(t, r.new, "jane"), r.new)
	near := mtls.NewConnections(strange, nil)
	if _, err := call(t, r.dial(t, nil, nil, grpc.WithTransportCredentials(mtlsgrpc.WatchedCredentials(near, nil)))); err == nil {
		t.Fatal("let in")
	}
	for range 1000 {
		if near.Len()+r.watch.Len() == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("%d and %d connections are left", near.Len(), r.watch.Len())
}
