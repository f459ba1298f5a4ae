package jwtsigner

import (
	"context"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc"
	externaljwt "k8s.io/externaljwt/apis/v1"
)

// What a caller may take of this process. kube-apiserver holds one connection,
// and a token has to fit into a header of HTTP.
const (
	maxMessage    = 128 << 10
	maxStreams    = 256 // at once, of one connection
	maxHeaders    = 16 << 10
	handshakeWait = 10 * time.Second
	finishWait    = 10 * time.Second
)

// MaxConnections may be open at once: the listener has to see to it.
const MaxConnections = 16

// alphaService is what kube-apiserver 1.32 and 1.33 call: its messages are those
// of v1 (k8s.io/externaljwt/apis/v1alpha1/api.proto).
const alphaService = "v1alpha1.ExternalJWTSigner"

// Serve answers at a listener until the context ends; then it finishes what was
// begun, for ten seconds at most, and returns nil. It closes the listener.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	g := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxConcurrentStreams(maxStreams), grpc.MaxHeaderListSize(maxHeaders), grpc.ConnectionTimeout(handshakeWait),
	)
	externaljwt.RegisterExternalJWTSignerServer(g, s)
	alpha := externaljwt.ExternalJWTSigner_ServiceDesc
	alpha.ServiceName = alphaService
	g.RegisterService(&alpha, s)
	stop := context.AfterFunc(ctx, func() {
		late := time.AfterFunc(finishWait, g.Stop)
		defer late.Stop()
		g.GracefulStop()
	})
	defer stop()
	if err := g.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}
