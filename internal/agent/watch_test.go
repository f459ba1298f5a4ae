package agent

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// disk is a folder in which tests do what operators and kubelets do.
type disk struct {
	t   *testing.T
	dir string
}

func (d disk) at(name string) string { return filepath.Join(d.dir, name) }

func (d disk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d disk) write(name, text string) {
	d.t.Helper()
	d.must(os.MkdirAll(filepath.Dir(d.at(name)), 0o755))
	d.must(os.WriteFile(d.at(name), []byte(text), 0o600))
}

func (d disk) link(name, to string) { d.t.Helper(); d.must(os.Symlink(to, d.at(name))) }

func (d disk) rename(from, to string) { d.t.Helper(); d.must(os.Rename(d.at(from), d.at(to))) }

// Real events of a real kernel: what each change of a watched path does.
func TestChangesAreSeen(t *testing.T) {
	tests := map[string]struct {
		make, change func(d disk)
		path         string // that is watched, as on the node
		quiet        bool   // that nothing is told
	}{
		"a file is written": {
			make: func(d disk) { d.write("pki/a.crt", "1") }, path: "/pki/a.crt", change: func(d disk) { d.write("pki/a.crt", "2") },
		},
		"another file takes its name": {
			make: func(d disk) { d.write("pki/a.crt", "1") }, path: "/pki/a.crt",
			change: func(d disk) { d.write("elsewhere", "2"); d.rename("elsewhere", "pki/a.crt") },
		},
		"a file appears": {
			make: func(d disk) { d.write("pki/b.crt", "1") }, path: "/pki/a.crt", change: func(d disk) { d.write("pki/a.crt", "2") },
		},
		"a folder appears that was missing": {
			make: func(d disk) { d.write("etc/x", "1") }, path: "/etc/kubernetes/pki/a.crt", change: func(d disk) { d.write("etc/kubernetes/pki/a.crt", "2") },
		},
		"a mount of a kubelet is replaced through ..data": {
			make: func(d disk) {
				d.write("v/..one/tls.crt", "1")
				d.link("v/..data", "..one")
				d.link("v/tls.crt", "..data/tls.crt")
			},
			path: "/v/tls.crt",
			change: func(d disk) {
				d.write("v/..two/tls.crt", "2")
				d.link("v/..new", "..two")
				d.rename("v/..new", "v/..data")
			},
		},
		"a link in the middle of the path leads elsewhere": {
			make: func(d disk) { d.write("one/pki/a.crt", "1"); d.write("two/pki/a.crt", "2"); d.link("etc", "/one") }, path: "/etc/pki/a.crt",
			change: func(d disk) { d.link("new", "/two"); d.rename("new", "etc") },
		},
		"what a link leads to is written, beside the node's root": {
			make: func(d disk) { d.write("one/a.crt", "1"); d.link("a.crt", "/one/a.crt") }, path: "/a.crt", change: func(d disk) { d.write("one/a.crt", "2") },
		},
		"another folder is written to": {
			make: func(d disk) { d.write("pki/a.crt", "1"); d.write("log/x", "1") }, path: "/pki/a.crt", change: func(d disk) { d.write("log/x", "2") }, quiet: true,
		},
		"a file is read": {
			make: func(d disk) { d.write("pki/a.crt", "1") }, path: "/pki/a.crt",
			change: func(d disk) { _, err := os.ReadFile(d.at("pki/a.crt")); d.must(err) }, quiet: true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := disk{t, t.TempDir()}
			test.make(d)
			w := newWatcher(slog.New(slog.NewTextHandler(io.Discard, nil)))
			defer w.Close()
			w.Watch(folders(d.dir, test.path))
			test.change(d)
			select {
			case <-w.Changed():
				if test.quiet {
					t.Error("a change was told")
				}
			case <-time.After(2 * time.Second):
				if !test.quiet {
					t.Errorf("nothing was told; watched: %v", folders(d.dir, test.path))
				}
			}
		})
	}
}

func TestAFolderThatVanishesAndComesBackIsWatchedAgain(t *testing.T) {
	t.Parallel()
	d := disk{t, t.TempDir()}
	d.write("etc/pki/a.crt", "1")
	w := newWatcher(slog.New(slog.NewTextHandler(io.Discard, nil)))
	defer w.Close()
	told := func(what string) {
		t.Helper()
		select {
		case <-w.Changed():
		case <-time.After(3 * time.Second):
			t.Fatalf("%s: nothing was told", what)
		}
	}
	for range 2 {
		w.Watch(folders(d.dir, "/etc/pki/a.crt"))
		d.rename("etc/pki", "etc/gone")
		d.must(os.RemoveAll(d.at("etc/gone")))
		told("the folder vanished")
		w.Watch(folders(d.dir, "/etc/pki/a.crt"))
		d.write("etc/pki/a.crt", "2")
		told("the folder came back")
		w.Watch(folders(d.dir, "/etc/pki/a.crt"))
		d.write("etc/pki/a.crt", "3")
		told("the file was written in the new folder")
	}
}

func TestABurstIsToldOnce(t *testing.T) {
	t.Parallel()
	d := disk{t, t.TempDir()}
	d.write("a.crt", "1")
	w := newWatcher(slog.New(slog.NewTextHandler(io.Discard, nil)))
	defer w.Close()
	w.Watch(folders(d.dir, "/a.crt"))
	for range 300 {
		d.write("a.crt", "2")
		d.write("b.crt", "2")
	}
	<-w.Changed()
	select {
	case <-w.Changed():
		t.Error("told twice")
	case <-time.After(2 * burstEnds):
	}
}

func TestWithoutWatchesOfTheKernelItIsSaidOnce(t *testing.T) {
	log := &lines{}
	w := newWatcher(slog.New(slog.NewTextHandler(log, nil)))
	w.exhausted(syscall.ENOSPC)
	w.exhausted(syscall.ENOSPC)
	w.Close()
	if got := log.String(); strings.Count(got, "no more watches") != 1 || !strings.Contains(got, "max_user_watches") {
		t.Error(got)
	}
}

func TestLinksAreFollowedBelowTheRootAlone(t *testing.T) {
	d := disk{t, t.TempDir()}
	d.write("root/etc/a.crt", "1")
	d.write("etc/a.crt", "outside")
	d.link("root/up.crt", "../../../../etc/a.crt")
	d.link("root/loop", "loop")
	for path, want := range map[string]string{
		"/etc/a.crt": "root/etc/a.crt", "/up.crt": "root/etc/a.crt", "/../../etc/a.crt": "root/etc/a.crt", "/loop": "", "/none/a.crt": "",
	} {
		dirs, end := follow(d.at("root"), path)
		if want != "" {
			want = d.at(want)
		}
		if end != want {
			t.Errorf("%s ends at %q", path, end)
		}
		if slices.ContainsFunc(dirs, func(f string) bool { return !strings.HasPrefix(f, d.at("root")) }) {
			t.Errorf("%s: watches %v", path, dirs)
		}
	}
}
