package csr_test

import (
	"fmt"
	"testing"

	"github.com/kubepki/kubepki/internal/csr"
)

// The cost of a decision, signature and all, among ten thousand nodes.
func BenchmarkDecide(b *testing.B) {
	nodes := cluster()
	for i := range 10_000 {
		nodes = append(nodes, csr.Node{Name: fmt.Sprintf("node-%d", i), Names: []string{fmt.Sprintf("node-%d", i)},
			Addresses: []string{fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)}, Ready: true})
	}
	inventory := csr.NewInventory(nodes...)
	for _, kind := range []struct {
		name string
		from func() *world
	}{{"bootstrap", bootstrap}, {"renewal", renewal}, {"serving", serving}, {"serving, every source", confirmed}} {
		for _, key := range []struct {
			name string
			use  func(*world)
		}{{"ECDSA", nothing}, {"RSA", func(w *world) { w.shape.key = keyRSA() }}} {
			b.Run(kind.name+" "+key.name, func(b *testing.B) {
				w := kind.from()
				key.use(w)
				w.assemble()
				w.facts.Nodes = inventory
				b.ReportAllocs()
				for b.Loop() {
					if got := csr.Decide(w.request, w.facts, w.policy); got.Verdict != csr.Approve {
						b.Fatal(got)
					}
				}
			})
		}
	}
}
