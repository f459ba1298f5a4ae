package agent

import (
	"context"
	"log/slog"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/trust"
)

// DefaultInterval is how often the files are looked at and all links judged, whether
// anything has changed or not.
const DefaultInterval = time.Minute

// idleShare is how much longer the agent waits than it works: a hundredth of a core is
// what it may take however many nodes it reads.
const idleShare = 100

// Options say what an agent looks at and does.
type Options struct {
	// Look reads the nodes and judges their links at a time. Keys are held by what it
	// returns alone.
	Look func(ctx context.Context, at time.Time) (*apply.Nodes, *check.Result, error)
	// Paths are further files; nil: none.
	Paths *Paths
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
	renewer *renewer
	tidy    bool   // a round has used much memory
	failed  string // why the nodes cannot be looked at, as it was told
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
	a := &Agent{Options: o}
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
	a.watcher = newWatcher(a.Log)
	defer a.watcher.Close()
	if a.renewer != nil {
		defer a.renewer.close()
	}
	for ctx.Err() == nil {
		began := time.Now()
		next := a.round(ctx)
		if a.tidy { // what was parsed is not needed until the next round
			a.tidy = false
			debug.FreeOSMemory()
		}
		a.wait(ctx, began, time.Since(began), next)
	}
	a.Log.Info("stopped")
	return nil
}

// wait returns when it is time for the next round: when something has changed, when a
// certificate falls due, or after the interval. Whatever happens on the disk, rounds do
// not follow each other without a pause.
func (a *Agent) wait(ctx context.Context, began time.Time, took time.Duration, next time.Time) {
	pause := time.After(max(time.Second, min(idleShare*took, a.Interval)))
	due := time.Until(began.Add(max(a.Interval, idleShare*took)))
	if !next.IsZero() {
		due = min(due, max(0, next.Sub(a.Clock.Now())))
	}
	timer := time.NewTimer(due)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-a.watcher.Changed():
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
	a.Board.Progress()
	if jump := a.steady.look(a.Clock); jump != 0 {
		a.Log.Warn("the clock of this machine was set: nothing is made anew for a while", "by", jump.Round(time.Second), "for", jumpHolds)
	}
	before := heapInUse()
	var folders []string
	if a.Paths != nil {
		folders = a.Paths.Look(ctx)
	}
	nodes, result := a.look(ctx)
	if nodes != nil && a.renewer != nil {
		var did bool
		if next, did = a.renewer.round(ctx, nodes, result, &a.steady); did {
			nodes, result = a.look(ctx) // what stands there now
		}
	}
	if nodes != nil {
		a.known.folders = foldersOf(nodes)
	}
	// After an error those before: what was there may come back.
	a.watcher.Watch(append(folders, a.known.folders...))
	if heapInUse() > before+1<<20 {
		a.tidy = true
	}
	return next
}

// look reads and judges everything, and tells what has changed since the last time.
func (a *Agent) look(ctx context.Context) (*apply.Nodes, *check.Result) {
	at := a.Clock.Now()
	began := time.Now()
	nodes, result, err := a.Look(ctx, at)
	if ctx.Err() != nil {
		return nil, nil
	}
	if err != nil {
		a.Board.Unread(err)
		if a.failed != err.Error() {
			a.failed = err.Error()
			a.Log.Error("the nodes cannot be looked at", append([]any{"error", err.Error()}, hint(err)...)...)
		}
		return nil, nil
	}
	if a.failed != "" {
		a.failed = ""
		a.Log.Info("the nodes can be looked at again")
	}
	v := NewVerified(nodes.Graph, result, at, time.Since(began))
	if a.Paths != nil {
		for _, f := range a.Paths.Findings(at, a.Expiring) {
			v.Findings = append(v.Findings, f)
			v.Healthy = v.Healthy && f.Severity != check.Error
		}
	}
	a.known.compare(a.Log, v)
	a.Board.Verified(v)
	return nodes, result
}

// foldersOf are the folders of everything that was read of nodes, or would be if it
// were there.
func foldersOf(n *apply.Nodes) []string {
	seen, dirs := map[string]bool{}, map[string]bool{}
	var all []string
	add := func(p trust.Place) {
		dir, known := n.Dirs[p.Node]
		if p.Path == "" || !known || seen[dir+"\x00"+p.Path] {
			return
		}
		seen[dir+"\x00"+p.Path] = true
		for _, f := range folders(dir, p.Path) {
			if !dirs[f] {
				dirs[f] = true
				all = append(all, f)
			}
		}
	}
	for i := range n.Nodes {
		node := &n.Nodes[i]
		for _, f := range node.Files {
			add(f.Place)
		}
		for _, m := range node.Materials {
			add(m.Place)
		}
		for _, k := range node.Kubeconfigs {
			add(k.Place)
		}
		for _, c := range node.Components {
			add(c.Source)
		}
		add(trust.Place{Node: node.Name, Path: "/etc/kubernetes/manifests/any"}) // a component may be added
	}
	return all
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
