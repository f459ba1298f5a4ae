package restart

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// By is how static pods are restarted.
type By string

// The ways of static pods.
const (
	Auto       By = "auto"     // by the runtime where it answers, else by the manifest
	ByRuntime  By = "cri"      // the container runtime stops the container, the kubelet starts it anew
	ByManifest By = "manifest" // the manifest is moved away and back
)

// Machine restarts what runs on the machine that the program runs on. It is for one
// restart at a time: see [Lock].
type Machine struct {
	// Root is the folder that is the node's "/", Procfs the one that is its /proc.
	Root, Procfs string
	By           By
	// Poll is how often is looked whether something has come about; 0: every half second.
	Poll time.Duration
	// Force ends an etcd member also where nobody knows whether the others are a quorum.
	Force bool
	// Say is told what is waited for, a sentence without a stop; nil: nobody.
	Say func(string)
	// bus opens the connection to systemd; nil: openSystemd.
	bus func(context.Context) (*systemd, error)
}

// Lock keeps other restarts of a node away until the function is called that it
// returns. It locks the node's /etc: an agent holds /etc/kubernetes as long as it runs,
// and a transaction the root, and what they write is restarted meanwhile.
func Lock(root string) (func(), error) {
	at := filepath.Join(root, "etc")
	f, err := os.Open(at)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, layout.Cause(err))
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		return nil, fmt.Errorf("%s: another restart of this node is under way", at)
	}
	return func() { _ = f.Close() }, nil // which unlocks it
}

// way is how one target is restarted.
type way interface {
	// restart ends the life that the target has and sees to its next one.
	restart(ctx context.Context) error
	// now is the life that the target has, empty where it has none; never one of
	// before restart was called. The words say what it does instead.
	now(ctx context.Context) (l life, said string, err error)
	// look is the command that tells why it does not come back.
	look() string
	// over tells that it will not come back by itself.
	over(ctx context.Context) bool
	close()
}

// Started is a process that was started again. Close it.
type Started struct {
	By   string // in words
	Look string // the command that shows its log
	way  way
	life life
	born int
}

// Close ends what was opened to look at it.
func (s *Started) Close() { s.way.close() }

// Restart starts a target again and returns once it has begun its new life: whether
// it is well is for others to see. It waits as long as ctx lasts, and leaves a
// manifest in its place in every case.
func (m *Machine) Restart(ctx context.Context, g *trust.Graph, t *Target) (*Started, error) {
	w, by, err := m.wayOf(ctx, g, t)
	if err != nil {
		return nil, &NotTriedError{err}
	}
	s := &Started{By: by, Look: w.look(), way: w}
	if err = w.restart(ctx); err == nil {
		s.life, err = m.begins(ctx, w)
	}
	if err != nil {
		w.close()
		return nil, &NotBackError{Err: err, Look: s.Look}
	}
	return s, nil
}

// Can tells why a target cannot be restarted here, nil where there is a way; nothing is
// touched.
func (m *Machine) Can(ctx context.Context, g *trust.Graph, t *Target) error {
	quiet := *m
	quiet.Say = nil
	w, _, err := quiet.wayOf(ctx, g, t)
	if err == nil {
		w.close()
	}
	return err
}

// begins waits until a new life has begun.
func (m *Machine) begins(ctx context.Context, w way) (life, error) {
	said := "it was not seen again"
	for {
		l, text, err := w.now(ctx)
		switch {
		case ctx.Err() != nil:
			return "", fmt.Errorf("%s: %w", said, context.Cause(ctx))
		case isLate(err): // one answer was not waited for: the next may come
		case err != nil || l != "":
			return l, err
		default:
			if said = text; w.over(ctx) {
				return "", errors.New(said)
			}
		}
		if err := m.wait(ctx); err != nil {
			return "", fmt.Errorf("%s: %w", said, err)
		}
	}
}

// isLate tells that an answer did not come in time.
func isLate(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded
}

// NotBackError tells that a process did not begin a new life.
type NotBackError struct {
	Err  error
	Look string // the command that shows why
}

func (e *NotBackError) Error() string { return e.Err.Error() }

// Unwrap returns why.
func (e *NotBackError) Unwrap() error { return e.Err }

// Stands tells whether the process lives on. Where another one has come in its place
// meanwhile it says so once, and goes on with that.
func (s *Started) Stands(ctx context.Context) error {
	l, said, err := s.way.now(ctx)
	switch {
	case err != nil:
		return err
	case l == "":
		return errors.New("it came up and ended again: " + said)
	case s.life == unseen:
		s.life = l
	case l != s.life:
		s.life = l
		s.born++
		return fmt.Errorf("it came up and ended, and was started again (%d times)", s.born)
	}
	return nil
}

// Over tells that the process will not come back by itself.
func (s *Started) Over(ctx context.Context) bool { return s.way.over(ctx) }

// wayOf chooses how a target is restarted.
func (m *Machine) wayOf(ctx context.Context, g *trust.Graph, t *Target) (way, string, error) {
	switch t.Kind {
	case Unit:
		return m.unitWay(ctx, t.Unit)
	case StaticPod:
		return m.podWay(ctx, g, t)
	case Process:
		return m.processWay(ctx, t)
	}
	return nil, "", &NoSupervisorError{Component: t.Component}
}

// processWay is by the unit whose main process it is. A component that nobody starts
// again is not ended.
func (m *Machine) processWay(ctx context.Context, t *Target) (way, string, error) {
	var pid int
	if _, err := fmt.Sscanf(t.Source.Path, "/proc/%d/", &pid); err != nil {
		return nil, "", &NoSupervisorError{Component: t.Component}
	}
	bus, err := m.openBus(ctx)
	if err != nil {
		return nil, "", &NoSupervisorError{Component: t.Component, PID: pid}
	}
	unit := bus.unitOfPID(ctx, pid)
	state, err := bus.state(ctx, cmp.Or(unit, "-"))
	bus.close()
	if unit == "" || err != nil || int(state.pid) != pid {
		return nil, "", &NoSupervisorError{Component: t.Component, PID: pid}
	}
	return m.unitWay(ctx, unit)
}

// NoSupervisorError tells that nobody is known to start a component again.
type NoSupervisorError struct {
	Component string
	PID       int // 0: it is not known either
}

func (e *NoSupervisorError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("%s: neither a manifest nor a unit of it was found: it is not known what starts it again", e.Component)
	}
	return fmt.Sprintf("%s runs as process %d, which is of no manifest and no unit: it is not ended, for it is not known what starts it again", e.Component, e.PID)
}

// Hint tells what to do by hand.
func (e *NoSupervisorError) Hint() string {
	return "restart it by what started it; no component takes a new credential up by a signal"
}

func (m *Machine) openBus(ctx context.Context) (*systemd, error) {
	if m.bus != nil {
		return m.bus(ctx)
	}
	return openSystemd(ctx)
}

func (m *Machine) unitWay(ctx context.Context, unit string) (way, string, error) {
	bus, err := m.openBus(ctx)
	if err != nil {
		return nil, "", err
	}
	state, err := bus.state(ctx, unit)
	if err != nil {
		bus.close()
		return nil, "", err
	}
	return &unitWay{bus: bus, unit: unit, before: state.life()}, "by systemd, as " + unit, nil
}

// unitWay is a unit of systemd.
type unitWay struct {
	bus    *systemd
	unit   string
	before life
}

func (w *unitWay) restart(ctx context.Context) error { return w.bus.restart(ctx, w.unit) }

func (w *unitWay) now(ctx context.Context) (life, string, error) {
	state, err := w.bus.state(ctx, w.unit)
	switch {
	case err != nil:
		return "", "", err
	case !state.runs():
		return "", state.said(), nil
	case state.life() == w.before:
		return "", "systemd has not started it anew", nil
	}
	return state.life(), "", nil
}

func (w *unitWay) over(ctx context.Context) bool {
	state, err := w.bus.state(ctx, w.unit)
	return err == nil && (state.active == "failed" || state.active == "inactive")
}

func (w *unitWay) look() string { return "journalctl -u " + strings.TrimSuffix(w.unit, ".service") }

func (w *unitWay) close() { w.bus.close() }

func (m *Machine) say(format string, args ...any) {
	if m.Say != nil {
		m.Say(fmt.Sprintf(format, args...))
	}
}

// wait waits until it is time to look again.
func (m *Machine) wait(ctx context.Context) error {
	timer := time.NewTimer(cmp.Or(m.Poll, 500*time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
