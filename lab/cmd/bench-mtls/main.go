// Command bench-mtls measures how fast handshakes are with package mtls on both
// sides, beside a fixed [tls.Config] on both sides, and beside go-spiffe. It
// prints a Markdown table.
//
// Usage: bench-mtls [-rounds N] [-span DURATION]
//
// Package paired says how.
package main

import (
	"time"

	"github.com/kubepki/kubepki/lab/internal/paired"
)

func main() {
	paired.Main("bench-mtls", 200*time.Millisecond, func(compare func(paired.Comparison)) error {
		for _, algorithm := range algorithms() {
			w, err := newWorld(algorithm)
			if err != nil {
				return err
			}
			for _, c := range w.comparisons() {
				compare(c)
			}
			w.close()
		}
		return nil
	})
}
