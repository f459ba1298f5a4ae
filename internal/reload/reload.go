package reload

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// lookEvery is how often files are read at most.
const lookEvery = time.Second

// settled is how old the last change of a file must be so that it counts as
// written to its end at the first look.
const settled = 2 * time.Second

// Files is a value that is made of files, and made anew when they change. The
// files are read when the value is asked for, at most once a second, so that
// nothing runs where nothing is asked and no caller waits for a slow disk but
// one. It may be used by several goroutines.
//
// Files that have changed are taken up when they were changed two seconds ago or
// longer, or when two looks have found the same; so a file half written is not,
// and within three seconds of use every change is. What cannot be used is told,
// and what was before stays.
type Files[T any] struct {
	paths   []string
	build   func(contents [][]byte) (T, error)
	told    func(T, error)
	started time.Time
	due     atomic.Int64 // when to look again, as time since started
	now     atomic.Pointer[T]
	asOf    atomic.Pointer[time.Time]

	looking sync.Mutex // guards what follows
	current [sha256.Size]byte
	seen    [sha256.Size]byte // at the last look
	problem string            // told already
}

// New reads the files, by paths as [os.Open] takes them, each a regular file of
// up to 1 MiB in the end, and makes the value. Their contents are given in the
// order of the paths. The error is that of the first file that cannot be read,
// or that of build.
//
// told, which may be nil, hears of each new value, and of each error for which
// the value before stays, once as long as it is the same; after an error also of
// the value before, when the files hold that again. It is called by whichever
// goroutine asks for the value, by one at a time, and should return soon.
func New[T any](paths []string, build func(contents [][]byte) (T, error), told func(T, error)) (*Files[T], error) {
	if told == nil {
		told = func(T, error) {}
	}
	began := time.Now()
	r := &Files[T]{paths: paths, build: build, told: told, started: began}
	contents, _, err := r.read()
	if err != nil {
		return nil, err
	}
	v, err := build(contents)
	if err != nil {
		return nil, err
	}
	r.now.Store(&v)
	r.asOf.Store(&began)
	r.current = sum(contents)
	r.seen = r.current
	r.due.Store(int64(lookEvery))
	return r, nil
}

// Get returns the value of now. It is shared: it must not be changed.
func (r *Files[T]) Get() T {
	if since := int64(time.Since(r.started)); since >= r.due.Load() && r.looking.TryLock() {
		r.look()
	}
	return *r.now.Load()
}

// AsOf returns when the files were read last and found to be what Get returns.
// It stays behind while they hold what cannot be used, or what may be half
// written, and while nobody asks for the value.
func (r *Files[T]) AsOf() time.Time { return *r.asOf.Load() }

// look is called with r.looking held, and lets go of it. It does so where told has
// panicked too: net/http recovers, and would go on with the files of then for ever.
func (r *Files[T]) look() {
	defer func() {
		r.due.Store(int64(time.Since(r.started) + lookEvery))
		r.looking.Unlock()
	}()
	began := time.Now()
	contents, changed, err := r.read()
	now := sum(contents)
	if err != nil {
		now = sha256.Sum256([]byte(err.Error()))
	}
	before := r.seen
	r.seen = now
	switch {
	case now == r.current:
		r.asOf.Store(&began)
		if r.problem != "" { // what was told is mended
			r.problem = ""
			r.told(*r.now.Load(), nil)
		}
		return
	case now != before && (err != nil || time.Since(changed) < settled):
		return // it may be half written
	}
	var v T
	if err == nil {
		v, err = r.build(contents)
	}
	if err != nil {
		r.tell(err)
		return
	}
	r.now.Store(&v)
	r.asOf.Store(&began)
	r.current, r.problem = now, ""
	r.told(v, nil)
}

func (r *Files[T]) tell(err error) {
	if r.problem == err.Error() {
		return
	}
	r.problem = err.Error()
	var none T
	r.told(none, err)
}

// read returns the contents of the files, and when the last of them was changed.
func (r *Files[T]) read() (all [][]byte, changed time.Time, err error) {
	for _, p := range r.paths {
		data, at, err := readFile(p)
		if err != nil {
			return nil, time.Time{}, err
		}
		all = append(all, data)
		if at.After(changed) {
			changed = at
		}
	}
	return all, changed, nil
}

// readFile reads a regular file that is no larger than a PEM file may be:
// opening anything else could wait for ever.
func readFile(path string) ([]byte, time.Time, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, time.Time{}, err
	}
	if !info.Mode().IsRegular() {
		return nil, time.Time{}, fmt.Errorf("%s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, trust.MaxPEM+1))
	if err != nil {
		return nil, time.Time{}, err
	}
	if len(data) > trust.MaxPEM {
		return nil, time.Time{}, fmt.Errorf("%s: larger than a PEM file of a cluster", path)
	}
	// Asked after reading: a change meanwhile is seen.
	info, err = f.Stat()
	if err != nil {
		return nil, time.Time{}, err
	}
	return data, info.ModTime(), nil
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
