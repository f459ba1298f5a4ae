package main

import (
	"context"
	"fmt"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/probe"
	"github.com/kubepki/kubepki/internal/proof"
	"github.com/kubepki/kubepki/internal/trust"
)

// liveFlags are the flags of commands that dial servers.
type liveFlags struct {
	on      bool
	timeout time.Duration
}

// options returns how to dial, nil without --live.
func (f *liveFlags) options(s streams, at string) (*probe.Options, error) {
	switch {
	case f.timeout <= 0:
		return nil, usagef("--timeout: %s is no time to wait: use 5s", f.timeout)
	case !f.on:
		return nil, nil
	case at != "":
		return nil, usagef("--live and --at contradict each other: what a server presents is what it presents now")
	}
	return &probe.Options{Timeout: f.timeout, Seen: progress(s)}, nil
}

// progress tells a person at a terminal how many servers have been looked at.
func progress(s streams) func(done, all int) {
	if !isTerminal(s.err) {
		return nil
	}
	return func(done, all int) {
		if fmt.Fprintf(s.err, "\rlooking at servers: %d of %d", done, all); done == all {
			fmt.Fprint(s.err, "\r\x1b[K")
		}
	}
}

// observe looks at the running components of a graph.
func observe(ctx context.Context, g *trust.Graph, keys proof.Keys, o probe.Options, at time.Time) {
	o.At = at
	g.Observations = probe.Run(ctx, g, catalog.Servers(g), probe.Keys(keys), o)
}
