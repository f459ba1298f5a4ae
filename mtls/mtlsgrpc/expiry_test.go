package mtlsgrpc_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/mtlsgrpc"
)

// A certificate that expires takes its calls and streams with it, on a connection
// that goes on.
func TestCertificateExpiresOnAStandingConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.Authority(t, "ca")
		its := tlstest.Snapshot(t, leaf(t, ca, "server"), ca)
		mine := tlstest.Snapshot(t, leaf(t, ca, "jane", func(c *issue.Template) { c.NotAfter = time.Now().Add(time.Minute) }), ca)
		var log output
		guard := &mtlsgrpc.Guard{Source: its, Allow: mtls.Anyone(), Again: 10 * time.Second, Log: log.logger()}
		server := grpc.NewServer(
			grpc.Creds(mtlsgrpc.ServerCredentials(its, mtls.RequireClients, log.logger())), grpc.UnaryInterceptor(guard.Unary), grpc.StreamInterceptor(guard.Stream),
		)
		grpc_testing.RegisterTestServiceServer(server, service{})
		l := bufconn.Listen(1 << 16)
		go server.Serve(l)
		defer server.Stop()
		dial := func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }
		conn, err := grpc.NewClient("passthrough:///server.example.test", grpc.WithContextDialer(dial), grpc.WithTransportCredentials(mtlsgrpc.ClientCredentials(mine, nil)))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		client := grpc_testing.NewTestServiceClient(conn)

		stands := open(t, client)
		began := time.Now()
		time.Sleep(59 * time.Second)
		if _, err := ping(stands); err != nil {
			t.Errorf("before the end, in a stream: %v", err)
		}
		if _, err := client.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{}); err != nil {
			t.Errorf("before the end: %v", err)
		}
		time.Sleep(2 * time.Second)
		if _, err := client.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{}); status.Code(err) != codes.Unauthenticated || strings.Contains(err.Error(), "expired") {
			t.Errorf("after the end: %v", err)
		}
		if _, err := stands.Recv(); status.Code(err) != codes.Unauthenticated {
			t.Errorf("after the end, in a stream: %v", err)
		}
		if took := time.Since(began); took > 71*time.Second {
			t.Errorf("the stream ended after %s", took)
		}
		if got := log.String(); strings.Count(got, "expired") != 2 || strings.Contains(got, "handshake failed") {
			t.Errorf("the log says %s", got)
		}
	})
}
