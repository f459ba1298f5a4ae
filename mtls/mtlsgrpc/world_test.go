package mtlsgrpc_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/mtlsgrpc"
)

const (
	forServers = x509.ExtKeyUsageServerAuth
	forClients = x509.ExtKeyUsageClientAuth
)

// leaf makes a credential of a server at server.example.test and 127.0.0.1, and of
// the SPIFFE ID spiffe://example.test/NAME, but for what change says.
func leaf(t testing.TB, a issue.Authority, name string, change ...func(*issue.Template)) *tls.Certificate {
	t.Helper()
	usual := []func(*issue.Template){tlstest.In("tills"), tlstest.At("server.example.test", "127.0.0.1"), tlstest.For(forServers, forClients), func(x *issue.Template) {
		x.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.test", Path: "/" + name}}
	}}
	return tlstest.Leaf(t, a, name, append(usual, change...)...)
}

var elsewhere = tlstest.At("other.example.test", "127.0.0.2")

func set(t testing.TB, m *mtls.Memory, show *tls.Certificate, trusted ...issue.Authority) {
	t.Helper()
	if err := m.Set(*tlstest.Snapshot(t, show, trusted...)); err != nil {
		t.Fatal(err)
	}
}

// output is a log that tests read.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// wants waits for a text: the other side hears of its end before the log does.
func (o *output) wants(t testing.TB, text string) {
	t.Helper()
	for range 5000 {
		if strings.Contains(o.String(), text) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("the log says %q, want %q", o, text)
}

func (o *output) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(o, nil))
}

// service answers with the user of the call; of a stream, to each message.
type service struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (service) UnaryCall(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	return &grpc_testing.SimpleResponse{Username: caller(ctx)}, nil
}

func caller(ctx context.Context) string {
	client, ok := mtls.FromContext(ctx)
	if !ok {
		return ""
	}
	return client.Certificate.Subject.CommonName
}

func (service) FullDuplexCall(s grpc_testing.TestService_FullDuplexCallServer) error {
	for {
		if _, err := s.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.Send(&grpc_testing.StreamingOutputCallResponse{Payload: &grpc_testing.Payload{Body: []byte(caller(s.Context()))}}); err != nil {
			return err
		}
	}
}

// StreamingOutputCall sends one message and then waits, and says that all is well.
func (service) StreamingOutputCall(_ *grpc_testing.StreamingOutputCallRequest, s grpc_testing.TestService_StreamingOutputCallServer) error {
	if err := s.Send(&grpc_testing.StreamingOutputCallResponse{}); err != nil {
		return err
	}
	<-s.Context().Done()
	return nil
}

// world is a server, which knows what it has refused.
type world struct {
	address string
	log     output
	guard   *mtlsgrpc.Guard
	source  mtls.Source
	clients mtls.Clients
	watch   *mtls.Connections // nil: none
}

func (w *world) serve(t testing.TB) {
	t.Helper()
	options := []grpc.ServerOption{grpc.Creds(mtlsgrpc.ServerCredentials(w.source, w.clients, w.log.logger()))}
	if w.guard != nil {
		w.guard.Log = w.log.logger()
		options = append(options, grpc.UnaryInterceptor(w.guard.Unary), grpc.StreamInterceptor(w.guard.Stream))
	}
	server := grpc.NewServer(options...)
	grpc_testing.RegisterTestServiceServer(server, service{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = l.Addr().String()
	if w.watch != nil {
		l = w.watch.Listener(l)
	}
	served := make(chan error)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func (w *world) dial(t testing.TB, s mtls.Source, a mtls.Authorizer, options ...grpc.DialOption) grpc_testing.TestServiceClient {
	t.Helper()
	options = append([]grpc.DialOption{grpc.WithTransportCredentials(mtlsgrpc.ClientCredentials(s, a))}, options...)
	conn, err := grpc.NewClient(w.address, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return grpc_testing.NewTestServiceClient(conn)
}

// call makes one call, and returns who the server says called.
func call(t testing.TB, c grpc_testing.TestServiceClient, options ...grpc.CallOption) (string, error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	answer, err := c.UnaryCall(ctx, &grpc_testing.SimpleRequest{}, options...)
	return answer.GetUsername(), err
}
