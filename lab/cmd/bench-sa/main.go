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
	"time"

	"github.com/kubepki/kubepki/lab/internal/paired"
)

func main() {
	paired.Main("bench-sa", 100*time.Millisecond, func(compare func(paired.Comparison)) error {
		for _, algorithm := range algorithms() {
			s, err := newSubject(algorithm)
			if err != nil {
				return err
			}
			for _, c := range s.comparisons() {
				compare(c)
			}
		}
		return nil
	})
}
