package csr_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kubepki/kubepki/internal/csr"
)

// drawNode draws from so few names and addresses that nodes often claim the same.
func drawNode(t *rapid.T) csr.Node {
	return csr.Node{
		Name:         rapid.SampledFrom([]string{"w1", "w2", "w3", "cp1"}).Draw(t, "node"),
		Names:        rapid.SliceOfN(rapid.SampledFrom([]string{"w1", "W1", "w2", "cp1", "192.0.2.1", "api.example.test", ""}), 0, 3).Draw(t, "names"),
		Addresses:    rapid.SliceOfN(rapid.SampledFrom([]string{"192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:DB8:0::1", "none"}), 0, 3).Draw(t, "addresses"),
		ControlPlane: rapid.Bool().Draw(t, "control plane"),
		Ready:        rapid.Bool().Draw(t, "ready"),
		Deleting:     rapid.Bool().Draw(t, "deleting"),
	}
}

// questions are requests whose answers depend on the nodes in many ways.
func questions() []*world {
	all := []*world{bootstrap(), renewal()}
	for _, node := range []string{"w1", "w2", "cp1"} {
		all = append(all, servingAs(node, dns("w1")), servingAs(node, dns("cp1")), servingAs(node, ip("192.0.2.1")), servingAs(node, ip("2001:db8::1"), dns("w2")))
	}
	for _, w := range all {
		w.assemble()
		w.facts.Cluster.Endpoints = []string{"192.0.2.1:6443", "api.example.test"}
	}
	return all
}

func answers(all []*world, nodes *csr.Inventory) []csr.Review {
	var reviews []csr.Review
	for _, w := range all {
		facts := w.facts
		facts.Nodes = nodes
		reviews = append(reviews, csr.Decide(w.request, facts, w.policy))
	}
	return reviews
}

func TestAnswersDoNotDependOnTheOrderOfEvents(t *testing.T) {
	all := questions()
	rapid.Check(t, func(t *rapid.T) {
		// What happened, in some order, with nodes that come, change and go.
		long := csr.NewInventory()
		last := map[string]csr.Node{}
		for range rapid.IntRange(0, 12).Draw(t, "events") {
			n := drawNode(t)
			if rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
				long.Delete(n.Name)
				delete(last, n.Name)
				continue
			}
			long.Set(n)
			last[n.Name] = n
		}
		var nodes []csr.Node
		for _, name := range []string{"w1", "w2", "w3", "cp1"} {
			if n, ok := last[name]; ok {
				nodes = append(nodes, n)
			}
		}
		short := csr.NewInventory(rapid.Permutation(nodes).Draw(t, "order")...)
		if diff := cmp.Diff(answers(all, short), answers(all, long)); diff != "" {
			t.Fatal(diff)
		}
	})
}

// Facts that arrive end a doubt. They make nothing right that was wrong, and
// nothing is approved while they are awaited.
func TestAFactThatArrivesEndsDoubtsAlone(t *testing.T) {
	all := questions()
	rapid.Check(t, func(t *rapid.T) {
		w := *rapid.SampledFrom(all).Draw(t, "world")
		full := csr.NewInventory()
		for range rapid.IntRange(0, 4).Draw(t, "nodes") {
			full.Set(drawNode(t))
		}
		known := w.facts
		known.Nodes = full
		known.Authorized = rapid.SampledFrom([]csr.Answer{csr.Yes, csr.No}).Draw(t, "authorized")
		policy := w.policy
		if rapid.Bool().Draw(t, "dns") {
			policy.DNS = true
			known.Resolved = map[string][]netip.Addr{}
			for _, name := range []string{"w1", "w2", "cp1"} {
				ip := rapid.SampledFrom([]string{"192.0.2.1", "192.0.2.2", "2001:db8::1"}).Draw(t, name)
				known.Resolved[name] = []netip.Addr{netip.MustParseAddr(ip)}
			}
		}
		less := known
		switch rapid.IntRange(0, 3).Draw(t, "missing") {
		case 0:
			less.Nodes = nil
		case 1:
			less.Authorized = csr.Unknown
		case 2:
			less.Resolved = nil
		case 3:
			less.Landed = false
		}
		before, after := csr.Decide(w.request, less, policy), csr.Decide(w.request, known, policy)
		if before.Verdict == csr.Deny && after.Verdict != csr.Deny {
			t.Fatalf("it was %v, and is %v", before, after)
		}
		if before.Verdict == csr.Approve && after.Verdict != csr.Approve {
			t.Fatalf("without the fact it was %v, and is %v", before, after)
		}
	})
}

func TestARemovedNodeClaimsNothing(t *testing.T) {
	w := serving()
	w.node("w2").Addresses = append(w.node("w2").Addresses, "192.0.2.11")
	if got := w.review(); got.Verdict != csr.Undecided {
		t.Fatalf("two nodes list an address: %v", got)
	}
	w.facts.Nodes.Delete("w2")
	w.facts.Nodes.Delete("w2")
	if got := csr.Decide(w.request, w.facts, w.policy); got.Verdict != csr.Approve {
		t.Errorf("the other node is gone: %v", got)
	}
}

// Ten thousand nodes that all list the address of the network's way out.
func TestManyClaimantsOfOneAddress(t *testing.T) {
	w := serving()
	for i := range 10_000 {
		w.nodes = append(w.nodes, csr.Node{Name: fmt.Sprintf("n%d", i), Addresses: []string{"198.51.100.1"}})
	}
	w.node("w1").Addresses = append(w.node("w1").Addresses, "198.51.100.1")
	w.shape.names = append(slices.Clone(w.shape.names), ip("198.51.100.1"))
	if got := w.review(); got.Verdict != csr.Undecided || got.Reasons[0].ID != "san-shared" {
		t.Errorf("got %v", got)
	}
}
