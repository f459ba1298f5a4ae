//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// row is one line of the table.
type row struct{ what, wanted, result string }

func (b *bench) add(what, wanted, format string, args ...any) {
	r := row{what, wanted, fmt.Sprintf(format, args...)}
	b.rows = append(b.rows, r)
	fmt.Fprintf(os.Stderr, "%s: %s\n", r.what, r.result)
}

// measure measures everything. What is compared runs in turns, on one API server.
func (b *bench) measure(ctx context.Context) error {
	for _, step := range []func(context.Context) error{b.defaults, b.lifted, b.quiet, b.long, b.crowded} {
		if err := b.deleteAll(ctx); err != nil {
			return err
		}
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// limited is how many requests show kube-controller-manager's own limits.
const limited = 500

// defaults compares with kube-controller-manager as it comes.
func (b *bench) defaults(ctx context.Context) error {
	if err := b.manager(ctx, standard); err != nil {
		return err
	}
	theirs, err := b.runController(ctx, "kcm-default", limited)
	if err != nil {
		return err
	}
	if err := b.manager(ctx, withoutCSRs); err != nil {
		return err
	}
	var ours outcome
	err = b.withController(ctx, func(*controller) error {
		ours, err = b.runController(ctx, "kubepki-default", limited)
		return err
	})
	if err != nil {
		return err
	}
	b.add(fmt.Sprintf("%d requests: kube-controller-manager with its default limits", limited), "", "%.1f/s (p50 %s, p99 %s)", theirs.rate, round(theirs.p50), round(theirs.p99))
	b.add(fmt.Sprintf("%d requests: kubepki", limited), "≥ 25 × that", "%.0f/s, **%.1f ×** (p50 %s, p99 %s)", ours.rate, ours.rate/theirs.rate, round(ours.p50), round(ours.p99))
	return nil
}

// lifted compares with kube-controller-manager without limits and with the floor.
func (b *bench) lifted(ctx context.Context) error {
	var floors, ours, theirs []float64
	for i := range b.pairs {
		if err := b.manager(ctx, withoutCSRs); err != nil {
			return err
		}
		bare, err := b.runFloor(ctx, fmt.Sprintf("floor-%d", i), b.requests)
		if err != nil {
			return err
		}
		var own outcome
		err = b.withController(ctx, func(*controller) error {
			own, err = b.runController(ctx, fmt.Sprintf("kubepki-%d", i), b.requests)
			return err
		})
		if err != nil {
			return err
		}
		if err := b.manager(ctx, standard, "--kube-api-qps=100000", "--kube-api-burst=100000"); err != nil {
			return err
		}
		other, err := b.runController(ctx, fmt.Sprintf("kcm-%d", i), b.requests)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "pair %d: floor %.0f/s, kubepki %.0f/s (p50 %s, p99 %s), kube-controller-manager %.0f/s\n", i, bare.rate, own.rate, round(own.p50), round(own.p99), other.rate)
		floors, ours, theirs = append(floors, bare.rate), append(ours, own.rate), append(theirs, other.rate)
		if err := b.deleteAll(ctx); err != nil {
			return err
		}
	}
	n := b.requests
	b.add(fmt.Sprintf("%d requests: the floor", n), "", "%.0f/s", median(floors))
	b.add(fmt.Sprintf("%d requests: kube-controller-manager, limits lifted", n), "", "%.0f/s", median(theirs))
	b.add(fmt.Sprintf("%d requests: kubepki", n), "≥ 1.8 × kube-controller-manager, ≥ 0.8 × the floor", "%.0f/s, **%.2f ×** and **%.2f ×**",
		median(ours), median(ratios(ours, theirs)), median(ratios(ours, floors)))
	return b.manager(ctx, withoutCSRs)
}

// singles is enough for a 99th percentile.
const singles = 300

func (b *bench) quiet(ctx context.Context) error {
	return b.withController(ctx, func(*controller) error {
		o, err := b.runSingles(ctx, "single", singles)
		if err == nil {
			b.add("one request on a quiet cluster, from its creation until its certificate is seen", "p99 ≤ 30 ms", "p50 %s, **p99 %s**", round(o.p50), round(o.p99))
		}
		return err
	})
}

// long is the long run, and what the controller's memory comes to.
func (b *bench) long(ctx context.Context) error {
	bare, err := b.runFloor(ctx, "floor-long", b.many)
	if err != nil {
		return err
	}
	if err := b.deleteAll(ctx); err != nil {
		return err
	}
	return b.withController(ctx, func(c *controller) error {
		before, err := c.memory()
		if err != nil {
			return err
		}
		o, err := b.runController(ctx, "long", b.many)
		if err != nil {
			return err
		}
		after, err := c.memory()
		if err == nil {
			b.add(fmt.Sprintf("%d requests: kubepki", b.many), "≥ 0.8 × the floor; memory flat", "%.0f/s, **%.2f ×** of %.0f/s (p50 %s, p99 %s); memory %d MiB before, %d MiB after",
				o.rate, o.rate/bare.rate, bare.rate, round(o.p50), round(o.p99), before, after)
		}
		return err
	})
}

// crowded is a run beside requests that nobody settles.
func (b *bench) crowded(ctx context.Context) error {
	var empty outcome
	err := b.withController(ctx, func(*controller) (err error) {
		empty, err = b.runController(ctx, "empty", b.requests)
		return err
	})
	if err != nil {
		return err
	}
	requests, err := stale("stale", b.stale)
	if err != nil {
		return err
	}
	if err := parallel(ctx, requests, b.create); err != nil {
		return err
	}
	return b.withController(ctx, func(c *controller) error {
		o, err := b.runController(ctx, "crowded", b.requests)
		if err != nil {
			return err
		}
		memory, err := c.memory()
		if err == nil {
			b.add(fmt.Sprintf("%d requests beside %d that nobody settles", b.requests, b.stale), "≥ 0.8 × without them", "%.0f/s, **%.2f ×** of %.0f/s (p99 %s); memory %d MiB",
				o.rate, o.rate/empty.rate, empty.rate, round(o.p99), memory)
		}
		return err
	})
}

func round(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func ratios(a, b []float64) []float64 {
	all := make([]float64, len(a))
	for i := range a {
		all[i] = a[i] / b[i]
	}
	return all
}
