package controller

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func TestNoisyOnesHoldUpNobody(t *testing.T) {
	tests := map[string]func(i int) *item{
		"one node behind a token":    func(int) *item { return &item{user: "token", node: "noisy"} },
		"one token with many nodes":  func(i int) *item { return &item{user: "noisy", node: fmt.Sprint(i)} },
		"one node with its own name": func(i int) *item { return &item{user: "system:node:noisy", node: "system:node:noisy"} },
	}
	for name, noise := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLine(12)
			for i := range 10_000 {
				l.push(noise(i))
			}
			quiet := &item{user: "token", node: "quiet"}
			l.push(quiet)
			for turn := 1; ; turn++ {
				it := l.pop()
				if it == quiet {
					break
				}
				if turn > 2 {
					t.Fatal("the quiet one did not have its turn within two others")
				}
				l.done(it)
			}
		})
	}
}

func TestOneUserLeavesWorkersToOthers(t *testing.T) {
	l := newLine(12)
	for i := range 100 {
		l.push(&item{user: "slow", node: fmt.Sprint(i)})
	}
	for i := range 12 {
		if l.pop() == nil {
			t.Fatalf("nothing to do after %d", i)
		}
	}
	if it := l.pop(); it != nil {
		t.Errorf("a thirteenth of one user: %+v", it)
	}
	l.push(&item{user: "other"})
	if it := l.pop(); it == nil || it.user != "other" {
		t.Errorf("the other one has no turn: %+v", it)
	}
}

func TestNewestOfANodeComesFirst(t *testing.T) {
	l := newLine(1)
	for i := range 3 {
		l.push(&item{user: "u", node: "n", name: fmt.Sprint(i)})
	}
	if it := l.pop(); it.name != "2" {
		t.Errorf("the first one is %s", it.name)
	}
	if it := l.pop(); it != nil {
		t.Errorf("two of one node are in work: %+v", it)
	}
}

func TestLineLosesNothingAndBoundsWhatIsInWork(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		perUser := rapid.IntRange(1, 3).Draw(t, "per user")
		l := newLine(perUser)
		waiting, working := map[*item]bool{}, map[*item]bool{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				it := &item{user: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "user"), node: rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "node")}
				waiting[it] = true
				l.push(it)
			case 2:
				if it := l.pop(); it != nil {
					if !waiting[it] {
						t.Fatal("it was not waiting")
					}
					delete(waiting, it)
					working[it] = true
				}
			case 3:
				for it := range working {
					l.done(it)
					delete(working, it)
					break
				}
			}
			users, nodes := map[string]int{}, map[string]int{}
			for it := range working {
				users[it.user]++
				nodes[it.user+it.node]++
				if users[it.user] > perUser || nodes[it.user+it.node] > 1 {
					t.Fatalf("in work are %v %v", users, nodes)
				}
			}
		}
		for it := range working {
			l.done(it)
		}
		for it := l.pop(); it != nil; it = l.pop() {
			delete(waiting, it)
			l.done(it)
		}
		if len(waiting) > 0 || len(l.users) > 0 || l.length != 0 {
			t.Fatalf("%d were lost; %d users are left, length %d", len(waiting), len(l.users), l.length)
		}
	})
}
