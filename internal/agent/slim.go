package agent

import (
	"runtime/debug"
	"time"

	"github.com/kubepki/kubepki/internal/resident"
)

// What a process that mostly waits may hold: the collector works harder for it, which
// costs a few milliseconds each minute.
const (
	slimLimit   = 24 << 20 // bytes of Go's memory, a soft limit
	slimPercent = 30
	// slimFrom is the interval of rounds from which on the program's own pages are let
	// go between two of them: mapping them again costs a millisecond or two.
	slimFrom = 10 * time.Second
)

// Slim makes the process small, for as long as it runs: the collector keeps the heap
// near what is alive, and the pages of the program that only its start needed are let
// go. The kernel maps them again from its cache when they are needed.
func Slim() {
	debug.SetGCPercent(slimPercent)
	debug.SetMemoryLimit(slimLimit)
	debug.FreeOSMemory()
	resident.Started()
	resident.StaySmall()
	resident.DropProgram()
}
