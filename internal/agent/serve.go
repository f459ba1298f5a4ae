package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/connlimit"
	"github.com/kubepki/kubepki/internal/resident"
)

// DefaultListen is where the agent is asked by default: the port of
// x509-certificate-exporter.
const DefaultListen = "127.0.0.1:9793"

// Handler serves the status page at /, /metrics, /healthz (and /livez, as
// kube-apiserver has it) and /readyz. It only reads, and takes GET and HEAD alone.
func Handler(b *Board, m *Metrics) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		defer resident.Work()()
		m.ServeHTTP(w, r)
	})
	mux.Handle("GET /healthz", b.answer((*Snapshot).Alive))
	mux.Handle("GET /livez", b.answer((*Snapshot).Alive))
	mux.Handle("GET /readyz", b.answer((*Snapshot).Ready))
	mux.Handle("GET /{$}", page(b))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		mux.ServeHTTP(w, r)
	})
}

// Local lets only those in who ask for this machine by a name of its loopback: a web
// page could otherwise have a browser on this machine ask, by a name of its own that
// it lets lead to 127.0.0.1, and read the answer (DNS rebinding).
func Local(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLoopback(r.Host) {
			http.Error(w, "ask for localhost", http.StatusMisdirectedRequest)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// isLoopback tells of a host, with or without a port, that it is this machine, and
// reached by nobody else.
func isLoopback(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostPort, "["), "]")
	}
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.Unmap().IsLoopback()
}

// What one client, and all together, may cost.
const (
	maxConnections = 64
	maxHeader      = 1 << 14
)

// Serve serves until the context ends, and closes the listener. config is nil for
// plain HTTP, of which it warns where others than this machine can ask.
func Serve(ctx context.Context, l net.Listener, config *tls.Config, h http.Handler, log *slog.Logger) error {
	switch {
	case config != nil: // no browser takes this certificate for that of another name
	case isLoopback(l.Addr().String()):
		h = Local(h)
	default:
		log.Warn("metrics and the status page are served without TLS to everybody who reaches this address: --tls-cert-file and --tls-private-key-file, and --client-ca-file, change that", "address", l.Addr().String())
	}
	server := &http.Server{
		Handler: h, TLSConfig: config, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: maxHeader,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // nobody waits for an answer of a process that ends
	defer stop()
	// Who opens connections and says nothing would keep those away who ask for /healthz,
	// and the agent would be started anew for it.
	l = connlimit.HTTP(server, l, maxConnections)
	var err error
	if config == nil {
		err = server.Serve(l)
	} else {
		err = server.ServeTLS(l, "", "")
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
