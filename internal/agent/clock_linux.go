package agent

import (
	"time"

	"golang.org/x/sys/unix"
)

// MachineClock is the clock of this machine.
type MachineClock struct{}

// Now is the wall clock.
func (MachineClock) Now() time.Time { return time.Now() }

// Running is CLOCK_BOOTTIME, which goes on while the machine is suspended, as
// CLOCK_MONOTONIC, Go's, does not.
func (MachineClock) Running() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // every Linux since 2.6.39 has it
	return time.Duration(t.Nano())
}

// processorTime is what this process has had of all processors.
func processorTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // which fails for a wrong address alone
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
