package resident

import (
	"os"
	"runtime"
	"runtime/debug"
)

// roomyPercent puts the first collection of garbage off until there are some thirty
// megabytes of it; Go's own 100 begins at four.
const roomyPercent = 800

// The start of this program alone makes Go collect twice, and one node's renewal six
// times more, a tenth of its time, though all of it fits into what is nothing to a
// machine that runs a control plane.
var _ = collectLater(os.Args)

// collectLater puts the first collection off, for the command that is over before it
// would pay. From that one on it is as ever, so that a thousand nodes need what they did.
// What was asked for by GOGC stays. It tells whether it did so.
func collectLater(args []string) bool {
	if len(args) < 2 || args[1] != "renew" {
		return false
	}
	was := debug.SetGCPercent(roomyPercent)
	if was != 100 {
		debug.SetGCPercent(was)
		return false
	}
	runtime.AddCleanup(new(unreachable), func(was int) { debug.SetGCPercent(was) }, was)
	return true
}

// unreachable is found by the first collection.
type unreachable struct{ _ [32]byte }
