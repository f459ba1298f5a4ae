//go:build !linux

package agent

import "time"

// MachineClock is the clock of this machine.
type MachineClock struct{}

var started = time.Now()

// Now is the wall clock.
func (MachineClock) Now() time.Time { return time.Now() }

// Running is Go's monotonic clock: control planes are Linux machines.
func (MachineClock) Running() time.Duration { return time.Since(started) }

// processorTime is the clock's, which is never less.
func processorTime() time.Duration { return time.Since(started) }
