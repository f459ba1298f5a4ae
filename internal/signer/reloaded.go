package signer

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// lookEvery is how often files are read at most. What has changed is taken up
// when two looks have found the same, so that a file half written is not.
const lookEvery = time.Second

// Told is called when what signs has changed: with the certificate that signs
// from now on, or with the error for which what was before goes on to sign. The
// same error is told once. It may be called by any goroutine that asks for the
// authority, but by one at a time, and should return soon.
type Told func(*x509.Certificate, error)

// Reloaded is a [Source] that reads its files again when they change. It reads
// them when the authority is asked for, at most once a second, so that nothing
// runs where nothing is signed and no signature waits for a disk.
type Reloaded struct {
	paths   []string
	make    func(contents [][]byte) (issue.Authority, error)
	told    Told
	started time.Time
	due     atomic.Int64 // when to look again, as time since started
	now     atomic.Pointer[issue.Authority]

	looking sync.Mutex // guards what follows
	current [sha256.Size]byte
	seen    [sha256.Size]byte // at the last look
	problem string            // told already
}

func newReloaded(paths []string, build func([][]byte) (issue.Authority, error), told Told) (*Reloaded, error) {
	r := &Reloaded{paths: paths, make: build, told: told, started: time.Now()}
	contents, err := r.read()
	if err != nil {
		return nil, err
	}
	a, err := usable(build, contents)
	if err != nil {
		return nil, err
	}
	r.now.Store(&a)
	r.current = sum(contents)
	r.seen = r.current
	r.due.Store(int64(lookEvery))
	return r, nil
}

// Authority returns what signs now. It may be called by several goroutines at
// once, and its result must not be changed. The error is always nil: once there
// was an authority, there is one.
func (r *Reloaded) Authority() (issue.Authority, error) {
	if since := int64(time.Since(r.started)); since >= r.due.Load() && r.looking.TryLock() {
		r.look()
		r.due.Store(int64(time.Since(r.started) + lookEvery))
		r.looking.Unlock()
	}
	return *r.now.Load(), nil
}

func (r *Reloaded) look() {
	contents, err := r.read()
	now := sum(contents)
	if err != nil {
		now = sha256.Sum256([]byte(err.Error()))
	}
	before := r.seen
	r.seen = now
	switch {
	case now == r.current:
		r.problem = ""
		return
	case now != before:
		return // it may be half written
	}
	var a issue.Authority
	if err == nil {
		a, err = usable(r.make, contents)
	}
	if err != nil {
		r.tell(err)
		return
	}
	r.now.Store(&a)
	r.current, r.problem = now, ""
	if r.told != nil {
		r.told(a.Certificate, nil)
	}
}

func (r *Reloaded) tell(err error) {
	if r.problem == err.Error() {
		return
	}
	r.problem = err.Error()
	if r.told != nil {
		r.told(nil, err)
	}
}

func usable(build func([][]byte) (issue.Authority, error), contents [][]byte) (issue.Authority, error) {
	a, err := build(contents)
	if err != nil {
		return a, err
	}
	return a, a.Usable(time.Now())
}

func (r *Reloaded) read() ([][]byte, error) {
	var all [][]byte
	for _, p := range r.paths {
		data, err := readFile(p)
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

// readFile reads a regular file that is no larger than a PEM file may be:
// opening anything else could wait for ever.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, trust.MaxPEM+1))
	if err == nil && len(data) > trust.MaxPEM {
		err = fmt.Errorf("%s: %w", path, errors.New("larger than a PEM file of a cluster"))
	}
	return data, err
}

func sum(contents [][]byte) (all [sha256.Size]byte) {
	h := sha256.New()
	for _, c := range contents {
		one := sha256.Sum256(c)
		h.Write(one[:])
	}
	h.Sum(all[:0])
	return all
}
