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
	c, err := j.certificate.Snapshot()
	if err != nil {
		return nil, err
	}
	b, err := j.bundle.Snapshot()
	if err != nil {
		return nil, err
	}
	return j.last.of(Snapshot{Certificate: c.Certificate, Bundle: b.Bundle}), nil
}

// latest keeps a snapshot the same pointer as long as nothing changes.
type latest struct{ last atomic.Pointer[Snapshot] }

func (l *latest) of(now Snapshot) *Snapshot {
	if last := l.last.Load(); last != nil && *last == now {
		return last
	}
	l.last.Store(&now)
	return &now
}
