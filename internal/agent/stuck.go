package agent

import (
	"context"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/trust"
)

// stuck is what was written and not taken up, for a component did not come back or may
// not be ended now.
type stuck struct {
	try
	items   []Due
	changed []trust.Place // the files
	done    []string      // ids of what was restarted and proved since
}

// restarts are the pauses after which a restart is tried again: each ends a component
// that others call, so from five minutes to two hours.
func restarts() wait.Backoff {
	return wait.Backoff{Duration: 5 * time.Minute, Factor: 2, Jitter: 0.3, Steps: 30, Cap: 2 * time.Hour}
}

// restart has components take up what was made, and what an earlier call left; nil:
// nothing was made. It tells whether it came to an end.
func (r *renewer) restart(ctx context.Context, n *apply.Nodes, made *apply.Renewal) bool {
	if r.Restart == nil || made == nil && r.stuck == nil {
		return false
	}
	s := r.stuck
	if made == nil && s.after > r.clock.Running() {
		return false // something else was due
	}
	if s == nil {
		s = &stuck{try: try{backoff: restarts()}}
	}
	if made != nil {
		s.add(made)
	}
	done, err := r.Restart(ctx, n, s.changed, s.done)
	s.done = append(s.done, done...)
	if err == nil {
		if r.stuck != nil {
			r.log.Info("what was not taken up is taken up now", "restarted", len(s.done))
		}
		r.stuck = nil
		return true
	}
	r.stuck = s
	if ctx.Err() != nil {
		return false // it was told to stop, or has lost its turn
	}
	pause := min(s.backoff.Step(), 2*time.Hour)
	s.after = r.clock.Running() + pause
	for _, d := range s.items {
		r.say(Decision{Action: Stuck, ID: d.ID, Node: d.Node, Path: d.Path, Reason: ReasonRestart, Text: err.Error()}, append(hint(err), "again", pause.Round(time.Second))...)
	}
	return false
}

// add notes what was written. All that reads it is restarted, also what was since the
// last time.
func (s *stuck) add(made *apply.Renewal) {
	s.done = nil
	for _, i := range made.Items {
		d := Due{ID: i.ID(), Node: i.Node, Path: i.Certificate.Path}
		if !slices.Contains(s.items, d) {
			s.items = append(s.items, d)
		}
	}
	for _, f := range made.Files {
		if p := f.Place.File(); !slices.Contains(s.changed, p) {
			s.changed = append(s.changed, p)
		}
	}
}
