package agent

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Files that change come in bursts: what replaces a pair renames twice and syncs
// between. A burst has ended when nothing has happened for the first time, and is
// told at the latest after the second.
const (
	burstEnds = 500 * time.Millisecond
	burstMost = 5 * time.Second
)

// watcher tells when something happens in folders. It never is all that is relied on:
// the loop looks by itself each minute, and then says again which folders are meant.
type watcher struct {
	log     *slog.Logger
	kernel  *fsnotify.Watcher // nil: the kernel gives none
	has     map[string]bool   // folders that are watched
	told    bool              // that the kernel gives no more
	changed chan struct{}
	ended   chan struct{}
}

// newWatcher begins to watch nothing. Where the kernel has no more watches it says so
// once, and changes are seen when the loop looks by itself.
func newWatcher(log *slog.Logger) *watcher {
	w := &watcher{log: log, has: map[string]bool{}, changed: make(chan struct{}, 1), ended: make(chan struct{})}
	var err error
	if w.kernel, err = fsnotify.NewWatcher(); err != nil {
		w.kernel = nil
		w.exhausted(err)
		close(w.ended)
		return w
	}
	go w.run()
	return w
}

// Changed receives once after each burst of changes.
func (w *watcher) Changed() <-chan struct{} { return w.changed }

func (w *watcher) Close() {
	if w.kernel != nil {
		_ = w.kernel.Close() // which only ends the goroutine
	}
	<-w.ended
}

// Watch says which folders are meant from now on: those that are not there any more
// are forgotten, and those that came back are watched again.
func (w *watcher) Watch(folders []string) {
	if w.kernel == nil {
		return
	}
	meant := map[string]bool{}
	for _, f := range folders {
		meant[f] = true
	}
	// The kernel drops the watch of a folder that is removed, and keeps that of one
	// that is renamed: what stands under its name now is another one.
	live := map[string]bool{}
	for _, f := range w.kernel.WatchList() {
		live[f] = true
	}
	for f := range w.has {
		if !meant[f] && live[f] {
			_ = w.kernel.Remove(f) // gone already
		}
		if !meant[f] || !live[f] {
			delete(w.has, f)
		}
	}
	for _, f := range folders {
		if w.has[f] {
			continue
		}
		err := w.kernel.Add(f)
		switch {
		case err == nil:
			w.has[f] = true
		case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM):
			w.exhausted(err)
			return
		}
		// Any other error: it vanished, or may not be read. The loop looks again.
	}
}

func (w *watcher) exhausted(err error) {
	if w.told {
		return
	}
	w.told = true
	w.log.Warn("the kernel gives no more watches: changes are seen when the files are looked at next", "error", err.Error(),
		"hint", "sysctl fs.inotify.max_user_watches fs.inotify.max_user_instances")
}

// run gathers events into bursts.
func (w *watcher) run() {
	defer close(w.ended)
	quiet, most := stopped(), stopped()
	pending := false
	for {
		select {
		case _, ok := <-w.kernel.Events:
			if !ok {
				return
			}
			quiet.Reset(burstEnds)
			if !pending {
				pending = true
				most.Reset(burstMost)
			}
		case _, ok := <-w.kernel.Errors:
			if !ok {
				return
			}
			// The queue overflowed: something happened that is not told.
			pending = true
			quiet.Reset(burstEnds)
		case <-quiet.C:
			pending = w.tell()
			most.Stop()
		case <-most.C:
			pending = w.tell()
			quiet.Stop()
		}
	}
}

// tell never waits: one that was told and not heard yet stands for both.
func (w *watcher) tell() (pending bool) {
	select {
	case w.changed <- struct{}{}:
	default:
	}
	return false
}

func stopped() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// maxFollowed is how many links are followed on the way to a file.
const maxFollowed = 40

// folders are those in which something happens when what stands at a path of a node
// becomes another one: the file's own, those of each symbolic link on the way, and the
// nearest one that is there where they are not. root is the folder that stands for the
// node's "/", in which absolute links stay.
func folders(root, nodePath string) []string {
	all, _ := follow(root, nodePath)
	return all
}

// follow returns the folders, and where the path ends once all links are followed; ""
// where nothing is there.
func follow(root, nodePath string) (dirs []string, end string) {
	var all []string
	add := func(dir string) {
		for {
			if info, err := os.Stat(dir); err == nil && info.IsDir() {
				break
			}
			up := filepath.Dir(dir)
			if up == dir {
				return
			}
			dir = up
		}
		if !slices.Contains(all, dir) {
			all = append(all, dir)
		}
	}
	at, rest := root, split(nodePath)
	for followed := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			if at != root {
				at = filepath.Dir(at)
			}
			continue
		}
		next := filepath.Join(at, name)
		info, err := os.Lstat(next)
		if err != nil {
			add(at) // here what is missing would appear
			return all, ""
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			if len(rest) == 0 {
				add(at)
			}
			at = next
			continue
		}
		add(at)
		to, err := os.Readlink(next)
		if followed++; err != nil || followed > maxFollowed {
			return all, ""
		}
		if filepath.IsAbs(to) {
			at = root
		}
		rest = append(split(to), rest...)
	}
	return all, at
}

func split(p string) []string {
	return slices.DeleteFunc(strings.Split(p, "/"), func(s string) bool { return s == "" || s == "." })
}
