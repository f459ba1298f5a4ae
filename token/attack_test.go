package token_test

import (
	"errors"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/token"
)

// Every attack that is known, and its good twin: who is accepted, and the first
// reason of who is not. That Kubernetes' own code says the same of each, or that
// the refusal is a difference which the case declares, is tested in lab/.
func TestVerdicts(t *testing.T) {
	now := time.Now()
	for _, c := range tokentest.Cases(now) {
		t.Run(c.Name, func(t *testing.T) {
			v, err := token.NewVerifier(c.Config(func() time.Time { return now }))
			if err != nil {
				t.Fatal(err)
			}
			got, err := v.VerifyFor(t.Context(), c.Token, c.Asked)
			var refused *token.RefusedError
			switch {
			case c.Want == "" && err != nil:
				t.Fatalf("refused: %v", err)
			case c.Want == "":
				if want := "system:serviceaccount:" + got.Claims.Namespace + ":" + got.Claims.ServiceAccount.Name; got.User.Username != want || got.User.UID != "c3" {
					t.Errorf("user %q (%s), want %q", got.User.Username, got.User.UID, want)
				}
			case !errors.As(err, &refused):
				t.Fatalf("accepted as %+v, or failed: %v; want %s", got, err, c.Want)
			case refused.Reasons[0].ID != c.Want:
				t.Errorf("refused for %s (%v), want %s", refused.Reasons[0].ID, err, c.Want)
			}
		})
	}
}

func TestEveryReasonHasACase(t *testing.T) {
	seen := make(map[token.ReasonID]bool)
	for _, c := range tokentest.Cases(time.Now()) {
		seen[c.Want] = true
	}
	for _, id := range token.ReasonIDs() {
		if !seen[id] {
			t.Errorf("no case is refused for %s", id)
		}
	}
}
