package join

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/apitest"
)

// fault is what a faultyDisk does at a change.
type fault int

const (
	works fault = iota
	full        // the change fails, a file is half written
	dead        // as full, and every change after it fails: the process was killed
)

var errKilled = errors.New("killed")

// faultyDisk fails at the change number at, counted from 0.
type faultyDisk struct {
	changes
	at     int
	fault  fault
	count  int
	killed bool
	after  func() // called after each change that worked
}

func (d *faultyDisk) do(change func() error) error {
	n := d.count
	d.count++
	switch {
	case d.killed:
		return errKilled
	case n == d.at && d.fault == full:
		return syscall.ENOSPC
	case n == d.at && d.fault == dead:
		d.killed = true
		return errKilled
	}
	err := change()
	if d.after != nil {
		d.after()
	}
	return err
}

func (d *faultyDisk) Create(name string, data []byte, mode fs.FileMode) error {
	n, killed := d.count, d.killed
	err := d.do(func() error { return d.changes.Create(name, data, mode) })
	if n == d.at && d.fault != works && !killed {
		return errors.Join(err, d.changes.Create(name, data[:len(data)/2], mode))
	}
	return err
}

func (d *faultyDisk) Mkdir(name string, mode fs.FileMode) error {
	return d.do(func() error { return d.changes.Mkdir(name, mode) })
}

func (d *faultyDisk) Symlink(target, name string) error {
	return d.do(func() error { return d.changes.Symlink(target, name) })
}

func (d *faultyDisk) Rename(from, to string) error {
	return d.do(func() error { return d.changes.Rename(from, to) })
}

func (d *faultyDisk) Remove(name string) error {
	return d.do(func() error { return d.changes.Remove(name) })
}

func (d *faultyDisk) Sync(name string) error {
	return d.do(func() error { return d.changes.Sync(name) })
}

// with runs on a disk, without waiting for it, which no kill of a process shows.
func (d *faultyDisk) with(o Options) Options {
	o.on = func(dir *os.Root) changes { d.changes = unsynced{realDisk{dir}}; return d }
	return o
}

type unsynced struct{ changes }

func (unsynced) Sync(string) error { return nil }

// checkWhole asserts that what other programs may read is never half: where
// there is a kubelet.conf it leads to a pair, and dated files are whole.
func checkWhole(t *testing.T, o Options) {
	t.Helper()
	c, err := open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if c.disk.exists(o.Kubeconfig) {
		if _, err := c.present(time.Now()); err != nil {
			t.Error(err)
		}
	} else if !c.disk.exists(o.BootstrapKubeconfig) {
		t.Error("there is neither a kubelet.conf nor a bootstrap kubeconfig")
	}
	names, err := c.disk.list(o.CertDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !c.store.isDated(name) {
			continue
		}
		data, err := c.disk.read(filepath.Join(o.CertDir, name))
		if err == nil {
			_, err = parsePair(data, data)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKilledAtAnyChangeASecondJoinCompletes(t *testing.T) {
	s := startServer(t)
	o, _ := node(t, s)
	count := &faultyDisk{at: -1}
	mustJoin(t, count.with(o))
	if count.count < 30 {
		t.Fatalf("only %d changes seen", count.count)
	}
	failed := 0
	for _, f := range []fault{dead, full} {
		for at := range count.count {
			s.Delete()
			o, k := node(t, s)
			d := &faultyDisk{at: at, fault: f}
			_, err := Join(t.Context(), d.with(o))
			if err != nil {
				failed++
				if strings.Contains(err.Error(), "\n") && f == full {
					t.Errorf("change %d: %v", at, err)
				}
			}
			checkWhole(t, o)
			if r := mustJoin(t, o); r.Outcome != Joined && r.Outcome != AlreadyJoined {
				t.Errorf("change %d: %+v", at, r)
			}
			if diff := cmp.Diff(joinedFiles, files(t, o.Root)); diff != "" {
				t.Errorf("change %d: %s\n%s", at, diff, k)
			}
			if n := len(s.Requests()); n > 1 {
				t.Errorf("change %d: there are %d requests", at, n)
			}
			if t.Failed() {
				t.Fatalf("fault %d at change %d of %d", f, at, count.count)
			}
		}
	}
	if failed < 2*count.count-4 {
		t.Errorf("only %d of %d faults were errors", failed, 2*count.count)
	}
}

func TestKilledAtAnyChangeOfARotationTheCredentialGoesOnWorking(t *testing.T) {
	s := startServer(t)
	o, _ := node(t, s)
	mustJoin(t, o)
	count := &faultyDisk{at: -1}
	if _, err := Rotate(t.Context(), count.with(o), true); err != nil {
		t.Fatal(err)
	}
	for at := range count.count {
		s.Delete()
		o, _ := node(t, s)
		mustJoin(t, o)
		before := len(s.Requests())
		d := &faultyDisk{at: at, fault: dead, after: func() { checkWhole(t, o) }}
		_, err := Rotate(t.Context(), d.with(o), true)
		if err == nil {
			t.Errorf("change %d: the rotation reports success", at)
		}
		checkWhole(t, o)
		r, err := Rotate(t.Context(), o, true)
		if err != nil {
			t.Fatalf("change %d: %v", at, err)
		}
		if strings.Contains(strings.Join(files(t, o.Root), "\n"), "tmp") {
			t.Errorf("change %d: something is left: %v", at, files(t, o.Root))
		}
		// Killed after the link moved, the second rotation is another one.
		if n := len(s.Requests()) - before; n > 2 || r.Outcome != Rotated {
			t.Errorf("change %d: %d requests, %+v", at, n, r)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
}

func TestThereIsACredentialAtEveryMomentOfARotation(t *testing.T) {
	s := startServer(t)
	o, _ := node(t, s)
	mustJoin(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	looks := make(chan int, 1)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			target, err := os.Readlink(filepath.Join(o.Root, CertDir, "kubelet-client-current.pem"))
			if err != nil {
				t.Error(err)
				break
			}
			data, err := os.ReadFile(filepath.Join(o.Root, target))
			if err == nil {
				_, err = parsePair(data, data)
			}
			if err != nil {
				t.Error(err)
				break
			}
		}
		looks <- n
	}()
	for range 20 {
		if _, err := Rotate(t.Context(), o, true); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if n := <-looks; n < 100 {
		t.Errorf("it was looked at only %d times", n)
	}
}

func TestATornKeyIsMadeAnew(t *testing.T) {
	s := startServer(t)
	o, _ := node(t, s)
	s.Answer(apitest.Wait)
	o.Timeout = 500 * time.Millisecond
	if _, err := Join(t.Context(), o); err == nil {
		t.Fatal("it joined")
	}
	if err := os.WriteFile(filepath.Join(o.Root, CertDir, "kubelet-client.key.tmp"), []byte("-----BEGIN EC PRIV"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Answer(apitest.Issue)
	o.Timeout = 10 * time.Second
	mustJoin(t, o)
	if diff := cmp.Diff(joinedFiles, files(t, o.Root)); diff != "" {
		t.Error(diff)
	}
}
