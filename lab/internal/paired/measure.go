// Package paired measures two ways to do one thing beside each other.
//
// In each round both run for a span, one after the other, in an order that turns
// from round to round, so that whatever else the machine does meets both. Ratios
// are medians over the rounds.
package paired

import (
	"fmt"
	"slices"
	"time"
)

// Comparison is two ways to do one thing: how much faster the first should be,
// or by how much slower it may be.
type Comparison struct {
	What, Beside string
	Ours, Theirs func() error
	Ratio        float64       // of rates, at least; 0: no target
	Adds         time.Duration // at most; 0: no target
}

// header is the head of the table whose rows measure returns, in Markdown.
const header = "| what | time | beside | ratio of rates | target |\n|---|---|---|---|---|"

// measure returns a row of the table, of so many rounds, in each of which both
// run for a span.
func measure(c Comparison, rounds int, span time.Duration) string {
	var ours, theirs, ratios []float64 // seconds, and the ratio of their times
	for round := range rounds {
		a, b, err := both(c, span, round%2 == 1)
		if err != nil {
			return fmt.Sprintf("| %s | failed: %v | | | |", c.What, err)
		}
		ours, theirs, ratios = append(ours, a), append(theirs, b), append(ratios, b/a)
	}
	row := fmt.Sprintf("| %s | %s | %s: %s |", c.What, micro(median(ours)), c.Beside, micro(median(theirs)))
	if c.Adds > 0 {
		added := median(ours) - median(theirs)
		return fmt.Sprintf("%s adds %s | ≤ %s%s |", row, micro(added), micro(c.Adds.Seconds()), missed(added > c.Adds.Seconds()))
	}
	row += fmt.Sprintf(" %.2f (from %.2f to %.2f) |", median(ratios), slices.Min(ratios), slices.Max(ratios))
	if c.Ratio == 0 {
		return row + " – |"
	}
	return fmt.Sprintf("%s ≥ %.2f%s |", row, c.Ratio, missed(median(ratios) < c.Ratio))
}

func missed(yes bool) string {
	if yes {
		return ", **missed**"
	}
	return ""
}

// both returns how long one of ours and one of theirs take, in seconds.
func both(c Comparison, span time.Duration, turned bool) (ours, theirs float64, err error) {
	first, second := c.Ours, c.Theirs
	if turned {
		first, second = second, first
	}
	a, err := once(first, span)
	if err != nil {
		return 0, 0, err
	}
	b, err := once(second, span)
	if turned {
		a, b = b, a
	}
	return a, b, err
}

// once runs something for a span, and returns how long one run takes.
func once(do func() error, span time.Duration) (float64, error) {
	const batch = 20 // so that the clock is asked seldom
	n, start := 0, time.Now()
	for time.Since(start) < span {
		for range batch {
			if err := do(); err != nil {
				return 0, err
			}
		}
		n += batch
	}
	return time.Since(start).Seconds() / float64(n), nil
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

func micro(seconds float64) string { return fmt.Sprintf("%.1f µs", seconds*1e6) }
