package mtlshttp

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"github.com/kubepki/kubepki/mtls"
)

// maxStreams are the requests that one connection may have open at once, as many
// as with kube-apiserver (k8s.io/apiserver/pkg/server/secure_serving.go).
const maxStreams = 100

// NewServer returns a server that always shows the newest certificate of a source,
// and treats clients as [mtls.ServerConfig] does. It is to be run by
// ListenAndServeTLS or ServeTLS without names of files.
//
// Who may do what is for the handler to ask: a [Guard]. A nil handler is
// [http.DefaultServeMux].
//
// When the certificate is replaced, clients are asked to come anew with the answer
// to their next request (HTTP/1.1: Connection: close, HTTP/2: GOAWAY), so that no
// request is cut off. What was upgraded, such as a WebSocket, goes on: to end that
// too, wrap the listener by [mtls.Connections.Listener].
//
// A client that does not go on holds a connection and no more: headers must come
// within ten seconds and be no longer than 64 KiB, idle connections are closed
// after two minutes, and dead ones of HTTP/2 found within 45 seconds. Bodies and
// answers may take as long as they like, because some are streams: where they are
// not, set ReadTimeout and WriteTimeout. Whoever replaces ConnContext puts that of
// the server around it.
//
// Handshakes that fail are told to ErrorLog.
func NewServer(s mtls.Source, clients mtls.Clients, h http.Handler) *http.Server {
	if h == nil {
		h = http.DefaultServeMux
	}
	server := &http.Server{
		Handler: &current{s, h}, TLSConfig: mtls.ServerConfig(s, clients),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 1 << 16,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if now, err := s.Snapshot(); err == nil && now != nil {
				ctx = context.WithValue(ctx, shownKey{}, now.Certificate)
			}
			return ctx
		},
	}
	offered(server)
	return server
}

// offered keeps HTTP/2 from being offered where the program has switched it off, by
// Protocols or, as of old, by TLSNextProto: each connection has a configuration of its
// own, which net/http does not see.
func offered(server *http.Server) {
	inner := server.TLSConfig.GetConfigForClient
	server.TLSConfig.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		config, err := inner(hello)
		if err != nil || speaksHTTP2(server) {
			return config, err
		}
		config = config.Clone()
		config.NextProtos = []string{"http/1.1"}
		return config, nil
	}
}

func speaksHTTP2(server *http.Server) bool {
	if server.Protocols != nil {
		return server.Protocols.HTTP2()
	}
	_, named := server.TLSNextProto["h2"]
	return server.TLSNextProto == nil || named
}

// shownKey is the key of the certificate of when a connection came. The handshake
// shows that or a later one; in the latter case the client comes once more than it
// would have to.
type shownKey struct{}

// current asks clients to come anew when the certificate was replaced.
type current struct {
	source mtls.Source
	next   http.Handler
}

func (h *current) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	shown, ok := r.Context().Value(shownKey{}).(*tls.Certificate)
	if ok && r.Header.Get("Upgrade") == "" { // whose answer has a Connection of its own
		if now, err := h.source.Snapshot(); err == nil && now != nil && now.Certificate != nil && now.Certificate != shown {
			w.Header().Set("Connection", "close")
		}
	}
	h.next.ServeHTTP(w, r)
}
