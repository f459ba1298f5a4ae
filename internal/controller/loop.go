package controller

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// Loop is one of the controllers that `kubepki controller` runs.
type Loop interface {
	// Run works until the context ends, finishes what it has begun, and returns
	// nil; an error means that it cannot go on.
	Run(ctx context.Context) error
}

// RunAll runs loops until the context ends or one of them cannot go on; the
// others end then too.
func RunAll(ctx context.Context, loops ...Loop) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range loops {
		group.Go(func() error { return l.Run(ctx) })
	}
	return group.Wait()
}
