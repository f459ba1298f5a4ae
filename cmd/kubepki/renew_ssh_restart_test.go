package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

const (
	systemdName = "org.freedesktop.systemd1"
	systemdPath = "/org/freedesktop/systemd1"
	kubeletUnit = systemdPath + "/unit/kubelet_2eservice"
)

// unitManager answers on a real bus of one machine for its kubelet.service, as systemd
// does.
type unitManager struct {
	conn *godbus.Conn

	mu     sync.Mutex
	lives  int
	active string
	breaks bool // a restart ends it for good
}

// startUnits starts the bus of a machine and who answers on it, and returns its address.
func startUnits(t *testing.T) (*unitManager, string) {
	t.Helper()
	program, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("no dbus-daemon is on this machine: Debian's package dbus-daemon has it")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "bus.conf")
	text := `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:dir=` + os.TempDir() + `</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--nofork", "--print-address", "--config-file="+config)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address = strings.TrimSpace(address)
	m := &unitManager{active: "active"}
	if m.conn, err = godbus.Connect(address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.conn.Close() })
	for path, what := range map[godbus.ObjectPath]map[string]any{
		systemdPath: {systemdName + ".Manager": m, "org.freedesktop.DBus.Properties": (*unitProperties)(m)},
		kubeletUnit: {"org.freedesktop.DBus.Properties": (*unitProperties)(m)},
	} {
		for face, v := range what {
			if err := m.conn.Export(v, path, face); err != nil {
				t.Fatal(err)
			}
		}
	}
	if reply, err := m.conn.RequestName(systemdName, godbus.NameFlagDoNotQueue); err != nil || reply != godbus.RequestNameReplyPrimaryOwner {
		t.Fatal(reply, err)
	}
	return m, address
}

// RestartUnit begins a new life of the unit, or ends it where that was set.
func (m *unitManager) RestartUnit(name, _ string) (godbus.ObjectPath, *godbus.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lives++
	result := "done"
	if m.breaks {
		m.active, result = "failed", "failed"
	}
	time.AfterFunc(20*time.Millisecond, func() {
		_ = m.conn.Emit(systemdPath, systemdName+".Manager.JobRemoved", uint32(7), godbus.ObjectPath(systemdPath+"/job/7"), name, result)
	})
	return systemdPath + "/job/7", nil
}

func (m *unitManager) restarts() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lives
}

func (m *unitManager) set(breaks bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.breaks, m.active = breaks, "active"
}

type unitProperties unitManager

// Get is asked for the state of the system.
func (p *unitProperties) Get(string, string) (godbus.Variant, *godbus.Error) {
	return godbus.MakeVariant("running"), nil
}

// GetAll are those of the unit.
func (p *unitProperties) GetAll(string) (map[string]godbus.Variant, *godbus.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return map[string]godbus.Variant{
		"LoadState": godbus.MakeVariant("loaded"), "ActiveState": godbus.MakeVariant(p.active), "SubState": godbus.MakeVariant("running"), "Result": godbus.MakeVariant("success"),
		"ExecMainStatus": godbus.MakeVariant(int32(0)), "MainPID": godbus.MakeVariant(uint32(100 + p.lives)), "InvocationID": godbus.MakeVariant(fmt.Appendf(nil, "life %d", p.lives)),
		"NeedDaemonReload": godbus.MakeVariant(false),
	}, nil
}

// TestRenewOverSSHRestarts what reads the new files at its start alone, on each machine
// by its own systemd, one control plane after the other and then workers.
func TestRenewOverSSHRestarts(t *testing.T) {
	c := newSSHCluster(t, haFlags...)
	units := map[string]*unitManager{}
	for name, m := range c.machines {
		// Its kubelet serves nobody, so that what is proved is what systemd says.
		config := filepath.Join(c.dir, name, "var/lib/kubelet/config.yaml")
		text := "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nport: 0\nhealthzPort: 0\n"
		if err := os.MkdirAll(filepath.Dir(config), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		u, address := startUnits(t)
		units[name] = u
		// On a machine / is /: here the command that is run there says where it is.
		script := "#!/bin/sh\nexport DBUS_SYSTEM_BUS_ADDRESS='" + address + "'\nexec kubepki \"$@\" --root .\n"
		if err := os.WriteFile(filepath.Join(m.Home, "bin", "kubepki-there"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	flags := c.ssh("w1", "cp1", "cp2")
	at := slices.Index(flags, "--ssh-root")
	flags = slices.Delete(flags, at, at+2)
	flags[slices.Index(flags, "--ssh-command")+1] = "kubepki-there"
	flags = append(flags, "kubelet.conf", "--yes")
	counts := func() string {
		return fmt.Sprint(units["cp1"].restarts(), units["cp2"].restarts(), units["w1"].restarts())
	}

	t.Run("without --restart the table says what is to be restarted on each node, and nothing is", func(t *testing.T) {
		r := c.renew(flags...)
		if r.code != 0 || counts() != "0 0 0" {
			t.Fatalf("ended with %d, restarted %s: %s", r.code, counts(), r.err)
		}
		wants(t, r.err, "TO BE RESTARTED", "w1/kubelet", "to be restarted on cp2: sudo kubepki node restart kubelet")
	})
	t.Run("a dry run shows what would be restarted, and restarts nothing", func(t *testing.T) {
		r := c.renew(append(flags, "--restart", "--dry-run")...)
		if r.code != 0 || counts() != "0 0 0" {
			t.Fatalf("ended with %d, restarted %s: %s", r.code, counts(), r.err)
		}
		wants(t, r.err, "RESTART ", "cp1/kubelet")
	})
	t.Run("each is restarted and proved, control planes one after the other", func(t *testing.T) {
		r := c.renew(append(flags, "--restart", "-o", "json")...)
		if r.code != 0 || counts() != "1 1 1" {
			t.Fatalf("ended with %d, restarted %s: %s", r.code, counts(), r.err)
		}
		first, second, worker := strings.Index(r.err, "cp1/kubelet restarted and proved"), strings.Index(r.err, "restarting cp2/kubelet"), strings.Index(r.err, "restarting w1/kubelet")
		if first < 0 || second < first || worker < second {
			t.Errorf("not in order: %s", r.err)
		}
		var d renewDocument
		if err := json.Unmarshal([]byte(r.out), &d); err != nil || len(d.Nodes) != 3 || len(d.Nodes[0].Restarted) != 1 || len(d.Nodes[0].ToRestart) != 0 {
			t.Errorf("%v: %s", err, r.out)
		}
		c.healthy()
	})
	t.Run("the first that does not come back is the last: what is done and not is told, and what goes on", func(t *testing.T) {
		units["cp2"].set(true)
		before := c.trees()
		r := c.renew(append(flags, "--restart")...)
		if r.code != exitFailed || counts() != "2 2 1" {
			t.Errorf("ended with %d, restarted %s", r.code, counts())
		}
		if got := c.changed(before); !slices.Equal(got, []string{"cp1", "cp2"}) {
			t.Errorf("changed %v", got)
		}
		wants(t, r.err, "cp2/kubelet did not come back", "done: cp1; done, and not restarted: cp2 (kubelet); not begun: w1", "on cp2: sudo kubepki node restart kubelet", "--restart", "--nodes=w1")
		units["cp2"].set(false)
		_, again, _ := strings.Cut(r.err, "what is left: kubepki ")
		again, _, _ = strings.Cut(again, "\n")
		if r := c.run(strings.Fields(strings.ReplaceAll(again, "'", ""))...); r.code != 0 || counts() != "2 2 2" {
			t.Errorf("going on ended with %d, restarted %s: %s", r.code, counts(), r.err)
		}
	})
	t.Run("while another restart of a node is under way nothing is changed", func(t *testing.T) {
		unlock, _, err := (&farRestarter{root: filepath.Join(c.dir, "w1")}).Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
		before := c.trees()
		r := c.renew(append(flags, "--restart")...)
		if r.code != exitFailed || len(c.changed(before)) > 0 || counts() != "2 2 2" {
			t.Errorf("ended with %d, restarted %s, changed %v", r.code, counts(), c.changed(before))
		}
		wants(t, r.err, "w1: ", "another restart of this node is under way")
	})
	t.Run("what runs below a folder is not restarted from here", func(t *testing.T) {
		r := c.renew(append(flags, "--restart", "--ssh-root", "/mnt")...)
		if r.code != exitUsage {
			t.Errorf("ended with %d", r.code)
		}
		wants(t, r.err, "--restart: does not go with --ssh-root")
	})
}
