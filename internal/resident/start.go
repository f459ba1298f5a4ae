// Package resident keeps small what of this program is in memory.
//
// The start of a program that links client-go and CEL touches most of its own pages:
// the runtime goes through its tables, and each package fills its own. On Linux that
// is 40 MiB and more at one moment, of which an agent needs a tenth later on. This
// package imports next to nothing, so that it is among the first to be initialised,
// and from then on lets go of them again and again until the start is over.
package resident

import (
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// small tells that the process is one that stays small.
var small atomic.Bool

// StaySmall says that this process is one that [Work] is for.
func StaySmall() { small.Store(true) }

// startStep is how often pages are let go of while the program starts, which takes some
// twenty milliseconds, and startMost for how long at most.
const (
	startStep = 2 * time.Millisecond
	startMost = time.Second
)

// Started tells that the start is over. It may be called at any time, from any
// goroutine.
var Started = sync.OnceFunc(atStart(os.Args))

// atStart drops pages for the command that must stay small, and costs the others
// nothing. It returns what ends that.
func atStart(args []string) (end func()) {
	if len(args) < 2 || args[1] != "agent" {
		return func() {}
	}
	over, ended := make(chan struct{}), make(chan struct{})
	DropProgram()
	go func() {
		defer close(ended)
		ticks := time.NewTicker(startStep)
		defer ticks.Stop()
		for began := time.Now(); time.Since(began) < startMost; DropProgram() {
			select {
			case <-ticks.C:
			case <-over:
				return
			}
		}
	}()
	return func() { close(over); <-ended }
}
