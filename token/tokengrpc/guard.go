package tokengrpc

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kubepki/kubepki/token"
	"github.com/kubepki/kubepki/token/internal/bearer"
)

// Verifier judges tokens: a [*token.Verifier], or a [*token.Cache] in front of
// one.
type Verifier interface {
	Verify(ctx context.Context, token string) (*token.Verified, error)
}

// Guard lets calls with a good bearer token in their metadata (authorization)
// through. It must not be changed while it is used.
type Guard struct {
	Verifier Verifier
	// Log hears why calls are refused, which is not told to who makes them; nil:
	// slog.Default.
	Log *slog.Logger
}

// Unary returns the interceptor of a [Guard] without further settings.
func Unary(v Verifier) grpc.UnaryServerInterceptor { return (&Guard{Verifier: v}).Unary }

// Stream returns the interceptor of a [Guard] without further settings.
func Stream(v Verifier) grpc.StreamServerInterceptor { return (&Guard{Verifier: v}).Stream }

// Unary is a grpc.UnaryServerInterceptor. A call without a good token ends with
// Unauthenticated, one that cannot be judged with Unavailable. The handler finds
// who calls by [token.FromContext], and no authorization any more.
func (g *Guard) Unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	ctx, err := g.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handle(ctx, request)
}

// Stream is a grpc.StreamServerInterceptor, and judges as Unary does: once, when
// the stream begins.
func (g *Guard) Stream(server any, s grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	ctx, err := g.admit(s.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return handle(server, &stream{s, ctx})
}

type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stream) Context() context.Context { return s.ctx }

func (g *Guard) admit(ctx context.Context, method string) (context.Context, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	text, ok := bearer.Token(md.Get("authorization"))
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "a bearer token is needed")
	}
	v, err := g.Verifier.Verify(ctx, text)
	if err != nil {
		return nil, g.failed(ctx, method, err)
	}
	md = md.Copy()
	delete(md, "authorization")
	return token.NewContext(metadata.NewIncomingContext(ctx, md), v), nil
}

func (g *Guard) failed(ctx context.Context, method string, err error) error {
	if bearer.Log(ctx, g.Log, err, slog.String("method", method)) {
		return status.Error(codes.Unauthenticated, "the token is not accepted")
	}
	return status.Error(codes.Unavailable, "tokens cannot be verified now")
}
