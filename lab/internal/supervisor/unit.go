package supervisor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/kubepki/kubepki/lab"
)

const (
	firstPause = time.Second      // before a component that ended is started again
	longPause  = 10 * time.Second // the pause doubles up to this
	settled    = 30 * time.Second // a component that ran so long begins with the first pause again
	probeEvery = time.Second      // once it is ready; before, see lab.Process.Ready
)

// unit keeps one component running: it starts it when it is wanted, again when
// it ended by itself, and watches whether it is ready.
type unit struct {
	node      *lab.Node
	component string
	// manifest describes the component. It is asked before each start, so that
	// changed flags are taken up.
	manifest func() (*lab.Manifest, error)
	// after is closed when the component may be started for the first time.
	after <-chan struct{}
	// serves is the address, seen from the node, at which the component serves
	// TLS, where its probe does not tell.
	serves string

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at every change
	wanted   bool
	process  *lab.Process
	ready    bool
	since    time.Time // of the present process
	restarts int
	message  string // why it does not run or is not ready
}

func newUnit(node *lab.Node, component string, after <-chan struct{}, manifest func() (*lab.Manifest, error)) *unit {
	return &unit{node: node, component: component, manifest: manifest, after: after, wanted: true, changed: make(chan struct{})}
}

// set changes the unit's state under its lock and tells who waits.
func (u *unit) set(change func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	change()
	close(u.changed)
	u.changed = make(chan struct{})
}

// want says whether the component shall run.
func (u *unit) want(wanted bool) { u.set(func() { u.wanted = wanted }) }

// isReady tells whether the component runs and is ready.
func (u *unit) isReady() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.ready
}

// await waits until the state is as asked for; holds is called under the lock.
// Once the context has ended it is an error, whatever the state.
func (u *unit) await(ctx context.Context, holds func() bool) error {
	for {
		u.mu.Lock()
		ok, changed, message := holds(), u.changed, u.message
		u.mu.Unlock()
		if ok && ctx.Err() == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s of %s: %w: %s", u.component, u.node.Name, ctx.Err(), message)
		}
	}
}

// run keeps the component as it is wanted until the context ends, then stops it.
func (u *unit) run(ctx context.Context) {
	select {
	case <-u.after:
	case <-ctx.Done():
		return
	}
	pause := firstPause
	for u.await(ctx, func() bool { return u.wanted }) == nil {
		started := time.Now()
		again := u.once(ctx)
		if !again || time.Since(started) > settled {
			pause = firstPause
		}
		if again {
			u.rest(ctx, pause)
			pause = min(2*pause, longPause)
		}
	}
}

// rest waits before the next start, unless somebody decides otherwise.
func (u *unit) rest(ctx context.Context, pause time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	_ = u.await(ctx, func() bool { return !u.wanted }) // that the pause is over is no error
}

// once runs the component until it ends. It tells whether it ended by itself.
func (u *unit) once(ctx context.Context) bool {
	manifest, err := u.manifest()
	var p *lab.Process
	if err == nil {
		p, err = u.node.Run(manifest)
	}
	if err != nil {
		u.set(func() { u.message, u.restarts = err.Error(), u.restarts+1 })
		return true
	}
	u.set(func() { u.process, u.since, u.ready, u.message = p, time.Now(), false, "starting" })
	watched, stopWatching := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { u.watch(watched, p) })
	defer watching.Wait()
	defer stopWatching()
	unwanted := make(chan struct{})
	go func() {
		defer close(unwanted)
		_ = u.await(watched, func() bool { return !u.wanted }) // or the end of the process
	}()
	select {
	case <-p.Done():
		stopWatching()
		watching.Wait()
		u.set(func() {
			u.process, u.ready, u.message, u.restarts = nil, false, fmt.Sprintf("ended: %v", p.Exit()), u.restarts+1
		})
		return true
	case <-unwanted:
		stopWatching()
		watching.Wait()
		// New clients go elsewhere from now on: see balancer.
		u.set(func() { u.ready, u.message = false, "stopping" })
		err := p.Stop()
		u.set(func() {
			u.process, u.ready, u.message = nil, false, "stopped"
			if err != nil {
				u.message = err.Error()
			}
		})
		return false
	}
}

// watch keeps the unit's word on whether the process is ready.
func (u *unit) watch(ctx context.Context, p *lab.Process) {
	if err := p.Ready(ctx); err != nil {
		return // it ended, or is not wanted any more: once says so
	}
	u.set(func() { u.ready, u.message = true, "" })
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.Done():
			return
		case <-tick.C:
		}
		seen := p.Probe(ctx)
		if ctx.Err() != nil {
			return
		}
		u.mu.Lock()
		differs := u.ready != (seen == nil)
		u.mu.Unlock()
		if differs {
			u.set(func() {
				u.ready, u.message = seen == nil, ""
				if seen != nil {
					u.message = seen.Error()
				}
			})
		}
	}
}
