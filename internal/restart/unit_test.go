package restart

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"github.com/kubepki/kubepki/internal/trust"
)

const (
	managerPath = "/org/freedesktop/systemd1"
	managerName = "org.freedesktop.systemd1.Manager"
	unitPath    = "/org/freedesktop/systemd1/unit/kubelet_2eservice"
	jobPath     = "/org/freedesktop/systemd1/job/7"
)

// startBus starts a real bus daemon of the test's own, and returns its address.
func startBus(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("no dbus-daemon is on this machine: Debian's package dbus-daemon has it")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "bus.conf")
	text := `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=` + filepath.Join(dir, "bus") + `</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--nofork", "--print-address", "--config-file="+config)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("dbus-daemon says no address: %v\n%s", err, &stderr)
	}
	return strings.TrimSpace(address)
}

func connect(t *testing.T, address string) *godbus.Conn {
	t.Helper()
	conn, err := godbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// fakeSystemd answers for one unit, kubelet.service, on the test's bus: what a real
// manager answers on the system's.
type fakeSystemd struct {
	conn *godbus.Conn

	mu       sync.Mutex
	result   string           // of the next job; empty: it never ends
	after    func(*unitState) // what a restart does to the unit
	unit     unitState
	lives    int
	reloads  int
	restarts int
	refuses  bool // who asks is not allowed to
}

func newFakeSystemd(t *testing.T, address string) *fakeSystemd {
	t.Helper()
	f := &fakeSystemd{conn: connect(t, address), result: "done"}
	f.unit = unitState{load: "loaded", active: "active", sub: "running", result: "success", pid: 100, invocation: "first"}
	for _, e := range []struct {
		what             any
		path, interface_ string
	}{{f, managerPath, managerName}, {(*fakeProperties)(f), managerPath, "org.freedesktop.DBus.Properties"},
		{(*fakeProperties)(f), unitPath, "org.freedesktop.DBus.Properties"}, {(*fakeProperties)(f), "/org/freedesktop/systemd1/unit/other_2eservice", "org.freedesktop.DBus.Properties"}} {
		if err := f.conn.Export(e.what, godbus.ObjectPath(e.path), e.interface_); err != nil {
			t.Fatal(err)
		}
	}
	if reply, err := f.conn.RequestName("org.freedesktop.systemd1", godbus.NameFlagDoNotQueue); err != nil || reply != godbus.RequestNameReplyPrimaryOwner {
		t.Fatal(reply, err)
	}
	return f
}

// set changes what it answers.
func (f *fakeSystemd) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// begins is a new life of the unit.
func (f *fakeSystemd) begins(u *unitState) {
	f.lives++
	u.active, u.sub, u.pid, u.invocation = "active", "running", uint32(100+f.lives), fmt.Sprintf("life %d", f.lives)
}

// RestartUnit starts a job, and says that it is removed when it is done.
func (f *fakeSystemd) RestartUnit(name, mode string) (godbus.ObjectPath, *godbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.refuses:
		return "", godbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{"no"})
	case name != "kubelet.service" || mode != "replace":
		return "", godbus.NewError("org.freedesktop.systemd1.NoSuchUnit", []any{"Unit " + name + " not found."})
	}
	f.restarts++
	if f.after != nil {
		f.after(&f.unit)
	} else {
		f.begins(&f.unit)
	}
	if result := f.result; result != "" {
		time.AfterFunc(20*time.Millisecond, func() {
			_ = f.conn.Emit(managerPath, managerName+".JobRemoved", uint32(7), godbus.ObjectPath(jobPath), name, result)
		})
	}
	return jobPath, nil
}

// Reload reads units again.
func (f *fakeSystemd) Reload() *godbus.Error {
	f.set(func() { f.reloads++; f.unit.needsReload = false })
	return nil
}

// GetUnitByPID finds the unit of a process.
func (f *fakeSystemd) GetUnitByPID(pid uint32) (godbus.ObjectPath, *godbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch pid {
	case f.unit.pid, 4711: // the second is a child of it
		return unitPath, nil
	}
	return "", godbus.NewError("org.freedesktop.systemd1.NoUnitForPID", []any{"none"})
}

// fakeProperties are those of the manager and of the unit.
type fakeProperties fakeSystemd

// Get is asked for the state of the system.
func (f *fakeProperties) Get(string, string) (godbus.Variant, *godbus.Error) {
	return godbus.MakeVariant("running"), nil
}

// GetAll are those of the unit.
func (f *fakeProperties) GetAll(msg godbus.Message, _ string) (map[string]godbus.Variant, *godbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if msg.Headers[godbus.FieldPath].Value().(godbus.ObjectPath) != unitPath {
		return map[string]godbus.Variant{"LoadState": godbus.MakeVariant("not-found")}, nil
	}
	u := f.unit
	return map[string]godbus.Variant{
		"LoadState": godbus.MakeVariant(u.load), "ActiveState": godbus.MakeVariant(u.active), "SubState": godbus.MakeVariant(u.sub), "Result": godbus.MakeVariant(u.result),
		"ExecMainStatus": godbus.MakeVariant(u.status), "MainPID": godbus.MakeVariant(u.pid), "InvocationID": godbus.MakeVariant([]byte(u.invocation)),
		"NeedDaemonReload": godbus.MakeVariant(u.needsReload),
	}, nil
}

// onBus is a machine whose systemd is on a bus.
func onBus(address string) *Machine {
	return &Machine{Poll: 10 * time.Millisecond, Procfs: "/nowhere", bus: func(context.Context) (*systemd, error) {
		conn, err := dbus.NewConnection(func() (*godbus.Conn, error) { return godbus.Connect(address) })
		if err != nil {
			return nil, err
		}
		return &systemd{conn}, nil
	}}
}

func TestAUnitIsRestartedBySystemd(t *testing.T) {
	address := startBus(t)
	dead := func(u *unitState) {
		u.active, u.sub, u.result, u.status, u.pid = "failed", "failed", "exit-code", 1, 0
	}
	for name, c := range map[string]struct {
		unit    string
		change  func(*fakeSystemd)
		want    string // of the error; empty: it is restarted
		reloads int
	}{
		"done":                          {change: func(*fakeSystemd) {}},
		"of files that were changed":    {change: func(f *fakeSystemd) { f.unit.needsReload = true }, reloads: 1},
		"it was dead before":            {change: func(f *fakeSystemd) { dead(&f.unit) }},
		"it starts only after a while":  {change: startsLate},
		"failed":                        {change: func(f *fakeSystemd) { f.result, f.after = "failed", dead }, want: "it did not start: it is failed (failed), after exit-code with status 1"},
		"timeout":                       {change: func(f *fakeSystemd) { f.result = "timeout" }, want: "in the time that its unit allows"},
		"canceled":                      {change: func(f *fakeSystemd) { f.result = "canceled" }, want: "took the restart back"},
		"dependency":                    {change: func(f *fakeSystemd) { f.result = "dependency" }, want: "a unit that it needs"},
		"a result of the future":        {change: func(f *fakeSystemd) { f.result = "eaten" }, want: "ended as eaten"},
		"a job that never ends":         {change: func(f *fakeSystemd) { f.result = "" }, want: "not done yet"},
		"no such unit":                  {unit: "other.service", change: func(*fakeSystemd) {}, want: "knows no unit other.service"},
		"a unit that is masked":         {change: func(f *fakeSystemd) { f.unit.load = "masked" }, want: "is masked"},
		"who asks may not":              {change: func(f *fakeSystemd) { f.refuses = true }, want: "does not obey this user"},
		"done, and nothing was started": {change: func(f *fakeSystemd) { f.after = func(*unitState) {} }, want: "has not started it anew"},
		"done, and dead at once":        {change: func(f *fakeSystemd) { f.after = dead }, want: "it is failed (failed), after exit-code with status 1"},
		"done, and systemd tries again": {change: func(f *fakeSystemd) {
			f.after = func(u *unitState) { dead(u); u.active, u.sub = "activating", "auto-restart" }
		}, want: "it is activating (auto-restart), after exit-code"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeSystemd(t, address)
			t.Cleanup(func() { _, _ = f.conn.ReleaseName("org.freedesktop.systemd1") })
			f.set(func() { c.change(f) })
			unit := c.unit
			if unit == "" {
				unit = "kubelet.service"
			}
			ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
			defer cancel()
			s, err := onBus(address).Restart(ctx, &trust.Graph{}, &Target{Component: "kubelet", Kind: Unit, Unit: unit})
			if err == nil {
				defer s.Close()
				err = s.Stands(ctx)
			}
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("want %q, got %v", c.want, err)
			}
			f.set(func() {
				if f.reloads != c.reloads || f.restarts > 1 {
					t.Errorf("%d restarts and %d reloads, want %d", f.restarts, f.reloads, c.reloads)
				}
			})
		})
	}
}

// startsLate is a unit whose process is there some time after the job is done.
func startsLate(f *fakeSystemd) {
	f.after = func(u *unitState) {
		u.active, u.sub, u.pid = "activating", "start", 0
		time.AfterFunc(100*time.Millisecond, func() { f.set(func() { f.begins(&f.unit) }) })
	}
}

func TestAUnitThatComesUpAndEndsDoesNotStand(t *testing.T) {
	address := startBus(t)
	f := newFakeSystemd(t, address)
	s, err := onBus(address).Restart(t.Context(), &trust.Graph{}, &Target{Component: "kubelet", Kind: Unit, Unit: "kubelet.service"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Stands(t.Context()); err != nil || s.Over(t.Context()) {
		t.Fatal(err)
	}
	if !strings.Contains(s.Look, "journalctl -u kubelet") {
		t.Error(s.Look)
	}
	f.set(func() { f.begins(&f.unit) }) // by Restart=always
	if err := s.Stands(t.Context()); err == nil || !strings.Contains(err.Error(), "was started again") {
		t.Error(err)
	}
	if err := s.Stands(t.Context()); err != nil {
		t.Errorf("the new life stands, and yet: %v", err)
	}
	f.set(func() { f.unit.active, f.unit.sub, f.unit.pid = "failed", "failed", 0 })
	if err := s.Stands(t.Context()); err == nil || !s.Over(t.Context()) {
		t.Error("it has failed, and stands")
	}
}

func TestAProcessIsRestartedByTheUnitWhoseMainProcessItIs(t *testing.T) {
	address := startBus(t)
	f := newFakeSystemd(t, address)
	process := func(pid string) *Target {
		return &Target{Component: "kubelet", Kind: Process, Source: trust.Place{Path: "/proc/" + pid + "/cmdline"}}
	}
	for pid, why := range map[string]string{"4711": "a child of a unit's main process", "9": "a process of no unit", "x": "no process at all"} {
		_, err := onBus(address).Restart(t.Context(), &trust.Graph{}, process(pid))
		var none *NoSupervisorError
		if !errors.As(err, &none) || f.restarts != 0 {
			t.Errorf("%s: %v, %d restarts", why, err, f.restarts)
		}
	}
	s, err := onBus(address).Restart(t.Context(), &trust.Graph{}, process("100"))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if f.restarts != 1 {
		t.Error("the unit was not restarted")
	}
}

func TestWithoutSystemdNothingIsEnded(t *testing.T) {
	m := &Machine{bus: func(context.Context) (*systemd, error) { return nil, &NoSystemdError{errors.New("no bus")} }}
	_, err := m.Restart(t.Context(), &trust.Graph{}, &Target{Component: "kubelet", Kind: Unit, Unit: "kubelet.service"})
	var none *NoSystemdError
	if !errors.As(err, &none) || none.Hint() == "" {
		t.Error(err)
	}
	_, err = m.Restart(t.Context(), &trust.Graph{}, &Target{Component: "kube-proxy", Kind: Unknown})
	var unknown *NoSupervisorError
	if !errors.As(err, &unknown) {
		t.Error(err)
	}
}
