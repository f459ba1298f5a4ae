// Command bench-sa measures how fast package token verifies and issues tokens of
// service accounts, beside Kubernetes' own code and beside the bare signature,
// and what the middleware adds for a token that is remembered. It prints a
// Markdown table.
//
// Usage: bench-sa [-rounds N] [-span DURATION]
//
// Package paired says how.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/kubepki/kubepki/lab/internal/paired"
)

func main() {
	rounds := flag.Int("rounds", 25, "rounds")
	span := flag.Duration("span", 100*time.Millisecond, "how long each runs in a round")
	flag.Parse()
	if err := run(*rounds, *span); err != nil {
		fmt.Fprintf(os.Stderr, "bench-sa: %v\n", err)
		os.Exit(1)
	}
}

func run(rounds int, span time.Duration) error {
	if rounds < 1 || span <= 0 {
		return fmt.Errorf("-rounds and -span must be positive")
	}
	fmt.Println(paired.Header)
	for _, algorithm := range algorithms() {
		s, err := newSubject(algorithm)
		if err != nil {
			return err
		}
		for _, c := range s.comparisons() {
			fmt.Println(paired.Measure(c, rounds, span))
		}
	}
	return nil
}
