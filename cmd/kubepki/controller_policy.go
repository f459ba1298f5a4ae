package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/kubepki/kubepki/internal/controller"
	"github.com/kubepki/kubepki/internal/reload"
)

// policyLook is how often the file of a policy is looked at: with what
// internal/reload waits for, a change holds within five seconds.
const policyLook = 2 * time.Second

// livePolicy is a policy that is read again when its file changes, also by a symbolic
// link that is swung, as those of mounted ConfigMaps are. One that cannot be read changes
// nothing: the one before holds, and the log and a metric say so. It is safe for
// concurrent use.
type livePolicy[T any] struct {
	kind, file string
	// parse makes the policy of the file; read returns another file that it names.
	parse   func(data []byte, read func(name string) ([]byte, error)) (T, error)
	log     *slog.Logger
	metrics *controller.Metrics

	files *reload.Files[readPolicy[T]] // nil: there is no file that could change
	named string                       // the other file that files has

	mu      sync.Mutex
	now     T
	changed chan struct{} // closed when now is another
}

// readPolicy is what files were read as.
type readPolicy[T any] struct {
	policy T
	other  string // the path of the file that it names; "": none
	digest string // of its text, for the log
}

// fixedPolicy is one that no file has.
func fixedPolicy[T any](policy T) *livePolicy[T] {
	return &livePolicy[T]{now: policy, changed: make(chan struct{})}
}

// openPolicy reads a policy of a kind ("signing", "workload") for the first time. What is
// no regular file, such as standard input, is read once.
func openPolicy[T any](r *controllerRun, kind, file string, parse func([]byte, func(string) ([]byte, error)) (T, error)) (*livePolicy[T], error) {
	l := &livePolicy[T]{kind: kind, file: file, parse: parse, log: r.log, metrics: r.metrics, changed: make(chan struct{})}
	info, err := os.Stat(file)
	if file == "-" || err == nil && !info.Mode().IsRegular() {
		return l, l.readOnce(r.streams)
	}
	if err := l.open(""); err != nil {
		return nil, err
	}
	if other := l.files.Get().other; other != "" {
		if err := l.open(other); err != nil {
			return nil, err
		}
	}
	l.now = l.files.Get().policy
	l.metrics.PolicyRead(kind, true)
	return l, nil
}

func (l *livePolicy[T]) readOnce(s streams) error {
	data, err := readInput(s, l.file)
	if err != nil {
		return err
	}
	if l.now, err = l.parse(data, func(name string) ([]byte, error) { return readInput(s, l.beside(name)) }); err != nil {
		return fmt.Errorf("%s: %w", l.file, err)
	}
	l.log.Warn("the policy is of no regular file: it is not read again", "policy", l.kind, "file", l.file)
	l.metrics.PolicyRead(l.kind, true)
	return nil
}

// beside is the path of a file that the policy names.
func (l *livePolicy[T]) beside(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(l.file), name)
}

// open reads the policy, and watches another file with it.
func (l *livePolicy[T]) open(other string) error {
	paths := []string{l.file}
	if other != "" {
		paths = append(paths, other)
	}
	build := func(contents [][]byte) (readPolicy[T], error) {
		made := readPolicy[T]{digest: fmt.Sprintf("%x", sha256.Sum256(contents[0]))[:16]}
		var err error
		made.policy, err = l.parse(contents[0], func(name string) ([]byte, error) {
			made.other = l.beside(name)
			if made.other == other {
				return contents[1], nil
			}
			return readRegular(made.other)
		})
		if err != nil {
			err = fmt.Errorf("%s: %w", l.file, err)
		}
		return made, err
	}
	files, err := reload.New(paths, build, l.told)
	if err != nil {
		return err
	}
	l.files, l.named = files, other
	return nil
}

// readRegular reads a file that is to be watched soon: of another kind it never could be.
func readRegular(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	return readInput(streams{}, path)
}

// told takes a policy that was read, or says that one could not be.
func (l *livePolicy[T]) told(made readPolicy[T], err error) {
	l.metrics.PolicyRead(l.kind, err == nil)
	if err != nil {
		l.log.Error("a changed policy is not taken up: the one before holds", "policy", l.kind, "error", err.Error())
		return
	}
	l.log.Info("the policy was read again, and holds", "policy", l.kind, "file", l.file, "sha256", made.digest)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = made.policy
	close(l.changed)
	l.changed = make(chan struct{})
}

// get returns the policy of the moment.
func (l *livePolicy[T]) get() T {
	now, _ := l.current()
	return now
}

// current also returns what is closed when another holds.
func (l *livePolicy[T]) current() (T, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now, l.changed
}

// Run looks at the file until the context ends.
func (l *livePolicy[T]) Run(ctx context.Context) error {
	ticker := time.NewTicker(policyLook)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			l.look()
		}
	}
}

// look has a changed policy read, and watches the other file that it names by now.
func (l *livePolicy[T]) look() {
	if l.files == nil {
		return
	}
	if other := l.files.Get().other; other != l.named {
		err := l.open(other)
		l.told(l.files.Get(), err) // the other file may have changed meanwhile
	}
}

// each works with the policy of the moment, and begins anew when another holds, after
// work has finished what it had begun. It ends with the context, or with work.
func (l *livePolicy[T]) each(ctx context.Context, work func(context.Context, T) error) error {
	for {
		policy, changed := l.current()
		term, end := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- work(term, policy) }()
		var err error
		again := false
		select {
		case err = <-ended:
		case <-changed:
			again = true
			end()
			err = <-ended
		}
		end()
		if err != nil || !again || ctx.Err() != nil {
			return err
		}
	}
}

// wake calls a function each time another policy holds, until the context ends.
func (l *livePolicy[T]) wake(ctx context.Context, with func()) error {
	_, changed := l.current()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			_, changed = l.current()
			with()
		}
	}
}
