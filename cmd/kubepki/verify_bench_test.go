package main

import (
	"os"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/check"
)

// BenchmarkVerify is the whole of verify but for the start of the process.
func BenchmarkVerify(b *testing.B) {
	dir := os.Getenv("KUBEPKI_BENCH_ROOT")
	if dir == "" {
		b.Skip("KUBEPKI_BENCH_ROOT names no node root to verify")
	}
	c := cluster{nodes: []nodeRoot{{dir: dir}}}
	for b.Loop() {
		if v := verify(b.Context(), c, check.Options{At: time.Now()}, nil); v.err != nil {
			b.Fatal(v.err)
		}
	}
}
