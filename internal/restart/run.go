package restart

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// DefaultTimeout bounds one restart, from its beginning to its proof: as long as
// kubeadm waits for a control plane component (TimeoutForControlPlane).
const DefaultTimeout = 4 * time.Minute

// defaultSettle is how long a process must stand after it was proved: one that
// cannot live with what it reads mostly ends within a second or two.
const defaultSettle = 3 * time.Second

// Life is a process that was started again, as [Started] is one.
type Life interface {
	// Stands tells why it does not live on, nil where it does.
	Stands(ctx context.Context) error
	// Over tells that it will not come back by itself.
	Over(ctx context.Context) bool
	Close()
}

// Runner goes through the targets of a plan, one after the other. What it calls is
// given the time of one restart.
type Runner struct {
	// Can tells why a target cannot be restarted at all, nil where it can. All are asked
	// before the first is touched; nil: none is.
	Can func(ctx context.Context, t *Target) error
	// May tells why a target may not be ended now, nil where it may.
	May func(ctx context.Context, t *Target) error
	// Restart starts it again, and returns when it has begun a new life, with how that
	// was done and the command that shows its log.
	Restart func(ctx context.Context, t *Target) (l Life, how, look string, err error)
	// Proved tells why it is not well yet: its health, and the live proof. It is asked
	// until it says nil.
	Proved func(ctx context.Context, t *Target) error
	// Timeout bounds one restart with its proof; 0: [DefaultTimeout]. Settle is how
	// long it must stand then, Poll how often it is looked at; 0: 3 s, and half of one.
	Timeout, Settle, Poll time.Duration
	// Began and Done are told of each target; nil: nobody is.
	Began func(t *Target)
	Done  func(d Done)
}

// Done is a target that was restarted and proved.
type Done struct {
	Target Target
	How    string        // in words; of one with Await, that it was not ended
	Took   time.Duration // until it was proved
}

// Run restarts targets in their order, and stops at the first that does not come
// back: a [*StoppedError]. What was done is returned in either case.
func (r *Runner) Run(ctx context.Context, targets []Target) ([]Done, error) {
	if err := r.all(ctx, targets); err != nil {
		return nil, err
	}
	var done []Done
	for i := range targets {
		t := &targets[i]
		if r.Began != nil {
			r.Began(t)
		}
		d, look, err := r.one(ctx, t)
		if err != nil {
			return done, &StoppedError{Target: *t, Err: err, Look: look, Done: done, Left: targets[i+1:]}
		}
		if done = append(done, d); r.Done != nil {
			r.Done(d)
		}
	}
	return done, nil
}

// all tells of the first target that cannot be restarted.
func (r *Runner) all(ctx context.Context, targets []Target) error {
	for i := range targets {
		if r.Can == nil {
			break
		}
		if targets[i].Await {
			continue
		}
		if err := r.Can(ctx, &targets[i]); err != nil {
			return &StoppedError{Target: targets[i], Err: &NotTriedError{err}, Left: slices.Concat(targets[:i], targets[i+1:])}
		}
	}
	return nil
}

// one restarts a target and waits until it is proved and has stood for a while.
func (r *Runner) one(ctx context.Context, t *Target) (d Done, look string, err error) {
	timeout := orElse(r.Timeout, DefaultTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not within %s", timeout))
	defer cancel()
	if r.May != nil && !t.Await {
		if err := r.May(ctx, t); err != nil {
			return d, "", &NotTriedError{err}
		}
	}
	began := time.Now()
	var l Life = awaited{}
	how, look := "it was not ended", "its log, and kubepki verify --live"
	if !t.Await {
		l, how, look, err = r.Restart(ctx, t)
	}
	if err != nil {
		var not *NotBackError
		if errors.As(err, &not) {
			look = not.Look
		}
		return d, look, err
	}
	defer l.Close()
	d = Done{Target: *t, How: how}
	var last, fell error // why it is not well, and how it ended last
	for {
		if last = r.well(ctx, t, l, &fell); last == nil {
			d.Took = time.Since(began)
			if last = r.settled(ctx, t, l, &fell); last == nil {
				return d, look, nil
			}
		}
		if l.Over(ctx) {
			return d, look, last
		}
		if err := r.pause(ctx, orElse(r.Poll, 500*time.Millisecond)); err != nil {
			if fell != nil && !errors.Is(last, fell) {
				last = fmt.Errorf("%w; %w", last, fell)
			}
			return d, look, fmt.Errorf("%w: %w", err, last)
		}
	}
}

// awaited is the life of what is only waited for: its proof tells of it.
type awaited struct{}

func (awaited) Stands(context.Context) error { return nil }

func (awaited) Over(context.Context) bool { return false }

func (awaited) Close() {}

// well tells why a process is not well: it must stand, and be proved. That it fell is
// kept.
func (r *Runner) well(ctx context.Context, t *Target, l Life, fell *error) error {
	if err := l.Stands(ctx); err != nil {
		*fell = err
		return err
	}
	if r.Proved == nil {
		return nil
	}
	return r.Proved(ctx, t)
}

// settled waits a while, and looks again.
func (r *Runner) settled(ctx context.Context, t *Target, l Life, fell *error) error {
	if err := r.pause(ctx, orElse(r.Settle, defaultSettle)); err != nil {
		return err
	}
	return r.well(ctx, t, l, fell)
}

func (r *Runner) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func orElse(d, other time.Duration) time.Duration {
	if d <= 0 {
		return other
	}
	return d
}

// NotTriedError tells that a target was left as it was.
type NotTriedError struct{ Err error }

func (e *NotTriedError) Error() string { return e.Err.Error() }

// Unwrap returns why.
func (e *NotTriedError) Unwrap() error { return e.Err }

// StoppedError tells that a target did not come back, or may not be restarted, and
// that nothing after it was touched.
type StoppedError struct {
	Target Target
	Err    error
	Look   string // the command that shows why; empty where it was not tried
	Done   []Done
	Left   []Target // those after it
}

func (e *StoppedError) Error() string {
	var not *NotTriedError
	if errors.As(e.Err, &not) {
		return fmt.Sprintf("%s was not restarted: %v", e.Target.ID(), e.Err)
	}
	return fmt.Sprintf("%s did not come back: %v", e.Target.ID(), e.Err)
}

// Unwrap returns why.
func (e *StoppedError) Unwrap() error { return e.Err }

// Hint tells how to see why, and what was not done.
func (e *StoppedError) Hint() string {
	var parts []string
	if e.Look != "" {
		parts = append(parts, "see why: "+e.Look)
	}
	if names := ids(e.Left); len(names) > 0 {
		parts = append(parts, "not restarted yet: "+strings.Join(names, ", "))
	}
	if len(e.Done) > 0 {
		var names []string
		for i := range e.Done {
			names = append(names, e.Done[i].Target.ID())
		}
		parts = append(parts, "restarted and proved: "+strings.Join(names, ", "))
	}
	if len(parts) == 0 {
		return "nothing else was to be restarted"
	}
	return strings.Join(parts, "; ")
}

func ids(targets []Target) []string {
	var names []string
	for i := range targets {
		names = append(names, targets[i].ID())
	}
	return names
}
