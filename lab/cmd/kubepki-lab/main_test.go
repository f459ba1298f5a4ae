//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kubepki/kubepki/lab/internal/supervisor"
)

// TestMain lets the test be the program too, when it is started by itself with a
// command, as the program starts itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		main()
	}
	os.Exit(m.Run())
}

// nobody is the user as whom the lab is tested by root: the lab is for ordinary
// users.
const nobody = 65534

// testLab is a lab of the built program, in a folder of its own.
type testLab struct {
	dir, programs string
	user          *syscall.Credential
}

// newLab returns a lab that is not up. It is down when the test ends.
func newLab(t *testing.T) *testLab {
	t.Helper()
	programs := os.Getenv("KUBEPKI_BUILD")
	if programs == "" {
		programs = filepath.Join("..", "..", "..", ".build")
	}
	programs, err := filepath.Abs(programs)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(programs, "kubepki-lab")); err != nil {
		t.Fatalf("%v\nbuild the programs first: lab/build.sh", err)
	}
	parent, err := os.MkdirTemp("", "kubepki-lab-test")
	if err != nil {
		t.Fatal(err)
	}
	l := &testLab{dir: filepath.Join(parent, "lab"), programs: programs}
	if os.Geteuid() == 0 && readableByAll(programs) {
		l.user = &syscall.Credential{Uid: nobody, Gid: nobody}
		if err := os.Chown(parent, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("status:\n%s", l.try("status", "-o", "wide").text())
		}
		l.run(t, "down")
		l.nothingRuns(t)
		if err := os.RemoveAll(parent); err != nil {
			t.Error(err)
		}
	})
	return l
}

// readableByAll tells whether an ordinary user can reach a folder.
func readableByAll(dir string) bool {
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm()&0o005 != 0o005 {
			return false
		}
	}
	return true
}

// result is how a command ended.
type result struct {
	stdout, stderr string
	code           int
}

func (r result) text() string { return fmt.Sprintf("code %d\n%s%s", r.code, r.stdout, r.stderr) }

// try runs a command of the lab.
func (l *testLab) try(args ...string) result { return l.program("kubepki-lab", args...) }

// program runs one of the lab's programs as the lab's user.
func (l *testLab) program(name string, args ...string) result {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(l.programs, name), args...)
	cmd.Dir = filepath.Dir(l.dir)
	cmd.Env = append(os.Environ(), "KUBEPKI_LAB_DIR="+l.dir, "KUBECONFIG="+filepath.Join(l.dir, "admin.conf"), "HOME="+filepath.Dir(l.dir))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: l.user}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	r := result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	if err != nil && r.stderr == "" {
		r.stderr = err.Error()
	}
	return r
}

// run is try for commands that must succeed.
func (l *testLab) run(t *testing.T, args ...string) string {
	t.Helper()
	r := l.try(args...)
	if r.code != 0 {
		t.Fatalf("kubepki-lab %s: %s", strings.Join(args, " "), r.text())
	}
	return r.stdout
}

// kubectl calls the API from outside of the lab, as its user would.
func (l *testLab) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	r := l.program("kubectl", args...)
	if r.code != 0 {
		t.Fatalf("kubectl %s: %s", strings.Join(args, " "), r.text())
	}
	return r.stdout
}

// status asks the lab; it need not be ready.
func (l *testLab) status(t *testing.T) *supervisor.Status {
	t.Helper()
	r := l.try("status", "-o", "json")
	var s supervisor.Status
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil {
		t.Fatalf("%v: %s", err, r.text())
	}
	return &s
}

// component is one line of the status.
func (l *testLab) component(t *testing.T, name string) supervisor.Component {
	t.Helper()
	c, ok := l.find(t, name)
	if !ok {
		t.Fatalf("no component %s", name)
	}
	return c
}

// find is component for one that may not be there now.
func (l *testLab) find(t *testing.T, name string) (supervisor.Component, bool) {
	t.Helper()
	for _, c := range l.status(t).Components {
		if c.Node+"/"+c.Component == name {
			return c, true
		}
	}
	return supervisor.Component{}, false
}

// await waits until something holds.
func (l *testLab) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(200 * time.Millisecond) // real processes: nothing tells
	}
}

// nothingRuns fails when a process of the lab runs.
func (l *testLab) nothingRuns(t *testing.T) {
	t.Helper()
	for _, process := range l.running(t) {
		t.Errorf("still runs: %s", process)
	}
}

// running are the processes that have the lab's folder in their arguments, or its
// files as their own.
func (l *testLab) running(t *testing.T) []string {
	t.Helper()
	var running []string
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		root, _ := os.Readlink(p + "/root") // it may have ended
		cwd, _ := os.Readlink(p + "/cwd")
		arguments, _ := os.ReadFile(p + "/cmdline")
		if strings.HasPrefix(root, l.dir) || strings.HasPrefix(cwd, l.dir) || bytes.Contains(arguments, []byte(l.dir)) {
			running = append(running, p+" "+string(bytes.ReplaceAll(arguments, []byte{0}, []byte{' '})))
		}
	}
	return running
}
