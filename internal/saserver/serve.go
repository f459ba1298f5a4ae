package saserver

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/kubepki/kubepki/internal/connlimit"
)

// stopWait is for how long requests may go on after the context has ended.
const stopWait = 10 * time.Second

// MaxConnections may be open at once. For one more another is closed, first one that asks
// for nothing.
const MaxConnections = 1000

// maxStreams are the requests that one connection may have open at once, as many
// as with kube-apiserver (k8s.io/apiserver/pkg/server/secure_serving.go).
const maxStreams = 100

// Handler serves reviews at [ReviewPath], and documents at all other paths;
// either may be nil.
func Handler(documents *Publisher, reviews *Reviewer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case reviews != nil && r.URL.Path == ReviewPath:
			reviews.ServeHTTP(w, r)
		case documents != nil:
			documents.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	})
}

// Serve serves over TLS until the context ends, lets the requests that have
// begun come to their end, for ten seconds at most, and closes the listener.
// Handshakes that fail are in the log, and so is the end.
func Serve(ctx context.Context, l net.Listener, config *tls.Config, h http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler: h, TLSConfig: config, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelInfo),
		// A client that does not go on holds a connection, and no more.
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 1 << 14, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		log.Info("stopping: what has begun is finished, and nothing new is taken", "within", stopWait.String())
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait)
		defer cancel()
		err := server.Shutdown(late)
		if errors.Is(err, context.DeadlineExceeded) {
			log.Warn("requests were cut off: they took too long")
			err = server.Close()
		}
		log.Info("stopped")
		stopped <- err
	})
	err := server.ServeTLS(connlimit.HTTP(server, l, MaxConnections), "", "")
	if stop() {
		return err // it has ended by itself
	}
	return <-stopped
}
