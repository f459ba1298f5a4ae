// Command bench-mtls measures how fast handshakes are with package mtls on both
// sides, beside a fixed [tls.Config] on both sides, and beside go-spiffe. It
// prints a Markdown table.
//
// Usage: bench-mtls [-rounds N] [-span DURATION]
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
	span := flag.Duration("span", 200*time.Millisecond, "how long each runs in a round")
	flag.Parse()
	if err := run(*rounds, *span); err != nil {
		fmt.Fprintf(os.Stderr, "bench-mtls: %v\n", err)
		os.Exit(1)
	}
}

func run(rounds int, span time.Duration) error {
	if rounds < 1 || span <= 0 {
		return fmt.Errorf("-rounds and -span must be positive")
	}
	fmt.Println(paired.Header)
	for _, algorithm := range algorithms() {
		w, err := newWorld(algorithm)
		if err != nil {
			return err
		}
		for _, c := range w.comparisons() {
			fmt.Println(paired.Measure(c, rounds, span))
		}
		w.close()
	}
	return nil
}
