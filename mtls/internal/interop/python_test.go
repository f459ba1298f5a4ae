package interop_test

import (
	"bufio"
	"crypto/x509"
	"log/slog"
	"net"
	"os/exec"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/mtlsgrpc"
)

// serving is grpc.health.v1.HealthCheckResponse{status: SERVING}, in hexadecimal.
const serving = "0801"

func serveGRPC(t *testing.T, s mtls.Source, clients mtls.Clients, log *slog.Logger) string {
	t.Helper()
	server := grpc.NewServer(
		grpc.Creds(mtlsgrpc.ServerCredentials(s, clients, log)),
		grpc.UnaryInterceptor(mtlsgrpc.Unary(s, mtls.UserNamed("jane"), log)),
	)
	healthpb.RegisterHealthServer(server, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

func TestPythonClient(t *testing.T) {
	t.Parallel()
	need(t, python, "-c", "import grpc")
	eachKey(t, func(t *testing.T, alg issue.Algorithm) {
		s, foreign := newSet(t, alg), newSet(t, alg)
		s.leaf(t, "john", x509.ExtKeyUsageClientAuth)
		source, log := s.source(t, "server", s), slog.New(slog.DiscardHandler)
		strict, open := serveGRPC(t, source, mtls.RequireClients, log), serveGRPC(t, source, mtls.UnverifiedClients, log)
		rows := map[string]struct {
			address string
			args    []string
			want    string
		}{
			"who may":                              {strict, []string{s.path("ca.crt"), s.path("jane.crt"), s.path("jane.key")}, "OK " + serving},
			"who may, by the name of the server":   {strings.Replace(strict, "127.0.0.1", "localhost", 1), []string{s.path("ca.crt"), s.path("jane.crt"), s.path("jane.key")}, "OK " + serving},
			"who may not":                          {strict, []string{s.path("ca.crt"), s.path("john.crt"), s.path("john.key")}, "PERMISSION_DENIED - not allowed\n"},
			"without a certificate":                {strict, []string{s.path("ca.crt")}, "UNAVAILABLE"},
			"of another authority":                 {strict, []string{s.path("ca.crt"), foreign.path("jane.crt"), foreign.path("jane.key")}, "UNAVAILABLE"},
			"who trusts another authority":         {strict, []string{foreign.path("ca.crt"), s.path("jane.crt"), s.path("jane.key")}, "UNAVAILABLE"},
			"without a certificate, where all are": {open, []string{s.path("ca.crt")}, "UNAUTHENTICATED - a client certificate is needed\n"},
			"of another authority, where all are":  {open, []string{s.path("ca.crt"), foreign.path("jane.crt"), foreign.path("jane.key")}, "UNAUTHENTICATED - the client certificate is not accepted\n"},
		}
		for name, row := range rows {
			out, err := run(t, "", python, append([]string{"testdata/health.py", "call", row.address}, row.args...)...)
			if err != nil || !strings.Contains(out, row.want) {
				t.Errorf("%s: want %q, got %q, %v", name, row.want, out, err)
			}
		}
	})
}

func TestPythonServer(t *testing.T) {
	t.Parallel()
	need(t, python, "-c", "import grpc")
	eachKey(t, func(t *testing.T, alg issue.Algorithm) {
		s, foreign := newSet(t, alg), newSet(t, alg)
		port := pythonServer(t, s)
		rows := map[string]struct {
			address string
			mine    mtls.Source
			good    bool
		}{
			"by its IP address":                        {"127.0.0.1:" + port, s.source(t, "jane", s), true},
			"by its name":                              {"localhost:" + port, s.source(t, "jane", s), true},
			"with a certificate that it knows not":     {"127.0.0.1:" + port, foreign.source(t, "jane", s), false},
			"without a certificate":                    {"127.0.0.1:" + port, &mtls.Snapshot{Bundle: s.source(t, "jane", s).Bundle}, false},
			"of an authority that is not the client's": {"127.0.0.1:" + port, s.source(t, "jane", foreign), false},
		}
		for name, row := range rows {
			conn, err := grpc.NewClient(row.address, grpc.WithTransportCredentials(mtlsgrpc.ClientCredentials(row.mine, nil)))
			if err != nil {
				t.Fatal(err)
			}
			answer, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
			_ = conn.Close()
			if row.good && (err != nil || answer.GetStatus() != healthpb.HealthCheckResponse_SERVING) || !row.good && status.Code(err) != codes.Unavailable {
				t.Errorf("%s: %v, %v", name, answer, err)
			}
		}
	})
}

// pythonServer starts the server, which ends with its input, and returns its port.
func pythonServer(t *testing.T, s *set) string {
	t.Helper()
	c := exec.Command(python, "testdata/health.py", "serve", s.path("ca.crt"), s.path("server.crt"), s.path("server.key"))
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	})
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the server does not say where it serves: %v", err)
	}
	return strings.TrimSpace(port)
}
