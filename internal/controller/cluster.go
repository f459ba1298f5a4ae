package controller

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/kube"
)

// How often the facts about the cluster are read, and how soon again when the
// API server could not be asked.
const (
	clusterEvery = 5 * time.Minute
	clusterRetry = 2 * time.Second
)

// ClusterFacts knows what no node may claim. It is a [Loop].
type ClusterFacts struct {
	Client kubernetes.Interface
	Log    *slog.Logger

	now  atomic.Pointer[csr.Cluster]
	said sync.Map // what is missing, and has been logged
}

// Get returns what is known; false where nothing is known yet. It may be called
// by several goroutines.
func (f *ClusterFacts) Get() (csr.Cluster, bool) {
	c := f.now.Load()
	if c == nil {
		return csr.Cluster{}, false
	}
	return *c, true
}

// Run reads until the context ends.
func (f *ClusterFacts) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			timer.Reset(f.read(ctx))
		}
	}
}

// read reads once, and tells when to read again. What was known before is still
// true where the API server cannot be asked.
func (f *ClusterFacts) read(ctx context.Context) time.Duration {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, missing, err := kube.Cluster(limited, f.Client)
	if err != nil {
		if ctx.Err() == nil {
			f.Log.Warn("facts about the cluster were not read", "error", err.Error())
		}
		return clusterRetry
	}
	for _, m := range missing {
		if _, before := f.said.LoadOrStore(m.Error(), true); !before {
			f.Log.Info("a source of facts about the cluster is missing", "error", m.Error())
		}
	}
	f.now.Store(&c)
	return clusterEvery
}

// ResolveWith asks a resolver, nil: the machine's own, for [CSROptions.Resolve].
func ResolveWith(r *net.Resolver) func(context.Context, string) ([]netip.Addr, error) {
	if r == nil {
		r = net.DefaultResolver
	}
	return func(ctx context.Context, name string) ([]netip.Addr, error) {
		addresses, err := r.LookupNetIP(ctx, "ip", name)
		if dns, ok := err.(*net.DNSError); ok && dns.IsNotFound { //nolint:errorlint // the resolver wraps nothing
			return nil, nil
		}
		return addresses, err
	}
}
