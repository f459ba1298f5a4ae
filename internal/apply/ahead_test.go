package apply_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/issue"
)

// TestKeysMadeAheadAreEachGivenOnce: those that were asked for ahead, fewer, more, and
// of another kind.
func TestKeysMadeAheadAreEachGivenOnce(t *testing.T) {
	ahead := []issue.Algorithm{issue.ECDSAP256, issue.ECDSAP256, issue.Ed25519, issue.ECDSAP256, issue.ECDSAP384}
	a := apply.MakeAhead(ahead)
	a.Only(map[issue.Algorithm]int{issue.ECDSAP256: 6, issue.Ed25519: 1})
	var mu sync.Mutex
	seen := map[string]issue.Algorithm{}
	var wait sync.WaitGroup
	for i := range 12 {
		algorithm := []issue.Algorithm{issue.ECDSAP256, issue.Ed25519, issue.ECDSAP384}[i%3]
		wait.Go(func() {
			key, err := a.Key(algorithm)
			if err != nil {
				t.Error(err)
				return
			}
			text, err := issue.EncodePublicKey(key.Public())
			if got := issue.AlgorithmOf(key.Public()); err != nil || got != algorithm {
				t.Errorf("asked was %s, got %s: %v", algorithm, got, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if _, twice := seen[string(text)]; twice {
				t.Error("a key was given twice")
			}
			seen[string(text)] = algorithm
		})
	}
	wait.Wait()
	if len(seen) != 12 {
		t.Errorf("%d keys of 12", len(seen))
	}
	if _, err := a.Key("DSA-512"); err == nil {
		t.Error("a key of an unknown kind was made")
	}
	a.Only(nil)
}

// TestNoGoroutineOutlivesTheKeys: the bubble ends only when all have ended.
func TestNoGoroutineOutlivesTheKeys(t *testing.T) {
	for _, row := range []struct {
		name               string
		ahead, taken, only int
	}{
		{"all are taken", 4, 4, 4},
		{"fewer are taken than were asked for ahead", 4, 1, 1},
		{"more are taken", 2, 5, 5},
		{"none is taken", 3, 0, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := apply.MakeAhead(slices.Repeat([]issue.Algorithm{issue.ECDSAP256}, row.ahead))
				a.Only(map[issue.Algorithm]int{issue.ECDSAP256: row.only})
				for range row.taken {
					go func() {
						if key, err := a.Key(issue.ECDSAP256); err != nil || key == nil {
							t.Errorf("no key: %v", err)
						}
					}()
				}
				synctest.Wait()
				a.Only(nil)
			})
		})
	}
	t.Run("a kind of which no key can be made", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := apply.MakeAhead([]issue.Algorithm{"DSA-512", "DSA-512"})
			if _, err := a.Key("DSA-512"); err == nil {
				t.Error("one was made")
			}
		})
	})
}
