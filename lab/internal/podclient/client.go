package podclient

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
)

// Options say how steadily the API is used, and as whom.
type Options struct {
	Every   time.Duration // between two requests of one kind
	Timeout time.Duration // for one request
	// Status is the host:port of /healthz and /counts, in plain HTTP.
	Status string
	// Config says who the client is: rest.InClusterConfig in a pod. It is called
	// for each fresh request.
	Config func() (*rest.Config, error)
	// Failures takes one line for each request that failed: the time in RFC 3339,
	// the kind of request, and the error.
	Failures io.Writer
}

// Counts are the requests of one kind since the program's start.
type Counts struct {
	Requests int64  `json:"requests"`
	Failures int64  `json:"failures"`
	Last     string `json:"last,omitempty"` // the last request's error; empty: it succeeded
}

// Main runs a client with the flags of a command line, without the program's
// name, until it is interrupted. It returns the exit code.
func Main(args []string) int {
	o := Options{Config: rest.InClusterConfig, Failures: os.Stdout}
	flags := flag.NewFlagSet("pod-client", flag.ContinueOnError)
	flags.DurationVar(&o.Every, "every", 500*time.Millisecond, "time between two requests of one kind")
	flags.DurationVar(&o.Timeout, "timeout", 10*time.Second, "time for one request")
	flags.StringVar(&o.Status, "status", "127.0.0.1:9445", "address of /healthz and /counts")
	wait := flags.Bool("wait", false, "end as soon as a request succeeds, and tell of none that fails")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	run := Run
	if *wait {
		run = Wait
	}
	if err := run(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "pod-client: %v\n", err)
		return 1
	}
	return 0
}

// client counts what its loops see.
type client struct {
	options Options
	mu      sync.Mutex
	counts  map[string]*Counts
}

// Run uses the API until the context ends. Two kinds of request go on beside
// each other: "steady" ones of one client that keeps its connection, and "fresh"
// ones of a client that starts anew each time, as the next pod would: with the
// files as they are then, a connection and a handshake of its own. An error
// tells that the program could not start; requests that fail are counted.
func Run(ctx context.Context, o Options) error {
	steady, err := newSteady(o)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.Status)
	if err != nil {
		return err
	}
	c := &client{options: o, counts: map[string]*Counts{"steady": {}, "fresh": {}}}
	server := &http.Server{Handler: c.status(), ReadTimeout: o.Timeout}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error { <-ctx.Done(); return server.Close() })
	group.Go(func() error { c.loop(ctx, "steady", steady); return nil })
	group.Go(func() error { c.loop(ctx, "fresh", o.fresh); return nil })
	return group.Wait()
}

// Wait makes fresh requests until one succeeds: for a pod whose program gives up
// where kube-proxy has not yet programmed the API's address. The error is that of
// the last request, if ctx ends before.
func Wait(ctx context.Context, o Options) error {
	tick := time.NewTicker(o.Every)
	defer tick.Stop()
	for {
		limited, cancel := context.WithTimeout(ctx, o.Timeout)
		err := o.fresh(limited)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// loop makes requests of one kind until the context ends.
func (c *client) loop(ctx context.Context, kind string, request func(context.Context) error) {
	tick := time.NewTicker(c.options.Every)
	defer tick.Stop()
	for {
		limited, cancel := context.WithTimeout(ctx, c.options.Timeout)
		err := request(limited)
		cancel()
		if ctx.Err() != nil {
			return // cut off by the end, not failed
		}
		c.count(kind, err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (c *client) count(kind string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := c.counts[kind]
	counts.Requests++
	counts.Last = ""
	if err != nil {
		counts.Failures++
		counts.Last = err.Error()
		fmt.Fprintf(c.options.Failures, "%s %s: %v\n", time.Now().UTC().Format(time.RFC3339Nano), kind, err)
	}
}

// status answers /healthz, which is well when the last request of each kind was,
// and /counts.
func (c *client) status() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for kind, counts := range c.counts {
			if counts.Requests == 0 || counts.Last != "" {
				http.Error(w, fmt.Sprintf("%s: %d requests, last: %s", kind, counts.Requests, counts.Last), http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /counts", func(w http.ResponseWriter, _ *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(c.counts); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	return mux
}
