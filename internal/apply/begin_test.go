package apply

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/kubepki/kubepki/internal/issue"
)

// TestKeysThatWereBegunEarlyCountAmongThoseNeeded: who guesses first and knows later
// makes no key twice.
func TestKeysThatWereBegunEarlyCountAmongThoseNeeded(t *testing.T) {
	of := func(a issue.Algorithm, n int) []issue.Algorithm { return slices.Repeat([]issue.Algorithm{a}, n) }
	for _, row := range []struct {
		name              string
		guessed, known    []issue.Algorithm
		wanted, otherwise int
	}{
		{"fewer were guessed than are needed", of(issue.ECDSAP256, 3), of(issue.ECDSAP256, 5), 5, 0},
		{"more were guessed, and are made", of(issue.ECDSAP256, 5), of(issue.ECDSAP256, 3), 5, 0},
		{"none was guessed", nil, of(issue.ECDSAP256, 4), 4, 0},
		{"another kind was guessed", of(issue.Ed25519, 2), of(issue.ECDSAP256, 4), 4, 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := MakeAhead(row.guessed)
				synctest.Wait()
				a.Begin(row.known)
				synctest.Wait()
				if got := len(a.made[issue.ECDSAP256]); got != row.wanted {
					t.Errorf("%d keys were made, want %d", got, row.wanted)
				}
				if got := len(a.made[issue.Ed25519]); got != row.otherwise {
					t.Errorf("%d keys of the kind that was guessed, want %d", got, row.otherwise)
				}
			})
		})
	}
}
