package mtls

import (
	"sync/atomic"
	"time"
)

// Status tells how a source fares, for metrics and alarms: [FileSource],
// [KubeconfigSource] and [Renewing] have a method of that name.
type Status struct {
	// Taken counts the changes that were taken up since the source was made, mended
	// files included; Refused counts those that were not, each once as long as it is
	// the same.
	Taken, Refused uint64
	// Failing tells that what is there now was refused, so that what is used is
	// older.
	Failing bool
	// AsOf is when what is used was last seen to be what is there; the zero time:
	// not yet. It stays behind while the source is failing.
	AsOf time.Time
}

// with is the status of two parts: that of the one that fares worse.
func (s Status) with(o Status) Status {
	if o.AsOf.Before(s.AsOf) {
		s.AsOf = o.AsOf
	}
	return Status{s.Taken + o.Taken, s.Refused + o.Refused, s.Failing || o.Failing, s.AsOf}
}

// tally counts what is told of a part of a source.
type tally struct {
	taken, refused atomic.Uint64
	failing        atomic.Bool
}

func (t *tally) note(err error) {
	if err != nil {
		t.refused.Add(1)
	} else {
		t.taken.Add(1)
	}
	t.failing.Store(err != nil)
}

// before counts, and tells then.
func (t *tally) before(told func(Reload)) func(Reload) {
	return func(r Reload) {
		t.note(r.Err)
		told(r)
	}
}

func (t *tally) status(asOf time.Time) Status {
	return Status{Taken: t.taken.Load(), Refused: t.refused.Load(), Failing: t.failing.Load(), AsOf: asOf}
}
