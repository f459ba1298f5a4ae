package mtls

import (
	"errors"
	"sync/atomic"
)

// Memory is a [Source] that a program sets itself. It may be used by several
// goroutines. The zero value has nothing yet: handshakes fail.
type Memory struct{ now atomic.Pointer[Snapshot] }

// Set makes a snapshot that of now. It must not be changed any more. The error
// says what does not fit in it, and what was before stays.
func (m *Memory) Set(s Snapshot) error {
	if s.Certificate != nil {
		if err := checkPair(s.Certificate); err != nil {
			return err
		}
	}
	m.now.Store(&s)
	return nil
}

// Snapshot returns what was set last.
func (m *Memory) Snapshot() (*Snapshot, error) {
	if s := m.now.Load(); s != nil {
		return s, nil
	}
	return nil, errors.New("nothing was set yet")
}
