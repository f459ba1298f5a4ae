package restart

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// systemd is the machine's, by D-Bus.
type systemd struct{ conn *dbus.Conn }

// openSystemd connects to systemd: over the system's bus, or, where none runs, by
// the socket of its own, which root may use. Environment variables that name a bus
// are obeyed, as systemctl does.
func openSystemd(ctx context.Context) (*systemd, error) {
	conn, err := dbus.NewSystemConnectionContext(ctx)
	if err == nil {
		if _, asked := conn.SystemStateContext(ctx); asked == nil {
			return &systemd{conn}, nil
		}
		conn.Close()
		err = errors.New("nobody on the system's bus is systemd")
	}
	if os.Geteuid() == 0 {
		if own, err2 := dbus.NewSystemdConnectionContext(ctx); err2 == nil {
			return &systemd{own}, nil
		}
	}
	return nil, &NoSystemdError{err}
}

// NoSystemdError tells that systemd is not to be reached.
type NoSystemdError struct{ Err error }

func (e *NoSystemdError) Error() string {
	return fmt.Sprintf("systemd is not to be reached by D-Bus: %v", e.Err)
}

// Unwrap returns why.
func (e *NoSystemdError) Unwrap() error { return e.Err }

// Hint tells who can.
func (e *NoSystemdError) Hint() string {
	return "run it as root on the node itself; in a container it needs the node's /run/dbus/system_bus_socket"
}

func (s *systemd) close() { s.conn.Close() }

// unitState is what systemd says of a service.
type unitState struct {
	load, active, sub string
	result            string // of its last end: success, exit-code, timeout, ...
	status            int32  // of its main process, once that has ended
	pid               uint32
	invocation        string // a new one with each start
	needsReload       bool   // its files were changed since systemd read them
}

// life tells the lives of a unit apart. A process that systemd started again by
// itself (Restart=) has an invocation of its own too.
func (u *unitState) life() life { return life("invocation " + u.invocation) }

func (u *unitState) runs() bool { return u.active == "active" && u.pid != 0 }

// said is the state in words.
func (u *unitState) said() string {
	text := fmt.Sprintf("it is %s (%s)", u.active, u.sub)
	if u.result != "" && u.result != "success" {
		text += fmt.Sprintf(", after %s with status %d", u.result, u.status)
	}
	return text
}

// state asks what a unit does.
func (s *systemd) state(ctx context.Context, unit string) (*unitState, error) {
	p, err := s.conn.GetAllPropertiesContext(ctx, unit)
	if err != nil {
		return nil, fmt.Errorf("systemd: %s: %w", unit, err)
	}
	u := &unitState{}
	u.load, _ = p["LoadState"].(string)
	u.active, _ = p["ActiveState"].(string)
	u.sub, _ = p["SubState"].(string)
	u.result, _ = p["Result"].(string)
	u.status, _ = p["ExecMainStatus"].(int32)
	u.pid, _ = p["MainPID"].(uint32)
	u.needsReload, _ = p["NeedDaemonReload"].(bool)
	id, _ := p["InvocationID"].([]byte)
	u.invocation = hex.EncodeToString(id)
	switch u.load {
	case "loaded":
		return u, nil
	case "not-found":
		return nil, fmt.Errorf("systemd knows no unit %s", unit)
	}
	return nil, fmt.Errorf("systemd: %s is %s, and cannot be started", unit, u.load)
}

// jobFailures say what a job's result means (man org.freedesktop.systemd1, JobRemoved).
var jobFailures = map[string]string{
	"canceled":    "somebody took the restart back before it was done",
	"timeout":     "it did not start in the time that its unit allows",
	"failed":      "it did not start",
	"dependency":  "a unit that it needs did not start",
	"skipped":     "systemd skipped it: it does not apply to the unit's state",
	"invalid":     "its unit cannot be restarted",
	"assert":      "an assertion of its unit does not hold",
	"unsupported": "its kind of unit is not supported here",
	"collected":   "the unit was removed meanwhile",
	"once":        "its unit may be started only once",
}

// restart starts a unit again and waits until systemd has done it; a unit whose
// files were changed is read again before.
func (s *systemd) restart(ctx context.Context, unit string) error {
	before, err := s.state(ctx, unit)
	if err != nil {
		return err
	}
	if before.needsReload {
		if err := s.conn.ReloadContext(ctx); err != nil {
			return fmt.Errorf("systemd: read changed units again (daemon-reload): %w", err)
		}
	}
	done := make(chan string, 1)
	if _, err := s.conn.RestartUnitContext(ctx, unit, "replace", done); err != nil {
		return fmt.Errorf("systemd: restart %s: %w", unit, denied(err))
	}
	select {
	case result := <-done:
		if result == "done" {
			return nil
		}
		text, known := jobFailures[result]
		if !known {
			text = "the restart ended as " + result
		}
		if now, err := s.state(ctx, unit); err == nil {
			text += ": " + now.said()
		}
		return fmt.Errorf("systemd: restart %s: %s", unit, text)
	case <-ctx.Done():
		return fmt.Errorf("systemd: restart %s: not done yet: %w", unit, context.Cause(ctx))
	}
}

// denied says in plain words that the right is missing.
func denied(err error) error {
	var said godbus.Error
	if errors.As(err, &said) && (said.Name == "org.freedesktop.DBus.Error.AccessDenied" || said.Name == "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired") {
		return &DeniedError{err}
	}
	return err
}

// DeniedError tells that systemd does not obey this user.
type DeniedError struct{ Err error }

func (e *DeniedError) Error() string {
	return fmt.Sprintf("systemd does not obey this user: %v", e.Err)
}

// Unwrap returns what it said.
func (e *DeniedError) Unwrap() error { return e.Err }

// Hint tells what to do.
func (e *DeniedError) Hint() string { return "run it again with sudo" }

// unitOfPID is the service that a process belongs to; empty when none.
func (s *systemd) unitOfPID(ctx context.Context, pid int) string {
	name, err := s.conn.GetUnitNameByPID(ctx, uint32(pid))
	if err != nil || len(name) < len(".service") || name[len(name)-len(".service"):] != ".service" {
		return ""
	}
	return name
}
