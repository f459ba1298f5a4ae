package load

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/lab/internal/cluster"
)

// Options say which traffic is made, and for how long. The zero value of a field
// leaves it open.
type Options struct {
	// Folder of the lab, which runs.
	Folder cluster.Folder
	// For is how long requests are begun; 0: until the context ends.
	For time.Duration
	// Streams are names of streams or of their kinds; none: all there are.
	Streams []string
	// Rate is how many times the usual rate; 0: once.
	Rate float64
	// Timeout is how long one request may take, the waiting for its effect
	// included; 0: 30 seconds.
	Timeout  time.Duration
	FailFast bool // the first failure ends the run
	// OnFailure and OnProgress, if not nil, are told of failures as they happen,
	// and of the progress every second. Each is called by one goroutine at a time
	// and holds up the streams until it returns.
	OnFailure  func(Failure)
	OnProgress func(Progress)
}

// ErrStream tells that Options.Streams names what is no stream.
var ErrStream = errors.New("no such stream")

const (
	defaultTimeout = 30 * time.Second

	setUpWait   = time.Minute
	tidyUpWait  = 30 * time.Second
	removeAgain = 500 * time.Millisecond
)

// Run makes traffic on a lab whose network the calling program stands in: inside
// its namespaces, beside its nodes. Canceling the context ends the run in order:
// requests under way have until their deadlines, what the run has made in the
// cluster is removed, and the report is returned, without an error.
//
// An error tells that there was no traffic: the lab could not be asked what it
// has, or not be prepared. Requests that fail are in the report. Nodes that join
// later than Run has begun are not called.
func Run(ctx context.Context, o Options) (*Report, error) {
	s, err := newSite(o.Folder)
	if err != nil {
		return nil, err
	}
	defer s.close()
	r, err := s.run(ctx, o)
	// What was made is removed whether or not all of it was.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyUpWait)
	defer cancel()
	left := s.tidyUp(last)
	if err != nil {
		return nil, errors.Join(err, left)
	}
	if left != nil {
		r.LeftBehind = oneLine(left)
	}
	return r, nil
}

func (s *site) run(ctx context.Context, o Options) (*Report, error) {
	prepare, cancel := context.WithTimeout(ctx, setUpWait)
	defer cancel()
	all, err := s.streams(prepare)
	if err != nil {
		return nil, fmt.Errorf("look what the lab has: %w", err)
	}
	streams, notHere, err := choose(all, s.notHere, o.Streams)
	if err != nil {
		return nil, err
	}
	if err := s.setUp(prepare); err != nil {
		return nil, fmt.Errorf("prepare the traffic: %w", err)
	}
	r := keep(ctx, streams, o)
	r.NotHere = append(r.NotHere, notHere...)
	return r, nil
}

// choose chooses the streams that are named, by name or kind.
func choose(all []*Stream, absent []NotHere, names []string) ([]*Stream, []NotHere, error) {
	if len(names) == 0 {
		return all, absent, nil
	}
	known := map[string]bool{}
	for _, s := range all {
		known[s.Name], known[s.kind()] = true, true
	}
	for _, n := range absent {
		known[n.Stream] = true
	}
	for _, name := range names {
		if !known[name] {
			return nil, nil, fmt.Errorf("%w: %q: there are %s", ErrStream, name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
	}
	all = slices.DeleteFunc(slices.Clone(all), func(s *Stream) bool {
		return !slices.Contains(names, s.Name) && !slices.Contains(names, s.kind())
	})
	absent = slices.DeleteFunc(slices.Clone(absent), func(n NotHere) bool { return !slices.Contains(names, n.Stream) })
	if len(all) == 0 {
		return nil, nil, fmt.Errorf("%s: not here: %s", absent[0].Stream, absent[0].Why)
	}
	return all, absent, nil
}
