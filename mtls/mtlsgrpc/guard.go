package mtlsgrpc

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/kubepki/kubepki/internal/remember"
	"github.com/kubepki/kubepki/mtls"
)

// Guard lets calls of clients through that the newest bundle knows and an
// authorizer lets in. It must be neither changed nor copied once it is in use,
// and may be used by several goroutines.
type Guard struct {
	// Source has the bundle: that of the server's credentials.
	Source mtls.Source
	// Allow says who may call; nil: nobody. [mtls.Anyone] is each client of the
	// bundle.
	Allow mtls.Authorizer
	// Again is how often the client of a stream is judged again as long as the
	// stream stands; zero: when it begins, and not again.
	Again time.Duration
	// Log hears why calls are refused, which is not told to who makes them; of a
	// certificate that is not good once for a connection and a bundle, and of each
	// stream that is ended. nil: slog.Default.
	Log *slog.Logger

	known remember.Clients
}

// Unary returns the interceptor of a [Guard] without further settings.
func Unary(s mtls.Source, allow mtls.Authorizer, log *slog.Logger) grpc.UnaryServerInterceptor {
	return (&Guard{Source: s, Allow: allow, Log: log}).Unary
}

// Stream returns the interceptor of a [Guard] without further settings.
func Stream(s mtls.Source, allow mtls.Authorizer, log *slog.Logger) grpc.StreamServerInterceptor {
	return (&Guard{Source: s, Allow: allow, Log: log}).Stream
}

// Unary is a grpc.UnaryServerInterceptor. A call without a certificate that is
// good now ends with Unauthenticated, one of somebody who may not with
// PermissionDenied, and one that cannot be judged, because the source has nothing,
// with Unavailable. The handler finds who calls by [mtls.FromContext].
func (g *Guard) Unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	client, err := g.judge(ctx, info.FullMethod, false)
	if err != nil {
		return nil, err
	}
	return handle(mtls.NewContext(ctx, client), request)
}

// Stream is a grpc.StreamServerInterceptor, and judges as Unary does: when the
// stream begins and, with Again, as long as it stands. When its client is no
// longer good, its context is done, Recv and Send fail, and once the handler has
// returned, with whatever, the stream ends as a call would. A message that Recv
// was given may still be written to after it has failed so. A handler that waits in
// Send for a client that does not read stays: [mtls.Connections] wakes it.
func (g *Guard) Stream(server any, s grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	client, err := g.judge(s.Context(), info.FullMethod, false)
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(mtls.NewContext(s.Context(), client))
	defer end(nil)
	if g.Again > 0 {
		go g.judgeAgain(ctx, info.FullMethod, end)
	}
	guarded := &stream{s, ctx, g.Again > 0}
	if err := handle(server, guarded); guarded.refusal() == nil {
		return err
	}
	return guarded.refusal()
}

// judgeAgain ends a context when its client is no longer good. That nobody can
// judge it now is no reason to.
func (g *Guard) judgeAgain(ctx context.Context, method string, end context.CancelCauseFunc) {
	tick := time.NewTicker(g.Again)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := g.judge(ctx, method, true); err != nil && status.Code(err) != codes.Unavailable {
			end(&refused{err})
			return
		}
	}
}

// refused is the cause by which a guard ends a stream.
type refused struct{ error }

// stream is one that a guard may end.
type stream struct {
	grpc.ServerStream
	ctx context.Context
	may bool // be ended
}

func (s *stream) Context() context.Context { return s.ctx }

// refusal is how the stream is to end, or nil.
func (s *stream) refusal() error {
	var r *refused
	if errors.As(context.Cause(s.ctx), &r) {
		return r.error
	}
	return nil
}

func (s *stream) SendMsg(m any) error {
	if err := s.refusal(); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

// RecvMsg does not wait for a client that may have nothing more to say. What waits
// for it below ends with the stream.
func (s *stream) RecvMsg(m any) error {
	if !s.may {
		return s.ServerStream.RecvMsg(m)
	}
	if refusal := s.refusal(); refusal != nil {
		return refusal // something waits below already
	}
	got := make(chan error, 1)
	go func() { got <- s.ServerStream.RecvMsg(m) }()
	var err error
	select {
	case err = <-got:
	case <-s.ctx.Done():
		if s.refusal() == nil {
			err = <-got // gRPC says itself who is gone
		}
	}
	if refusal := s.refusal(); refusal != nil {
		return refusal
	}
	return err
}

// notAccepted is what a client is told whose certificate is not good.
const notAccepted = "the client certificate is not accepted"

// judge returns who calls, or what the caller is told, after it has told the log
// more. Of a stream that stands the log hears each time.
func (g *Guard) judge(ctx context.Context, method string, stands bool) (mtls.Peer, error) {
	state, from := connection(ctx)
	client, err := g.known.Verify(g.Source, state)
	switch {
	case errors.Is(err, remember.ErrNotJudged):
		orDefault(g.Log).LogAttrs(ctx, slog.LevelError, "client not judged", slog.String("reason", remember.ForLog(err.Error())), slog.String("method", remember.ForLog(method)), slog.String("from", from))
		err = status.Error(codes.Unavailable, "clients cannot be verified now")
	case errors.Is(err, mtls.ErrNoClient):
		err = g.refuse(ctx, codes.Unauthenticated, "a client certificate is needed", err, method, from)
	case err != nil && !g.known.News(state) && !stands:
		err = status.Error(codes.Unauthenticated, notAccepted) // the log knows
	case err != nil:
		err = g.refuse(ctx, codes.Unauthenticated, notAccepted, err, method, from)
	default:
		if err = g.allowed(client); err != nil {
			err = g.refuse(ctx, codes.PermissionDenied, "not allowed", err, method, from, slog.String("client", client.String()))
		}
	}
	if err != nil {
		return mtls.Peer{}, err
	}
	return client, nil
}

func (g *Guard) allowed(client mtls.Peer) error {
	if g.Allow == nil {
		return errors.New("the guard allows nobody: it has no authorizer")
	}
	return g.Allow(client)
}

func (g *Guard) refuse(ctx context.Context, code codes.Code, told string, why error, method, from string, more ...slog.Attr) error {
	attrs := append(more, slog.String("reason", remember.ForLog(why.Error())), slog.String("method", remember.ForLog(method)), slog.String("from", from))
	orDefault(g.Log).LogAttrs(ctx, slog.LevelInfo, "client refused", attrs...)
	return status.Error(code, told)
}

// connection is the TLS below a call, nil where there is none, and where from.
func connection(ctx context.Context) (state *tls.ConnectionState, from string) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, ""
	}
	if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
		state = &info.State
	}
	return state, address(p.Addr)
}

// address is one for the log; not all listeners have them.
func address(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

func orDefault(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.Default()
	}
	return log
}
