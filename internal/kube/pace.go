package kube

import (
	"context"
	"time"
)

// Pace spaces the looks of somebody who waits: short at first, for most waits are, and
// two seconds in the end.
type Pace struct{ next time.Duration }

// Wait waits for the next look; it returns the context's error where that ends before.
func (p *Pace) Wait(ctx context.Context) error {
	p.next = min(max(p.next*3/2, 100*time.Millisecond), 2*time.Second)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(p.next):
		return nil
	}
}
