//go:build linux

package lab_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
)

// What the measurements of the matrix must not let pass, played with components
// that are none.
func TestTheMatrixCatchesWhatItShould(t *testing.T) {
	never := time.Duration(-1)
	tests := []struct {
		name string
		want catalog.Takeup
		// takes is when a change is in use, after the first look and after it.
		before  bool
		takes   time.Duration
		problem string
	}{
		{"at once, as the matrix says", catalog.Takeup{Manner: catalog.AtHandshake}, false, 0, ""},
		{"in time", catalog.Takeup{Manner: catalog.ByItself, Within: time.Minute}, false, 59 * time.Second, ""},
		{"never, as the matrix says", catalog.Takeup{Manner: catalog.AtRestart}, false, never, ""},
		{"in use before", catalog.Takeup{Manner: catalog.ByItself, Within: time.Minute}, true, 0, "before the change"},
		{"in use before, and never to be", catalog.Takeup{Manner: catalog.AtRestart}, true, never, "before the change"},
		{"late", catalog.Takeup{Manner: catalog.ByItself, Within: time.Minute}, false, 2 * time.Minute, "not in use after"},
		{"not at a handshake", catalog.Takeup{Manner: catalog.AtHandshake}, false, time.Minute, "not in use after"},
		{"by itself, and the matrix does not know", catalog.Takeup{Manner: catalog.AtRestart}, false, 5 * time.Minute, "the matrix says that it needs one"},
		{"a live connection that does not fare as it should", catalog.Takeup{Manner: catalog.ByItself, Within: time.Minute, Live: catalog.LiveClosed}, false, 0, "live connections"},
	}
	for _, test := range tests {
		synctest.Test(t, func(t *testing.T) {
			var changed time.Time
			r := &reloadRow{
				component: "none", settings: []string{"file"},
				change: func(context.Context) error { changed = time.Now(); return nil },
				seen: func(context.Context) (bool, error) {
					return test.before || !changed.IsZero() && test.takes != never && time.Since(changed) >= test.takes, nil
				},
			}
			if test.want.Live != "" {
				r.live = func(context.Context) error { return errors.New("is open") }
			}
			f := &figure{}
			f.measure(t.Context(), r, test.want, longPatience)
			if got := errors.Join(f.problems...); (got == nil) != (test.problem == "") || got != nil && !strings.Contains(got.Error(), test.problem) {
				t.Errorf("%s: %v; want %q", test.name, got, test.problem)
			}
		})
	}
}

// A look that fails is no sign that nothing has changed.
func TestTheMatrixDoesNotTakeAFailedLookForNever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := true
		f := &figure{}
		f.measure(t.Context(), &reloadRow{
			component: "none", settings: []string{"file"},
			change: func(context.Context) error { first = false; return nil },
			seen: func(context.Context) (bool, error) {
				if first {
					return false, nil
				}
				return false, errors.New("nobody answers")
			},
		}, catalog.Takeup{Manner: catalog.AtRestart}, quickPatience)
		if len(f.problems) == 0 {
			t.Error("a component that never answered was found to need a restart")
		}
	})
}
