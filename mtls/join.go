package mtls

import "sync/atomic"

// Join returns a source with the certificate of one source and the bundle of
// another, such as a [Renewing] and a file. It may be used by several goroutines
// if both may.
func Join(certificate, bundle Source) Source {
	return &joined{certificate: certificate, bundle: bundle}
}

type joined struct {
	certificate, bundle Source
	last                latest
}

func (j *joined) Snapshot() (*Snapshot, error) {
	return j.last.of(func() (now Snapshot, err error) {
		c, err := snapshot(j.certificate)
		if err != nil {
			return now, err
		}
		b, err := snapshot(j.bundle)
		if err != nil {
			return now, err
		}
		return Snapshot{Certificate: c.Certificate, Bundle: b.Bundle}, nil
	})
}

// latest keeps a snapshot the same pointer as long as nothing changes.
type latest struct{ last atomic.Pointer[Snapshot] }

func (l *latest) of(read func() (Snapshot, error)) (*Snapshot, error) {
	for {
		// It is loaded before reading, so that whoever has read what is older does not
		// replace what is newer.
		last := l.last.Load()
		now, err := read()
		switch {
		case err != nil:
			return nil, err
		case last != nil && *last == now:
			return last, nil
		case l.last.CompareAndSwap(last, &now):
			return &now, nil
		}
	}
}
