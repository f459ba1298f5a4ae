package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// Turn lets one node at a time change what others depend on. Take does the work when
// it is this node's turn, and returns its error; ends is when the first certificate of
// the work ends. A [*NotYetError] tells that it was not its turn: nothing was done.
type Turn interface {
	Take(ctx context.Context, ends time.Time, work func(context.Context) error) error
}

// NotYetError tells that it is another node's turn.
type NotYetError struct {
	Why   string
	Again time.Duration // when to ask again
}

// Error tells why.
func (e *NotYetError) Error() string { return e.Why }

// Spread is the [Turn] of nodes that know nothing of each other: what has fallen due
// waits for a part of an hour that the node's name says. Where little of its life is
// left it waits for less, and nodes may coincide.
type Spread struct {
	Node  string
	Clock Clock
	since time.Duration // when something was first due, on the machine's clock
}

// spreadOver is the time over which nodes are spread, spreadLate that of what has ended
// already.
const (
	spreadOver = time.Hour
	spreadLate = 10 * time.Minute
)

// Take does the work when the node's part of the hour has come.
func (s *Spread) Take(ctx context.Context, ends time.Time, work func(context.Context) error) error {
	if s.since == 0 {
		s.since = max(s.Clock.Running(), 1)
	}
	over := spreadLate
	if left := ends.Sub(s.Clock.Now()); left > 0 {
		over = min(spreadOver, left/4)
	}
	wait := time.Duration(share(s.Node)*float64(over)) - (s.Clock.Running() - s.since)
	if wait > 0 {
		return &NotYetError{Why: fmt.Sprintf("nodes take turns, by their names: that of %s comes in %s", s.Node, wait.Round(time.Second)), Again: wait}
	}
	s.since = 0
	return work(ctx)
}

// Lease is the [Turn] of nodes that reach one API server: who holds the Lease goes on.
// When the API cannot be reached for as long as Patience, Else decides: that what runs
// out cannot be renewed because it has run out must not be.
type Lease struct {
	Client    kubernetes.Interface
	Namespace string
	Name      string
	Identity  string // of this process
	Patience  time.Duration
	Else      Turn
	Log       *slog.Logger
}

// Times of the Lease, as those of kube-controller-manager.
const (
	leaseDuration = 15 * time.Second
	leaseDeadline = 10 * time.Second
	leaseRetry    = 2 * time.Second
)

// Take waits for the Lease, does the work and gives it back. When the Lease is lost
// the work's context ends.
func (l *Lease) Take(ctx context.Context, ends time.Time, work func(context.Context) error) error {
	lock, err := resourcelock.New(resourcelock.LeasesResourceLock, l.Namespace, l.Name, l.Client.CoreV1(), l.Client.CoordinationV1(), resourcelock.ResourceLockConfig{Identity: l.Identity})
	if err != nil {
		return fmt.Errorf("lease %s/%s: %w", l.Namespace, l.Name, err)
	}
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var leading atomic.Bool
	done := make(chan error, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, Name: l.Name, LeaseDuration: leaseDuration, RenewDeadline: leaseDeadline, RetryPeriod: leaseRetry, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leased context.Context) {
				leading.Store(true)
				done <- work(leased)
				stop()
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("lease %s/%s: %w", l.Namespace, l.Name, err)
	}
	patience := time.AfterFunc(l.Patience, func() {
		if !leading.Load() {
			stop()
		}
	})
	defer patience.Stop()
	elector.Run(asking)
	if leading.Load() {
		return <-done
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return l.withoutLease(ctx, ends, work)
}

// withoutLease tells apart a Lease that somebody holds from an API that nobody reaches.
func (l *Lease) withoutLease(ctx context.Context, ends time.Time, work func(context.Context) error) error {
	asked, stop := context.WithTimeout(ctx, leaseDeadline)
	defer stop()
	lease, _, err := (&resourcelock.LeaseLock{LeaseMeta: metaOf(l.Namespace, l.Name), Client: l.Client.CoordinationV1()}).Get(asked)
	switch {
	case err == nil:
		return &NotYetError{Why: fmt.Sprintf("it is the turn of %s", lease.HolderIdentity), Again: leaseDuration}
	case ctx.Err() != nil:
		return ctx.Err()
	case l.Else == nil:
		return errors.Join(errors.New("the lease by which nodes take turns cannot be had"), err)
	}
	l.Log.Warn("the lease by which nodes take turns cannot be had: this one goes by its name", "error", err.Error())
	return l.Else.Take(ctx, ends, work)
}

func metaOf(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}
