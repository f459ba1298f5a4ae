package resident

import (
	"sync"
	"time"
)

// While something works, pages of the program are let go of as soon as more than
// workMost KiB of them are resident, looked at every workStep: what a piece of work
// needs at one moment is less than that, and what all its pieces need together is more.
const (
	workStep = 2 * time.Millisecond
	workMost = 8 << 10
)

// workers counts the pieces of work; the first one starts what lets go, and the last
// one ends it.
var workers struct {
	mu   sync.Mutex
	many int
	over chan struct{}
}

// Work keeps the program's own pages few until done is called, in a process that stays
// small. It may be called by many at once, and costs nothing in other processes.
func Work() (done func()) {
	if !small.Load() {
		return func() {}
	}
	w := &workers
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.many++; w.many == 1 {
		w.over = make(chan struct{})
		go keepFew(w.over)
	}
	return sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.many--; w.many == 0 {
			close(w.over)
			DropProgram()
		}
	})
}

// Pause is for work between two of its parts, where it knows that the next one needs
// other pages: the clock comes late where all processors are busy.
func Pause() {
	if small.Load() && ofFiles() > workMost {
		DropProgram()
	}
}

func keepFew(over <-chan struct{}) {
	ticks := time.NewTicker(workStep)
	defer ticks.Stop()
	for {
		select {
		case <-over:
			return
		case <-ticks.C:
			Pause()
		}
	}
}
