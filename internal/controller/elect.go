package controller

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// Times of the election: those of kube-controller-manager's defaults.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// Election says how the one that works is chosen among several processes.
type Election struct {
	Client    kubernetes.Interface
	Namespace string // of the Lease
	Name      string // of the Lease
	Identity  string // of this process
	Log       *slog.Logger
	Metrics   *Metrics
	// Health tells whether this process renews a lease that it holds; it may be
	// nil.
	Health *leaderelection.HealthzAdaptor
}

// Run lets lead work whenever this process is the leader, until the context
// ends or lead fails. The lease is given back when lead has finished what it
// had begun. A process that loses the lease becomes a candidate again. What is
// still under way then does no harm beside the new leader: every write names
// the version that it changes.
func (e *Election) Run(ctx context.Context, lead func(context.Context) error) error {
	for ctx.Err() == nil {
		if err := e.term(ctx, lead); err != nil {
			return err
		}
	}
	return nil
}

// term is one candidacy, up to the loss of the lease.
func (e *Election) term(ctx context.Context, lead func(context.Context) error) error {
	lock, err := resourcelock.New(resourcelock.LeasesResourceLock, e.Namespace, e.Name,
		e.Client.CoreV1(), e.Client.CoordinationV1(), resourcelock.ResourceLockConfig{Identity: e.Identity})
	if err != nil {
		return fmt.Errorf("leader election: %w", err)
	}
	// The lease is held for longer than the context: until lead has returned.
	held, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	var leading atomic.Bool
	ended := make(chan error, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, Name: e.Name, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
		ReleaseOnCancel: true, WatchDog: e.Health,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leased context.Context) {
				leading.Store(true)
				e.Metrics.Leading(true)
				e.Log.Info("leading", "identity", e.Identity)
				both, stop := context.WithCancel(ctx)
				context.AfterFunc(leased, stop)
				ended <- lead(both)
				stop()
				giveUp()
			},
			OnStoppedLeading: func() { e.Metrics.Leading(false) },
		},
	})
	if err != nil {
		return fmt.Errorf("leader election: %w", err)
	}
	if e.Health != nil {
		e.Health.SetLeaderElection(elector)
	}
	stop := context.AfterFunc(ctx, func() {
		if !leading.Load() {
			giveUp()
		}
	})
	defer stop()
	elector.Run(held)
	if !leading.Load() {
		return nil
	}
	return <-ended
}
