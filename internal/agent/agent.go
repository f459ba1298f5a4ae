package agent

import (
	"context"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/resident"
)

// DefaultInterval is how often the files are looked at and all links judged, whether
// anything has changed or not.
const DefaultInterval = time.Minute

// However many nodes an agent reads, it waits a hundred times as long as it works
// until it looks by itself again, but no longer than ten intervals; and ten times as
// long when something has changed meanwhile.
const (
	idleShare     = 100
	idleIntervals = 10
	busyShare     = 10
)

// Options say what an agent looks at and does.
type Options struct {
	// Look reads the nodes and judges their links at a time. Keys are held by what it
	// returns alone.
	Look func(ctx context.Context, at time.Time) (*apply.Nodes, *check.Result, error)
	// Paths are further files; nil: none.
	Paths *Paths
	// Live tells that Look looks at more than files: it is asked each time.
	Live bool
	// Expiring is the window of cert-expiring; 0 as in [check.Options].
	Expiring time.Duration
	// Interval is how often; 0: [DefaultInterval].
	Interval time.Duration
	// Renewal is how what is due is made anew; nil: it is only watched.
	Renewal *Renewal
	Board   *Board // nil: one that nobody sees
	Log     *slog.Logger
	Clock   Clock // nil: that of the machine
}

// Agent is one loop. Its methods are for one goroutine.
type Agent struct {
	Options
	watcher *watcher
	steady  steady
	known   known
	seen    seen
	renewer *renewer
	changed bool      // the watcher has told of something since the last look
	had     inFolders // with what was seen in them last, while they were there
	tidy    bool      // a round has used much memory
	failed  string    // why the nodes cannot be looked at, as it was told

	looks int                  // how often all was read
	spent func() time.Duration // of the processor by this process
}

// New returns an agent that [Agent.Run] starts.
func New(o Options) *Agent {
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	if o.Clock == nil {
		o.Clock = MachineClock{}
	}
	if o.Board == nil {
		o.Board = NewBoard(o.Clock.Now)
	}
	a := &Agent{Options: o, spent: processorTime}
	if o.Paths != nil {
		o.Board.Include(o.Paths)
	}
	if o.Renewal != nil {
		a.renewer = newRenewer(o)
	}
	return a
}

// Run looks, judges and makes anew until the context ends; it has ended then within
// a second, unless files are just being replaced, which is not interrupted. It never
// gives up: what fails is logged, and tried again.
func (a *Agent) Run(ctx context.Context) error {
	if a.watcher == nil {
		a.watcher = newWatcher(a.Log)
	}
	defer a.watcher.Close()
	if a.renewer != nil {
		defer a.renewer.close()
	}
	for first := true; ctx.Err() == nil; first = false {
		began, spent, looks := time.Now(), a.spent(), a.looks
		next := a.round(ctx)
		a.slim()
		// What others had of a busy machine meanwhile is no work of ours.
		took := min(time.Since(began), a.spent()-spent)
		switch {
		case first:
			took = 0 // nothing was known then: it says little of the next
		case a.looks > looks:
			a.seen.every = roundsFor(a.spent()-spent, a.Interval)
		}
		a.wait(ctx, began, took, next)
	}
	a.Log.Info("stopped")
	return nil
}

// slim lets go of what a round needed and the time until the next does not.
func (a *Agent) slim() {
	if a.tidy {
		a.tidy = false
		debug.FreeOSMemory()
	}
	if a.Interval >= slimFrom {
		resident.DropProgram()
	}
}

// wait returns when it is time for the next round: when something has changed, when a
// certificate falls due, or after the interval. Whatever happens on the disk, rounds do
// not follow each other without a pause.
func (a *Agent) wait(ctx context.Context, began time.Time, took time.Duration, next time.Time) {
	pause := time.After(max(time.Second, min(busyShare*took, a.Interval)))
	due := time.Until(began.Add(max(a.Interval, min(idleShare*took, idleIntervals*a.Interval))))
	if !next.IsZero() {
		due = min(due, max(0, next.Sub(a.Clock.Now())))
	}
	timer := time.NewTimer(due)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-a.watcher.Changed():
		a.changed = true
	case <-timer.C:
	}
	select {
	case <-ctx.Done():
	case <-pause:
	}
}

// round is one look at everything, and what follows from it. It returns when something
// will be to do before the next interval; zero: nothing.
func (a *Agent) round(ctx context.Context) (next time.Time) {
	defer resident.Work()()
	a.Board.Progress()
	if jump := a.steady.look(a.Clock); jump != 0 {
		a.Log.Warn("the clock of this machine was set: nothing is made anew for a while", "by", jump.Round(time.Second), "for", jumpHolds)
	}
	before := heapInUse()
	var folders []string
	if a.Paths != nil {
		folders = a.Paths.Look(ctx)
	}
	now := a.Clock.Now()
	if !a.mustLook(now) {
		a.seen.rounds++
		a.show(now)
		a.watcher.Watch(append(folders, a.seen.folders...))
		return a.seen.next
	}
	a.changed = false
	began := time.Now()
	nodes := a.look(ctx)
	if nodes != nil && a.renewer != nil {
		next, did := a.renewer.round(ctx, nodes, &a.steady)
		if did { // what stands there now, and when that falls due
			began = time.Now()
			nodes = a.look(ctx)
			a.changed, next = true, a.Clock.Now()
		}
		a.seen.next = next
	}
	if nodes != nil {
		if a.renewer == nil {
			a.seen.next = time.Time{}
		}
		a.seen.keep(nodes)
	}
	// After an error those before: what was there may come back.
	a.watcher.Watch(append(folders, a.seen.folders...))
	if nodes != nil && !a.seen.stamp(began) { // no event tells what changed before it was watched
		a.seen.next = earlier(a.seen.next, a.Clock.Now().Add(settledAfter))
	}
	a.tidy = heapInUse() > before+1<<20
	return a.seen.next
}

// mustLook tells whether the verdict could be another one now than at the last look:
// something has changed, or a certificate has come of age. Otherwise everything is read
// as often as is cheap.
func (a *Agent) mustLook(now time.Time) bool {
	return a.Live || a.changed || a.failed != "" || a.renewer != nil && a.renewer.waits || a.seen.other(now)
}

// look reads and judges everything, and tells what has changed since the last time.
func (a *Agent) look(ctx context.Context) *apply.Nodes {
	a.looks++
	at := a.Clock.Now()
	began := time.Now()
	nodes, result, err := a.Look(ctx, at)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		a.Board.Unread(err)
		if a.failed != err.Error() {
			a.failed = err.Error()
			a.Log.Error("the nodes cannot be looked at", append([]any{"error", err.Error()}, hint(err)...)...)
		}
		return nil
	}
	if a.failed != "" {
		a.failed = ""
		a.Log.Info("the nodes can be looked at again")
	}
	a.seen.verified = NewVerified(nodes.Graph, result, at, time.Since(began))
	a.vanished(nodes.Graph, a.seen.verified)
	a.seen.at, a.seen.rounds, a.seen.until = at, 0, turning(nodes.Graph, at, a.Expiring)
	a.show(at)
	return nodes
}

// show says what is so at a time, by what was seen last.
func (a *Agent) show(at time.Time) {
	if a.seen.verified == nil {
		return
	}
	v := *a.seen.verified
	v.At = at
	if a.Paths != nil {
		v.Findings = slices.Clone(v.Findings)
		for _, f := range a.Paths.Findings(at, a.Expiring) {
			v.Findings = append(v.Findings, f)
			v.Healthy = v.Healthy && f.Severity != check.Error
		}
	}
	a.known.compare(a.Log, &v)
	a.Board.Verified(&v)
}

// heapInUse is how many bytes of the heap are in use.
func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// hint are the attributes of what to do about an error.
func hint(err error) []any {
	if h, ok := err.(interface{ Hint() string }); ok && h.Hint() != "" { //nolint:errorlint // that of the outermost is the fitting one
		return []any{"hint", h.Hint()}
	}
	return nil
}
