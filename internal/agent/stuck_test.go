package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/trust"
)

// asked is one call of what restarts.
type asked struct {
	at      time.Time
	changed []trust.Place
	done    []string
}

func TestWhatDidNotComeBackIsRestartedAgainLater(t *testing.T) {
	for name, fails := range map[string]int{"one that comes back at the fifth time": 4, "one that comes back at once": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, dueAt)
				o := n.options()
				o.Renewal.Plan = withCertifier(&unwilling{authority: n.Authority("cp1", "front-proxy-ca")})
				var calls []asked
				o.Renewal.Restart = func(_ context.Context, _ *apply.Nodes, changed []trust.Place, done []string) ([]string, error) {
					calls = append(calls, asked{time.Now(), slices.Clone(changed), slices.Clone(done)})
					switch {
					case len(calls) > fails:
						return []string{"cp1/kube-apiserver"}, nil
					case len(calls) == 1:
						return []string{"cp1/etcd"}, errors.New("kube-apiserver did not come back")
					}
					return nil, errors.New("kube-apiserver did not come back")
				}
				runFor(t, unwatched(o), 6*time.Hour)
				if len(calls) != fails+1 || len(n.decisions(Renewed)) != 1 {
					t.Fatalf("restarted %d times, want %d; made anew: %v\n%s", len(calls), fails+1, n.decisions(Renewed), n.log)
				}
				for i, c := range calls {
					if i > 0 && !slices.Equal(c.done, []string{"cp1/etcd"}) {
						t.Errorf("call %d is told of %v: what was proved would be restarted again", i, c.done)
					}
					if !slices.Equal(c.changed, calls[0].changed) || len(c.changed) == 0 {
						t.Errorf("call %d is for %v, the first for %v", i, c.changed, calls[0].changed)
					}
					if i == 0 {
						continue
					}
					if pause := c.at.Sub(calls[i-1].at); pause < 5*time.Minute<<(i-1) || pause > 14*time.Minute<<(i-1) {
						t.Errorf("pause %d is %s", i, pause)
					}
				}
				if got := len(n.decisions(Stuck)) > 0; got != (fails > 0) || strings.Contains(n.log.String(), "is taken up now") != (fails > 0) {
					t.Errorf("stuck: %v\n%s", n.decisions(Stuck), n.log)
				}
			})
		})
	}
}
