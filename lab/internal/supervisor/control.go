package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/lab/internal/cluster"
)

// changeWait is for one component to be stopped or to become ready.
const changeWait = 90 * time.Second

// socket is a path to the control socket that fits into a socket's address,
// whatever the length of the folder's path, as long as dir is open.
func socket(dir *os.File) string { return fmt.Sprintf("/proc/self/fd/%d/control.sock", dir.Fd()) }

func listenControl(f cluster.Folder) (net.Listener, error) {
	dir, err := os.Open(f.Run())
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// The lock says that nobody listens on what a crashed lab has left.
	if err := os.Remove(f.Control()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.Listen("unix", socket(dir))
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", f.Control(), err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false) // by that time dir is closed
	return listener, nil
}

func (s *Supervisor) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) { answer(w, s.status(r.Context()), nil) })
	mux.HandleFunc("POST /down", func(w http.ResponseWriter, _ *http.Request) {
		s.down()
		answer(w, struct{}{}, nil)
	})
	for verb, act := range map[string]func(context.Context, *unit) error{"stop": stop, "start": start, "restart": restart} {
		mux.HandleFunc("POST /"+verb, func(w http.ResponseWriter, r *http.Request) {
			// What was begun is completed, though nobody waits for it any more.
			names, err := s.each(context.WithoutCancel(r.Context()), r.URL.Query()["name"], act)
			answer(w, names, err)
		})
	}
	return mux
}

// answer writes a value or an error as JSON.
func answer(w http.ResponseWriter, value any, err error) {
	var unknown *UnknownError
	switch {
	case errors.As(err, &unknown):
		w.WriteHeader(http.StatusNotFound)
		value = unknown
	case err != nil:
		w.WriteHeader(http.StatusConflict)
		value = failure{err.Error()}
	}
	_ = json.NewEncoder(w).Encode(value) // who asked is gone: nobody to tell
}

// UnknownError tells that no component and no node has a name.
type UnknownError struct {
	Name  string
	Known []string // NODE/COMPONENT
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("no component or node is called %q: there are %s", e.Name, strings.Join(e.Known, ", "))
}

type failure struct {
	Error string `json:"error"`
}

// each does something to the units of each name, one after another, and returns
// their full names.
func (s *Supervisor) each(ctx context.Context, names []string, act func(context.Context, *unit) error) ([]string, error) {
	var units []*unit
	for _, name := range names {
		found := s.find(name)
		if len(found) == 0 {
			return nil, &UnknownError{name, s.names()}
		}
		units = append(units, found...)
	}
	var done []string
	for _, u := range units {
		ctx, cancel := context.WithTimeout(ctx, changeWait)
		err := act(ctx, u)
		cancel()
		if err != nil {
			return done, err
		}
		done = append(done, u.node.Name+"/"+u.component)
	}
	return done, nil
}

// names are the names that [Supervisor.find] knows.
func (s *Supervisor) names() []string {
	var names []string
	for _, u := range s.units {
		names = append(names, u.node.Name+"/"+u.component)
	}
	slices.Sort(names)
	return names
}

func stop(ctx context.Context, u *unit) error {
	u.want(false)
	return u.await(ctx, func() bool { return u.process == nil })
}

func start(ctx context.Context, u *unit) error {
	u.want(true)
	return u.await(ctx, func() bool { return u.ready })
}

func restart(ctx context.Context, u *unit) error {
	if err := stop(ctx, u); err != nil {
		return err
	}
	return start(ctx, u)
}
