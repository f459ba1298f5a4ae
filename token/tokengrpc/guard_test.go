package tokengrpc_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/token"
	"github.com/kubepki/kubepki/token/tokengrpc"
)

// whoami answers with the user of the call, in a header.
type whoami struct {
	healthpb.UnimplementedHealthServer
}

func (whoami) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	return &healthpb.HealthCheckResponse{}, grpc.SetHeader(ctx, tell(ctx))
}

func (whoami) Watch(_ *healthpb.HealthCheckRequest, s healthpb.Health_WatchServer) error {
	if err := s.SetHeader(tell(s.Context())); err != nil {
		return err
	}
	return s.Send(&healthpb.HealthCheckResponse{})
}

func tell(ctx context.Context) metadata.MD {
	md, _ := metadata.FromIncomingContext(ctx)
	return metadata.Pairs("user", token.FromContext(ctx).User.Username, "left", strings.Join(md.Get("authorization"), " "))
}

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

// serve starts a server on loopback, and returns its client.
func serve(t *testing.T, v tokengrpc.Verifier, log *output) healthpb.HealthClient {
	t.Helper()
	guard := &tokengrpc.Guard{Verifier: v, Log: slog.New(slog.NewTextHandler(log, nil))}
	server := grpc.NewServer(grpc.UnaryInterceptor(guard.Unary), grpc.StreamInterceptor(guard.Stream))
	healthpb.RegisterHealthServer(server, whoami{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return healthpb.NewHealthClient(conn)
}

func TestCalls(t *testing.T) {
	c := tokentest.Case{}
	v, err := token.NewVerifier(c.Config(nil))
	if err != nil {
		t.Fatal(err)
	}
	good := tokentest.Good(tokentest.Payload(time.Now()))
	for name, row := range map[string]struct {
		authorization []string
		code          codes.Code
		logged        bool
	}{
		"a good token":              {[]string{"Bearer " + good}, codes.OK, false},
		"the scheme in lower case":  {[]string{"bearer " + good}, codes.OK, false},
		"no token":                  {nil, codes.Unauthenticated, false},
		"another scheme":            {[]string{"Basic " + good}, codes.Unauthenticated, false},
		"two tokens":                {[]string{"Bearer " + good, "Bearer " + good}, codes.Unauthenticated, false},
		"a token that has expired":  {[]string{"Bearer " + tokentest.Good(tokentest.Payload(time.Now().Add(-2*time.Hour)))}, codes.Unauthenticated, true},
		"a token for somebody else": {[]string{"Bearer " + tokentest.Good(tokentest.Payload(time.Now()).With("aud", `"other"`))}, codes.Unauthenticated, true},
	} {
		t.Run(name, func(t *testing.T) {
			var log output
			client := serve(t, v, &log)
			ctx := t.Context()
			for _, a := range row.authorization {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", a)
			}
			check := func(kind string, err error, header metadata.MD) {
				t.Helper()
				if status.Code(err) != row.code {
					t.Fatalf("%s: %v, want %s", kind, err, row.code)
				}
				if row.code == codes.OK && (header.Get("user")[0] != "system:serviceaccount:apps:robot" || header.Get("left")[0] != "") {
					t.Errorf("%s: the handler sees %v", kind, header)
				}
				if err != nil && strings.Contains(err.Error(), "expired") {
					t.Errorf("%s: the reason is told to the caller: %v", kind, err)
				}
			}
			var header metadata.MD
			_, err := client.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Header(&header))
			check("unary", err, header)
			s, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Recv()
			header, _ = s.Header()
			check("stream", err, header)
			if logged := strings.Count(log.String(), "reason="); logged != map[bool]int{true: 2}[row.logged] || strings.Contains(log.String(), good[:20]) {
				t.Errorf("the log says: %s", log.String())
			}
		})
	}
}

type away struct{}

func (away) Verify(context.Context, string) (*token.Verified, error) {
	return nil, errors.New("the issuer is away")
}

func TestWithoutKeysItIsNotTheCallersFault(t *testing.T) {
	var log output
	client := serve(t, away{}, &log)
	_, err := client.Check(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer x"), &healthpb.HealthCheckRequest{})
	if status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), "away") || !strings.Contains(log.String(), "away") {
		t.Errorf("%v; the log says %q", err, log.String())
	}
}
