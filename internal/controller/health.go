package controller

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Health serves /livez, /readyz and /metrics, without TLS and to everybody who
// reaches it. It is a [Loop].
type Health struct {
	Listener net.Listener
	// Live and Ready return why not.
	Live, Ready func(*http.Request) error
	Metrics     prometheus.Gatherer
}

// Run serves until the context ends.
func (h *Health) Run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("GET /livez", probe(h.Live))
	mux.Handle("GET /readyz", probe(h.Ready))
	mux.Handle("GET /metrics", promhttp.HandlerFor(h.Metrics, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 1 << 14}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // nobody waits for an answer of a process that ends
	defer stop()
	if err := server.Serve(h.Listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func probe(check func(*http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := check(r); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n")) // whoever asked may be gone
	}
}
