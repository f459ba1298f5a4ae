package mtlsgrpc

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"syscall"

	"google.golang.org/grpc/credentials"

	"github.com/kubepki/kubepki/internal/remember"
	"github.com/kubepki/kubepki/mtls"
)

// ServerCredentials returns what a gRPC server always shows the newest
// certificate of a source by, and trusts clients by its newest bundle: those of
// [mtls.ServerConfig]. Only HTTP/2 is spoken (ALPN h2). What the server knows of a
// connection (peer.Peer's AuthInfo) is a [credentials.TLSInfo].
//
// A client that shows nothing, or what is not good, hears so by an alert of TLS,
// which tells the kind of fault. log hears of each handshake that fails, and why,
// which gRPC itself does not say; nil: slog.Default.
func ServerCredentials(s mtls.Source, clients mtls.Clients, log *slog.Logger) credentials.TransportCredentials {
	config := mtls.ServerConfig(s, clients)
	config.NextProtos = []string{"h2"}
	inner := config.GetConfigForClient
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		made, err := inner(hello)
		if err != nil {
			return nil, err
		}
		made = made.Clone()
		made.NextProtos = config.NextProtos
		return made, nil
	}
	return &server{credentials.NewTLS(config), log}
}

type server struct {
	credentials.TransportCredentials
	log *slog.Logger
}

func (s *server) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := s.TransportCredentials.ServerHandshake(c)
	if err != nil {
		s.failed(address(c.RemoteAddr()), err)
	}
	return conn, info, err
}

// failed tells the log of a handshake. Who has hung up, as health checks of TCP
// do, is of no interest.
func (s *server) failed(from string, err error) {
	level := slog.LevelInfo
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) {
		level = slog.LevelDebug
	}
	attrs := []slog.Attr{slog.String("from", from), slog.String("reason", remember.ForLog(err.Error()))}
	var not *tls.CertificateVerificationError
	if errors.As(err, &not) && len(not.UnverifiedCertificates) > 0 {
		attrs = append(attrs, slog.String("shown", mtls.Peer{Certificate: not.UnverifiedCertificates[0]}.String()))
	}
	orDefault(s.log).LogAttrs(context.Background(), level, "handshake failed", attrs...)
}

func (s *server) Clone() credentials.TransportCredentials {
	return &server{s.TransportCredentials.Clone(), s.log}
}

// ClientCredentials returns what a gRPC client always shows the newest
// certificate of a source by, and trusts servers by its newest bundle.
//
// authorizer says which of the bundle's servers is the right one; nil: the one
// whose certificate is good for what is dialled, a DNS name or an IP address
// (grpc.WithAuthority names another).
//
// Of a server that is not good the calls fail with Unavailable and the reason, and
// gRPC dials again, after up to two minutes in the end: a program that hears of a
// change of its files may call ResetConnectBackoff of its grpc.ClientConn.
func ClientCredentials(s mtls.Source, authorizer mtls.Authorizer) credentials.TransportCredentials {
	return &client{prepare: func(c net.Conn, address string) (net.Conn, *tls.Config) {
		return c, mtls.DialledAt(s, authorizer, address)
	}}
}

// WatchedCredentials are [ClientCredentials] with the source of a
// [mtls.Connections], which closes connections that are no longer good. Calls that
// go on then fail with Unavailable, and the next dials again.
func WatchedCredentials(k *mtls.Connections, authorizer mtls.Authorizer) credentials.TransportCredentials {
	return &client{prepare: func(c net.Conn, address string) (net.Conn, *tls.Config) {
		return k.Dialled(c, authorizer, address)
	}}
}

// client makes the configuration for each connection: only then it is known what
// was dialled.
type client struct {
	prepare func(c net.Conn, address string) (net.Conn, *tls.Config)
	name    string // by OverrideServerName
}

func (c *client) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	raw, config := c.prepare(raw, authority)
	return credentials.NewTLS(config).ClientHandshake(ctx, authority, raw)
}

func (c *client) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these are the credentials of a client: a server has those of mtlsgrpc.ServerCredentials")
}

func (c *client) Info() credentials.ProtocolInfo {
	info := credentials.NewTLS(nil).Info()
	info.ServerName = c.name //nolint:staticcheck // who still uses OverrideServerName is served
	return info
}

func (c *client) Clone() credentials.TransportCredentials {
	clone := *c
	return &clone
}

// OverrideServerName is what the interface demands; grpc.WithAuthority does the
// same.
func (c *client) OverrideServerName(name string) error {
	c.name = name
	return nil
}
