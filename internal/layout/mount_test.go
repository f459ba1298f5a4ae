package layout

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// mountOf is what a run of a number writes: its files tell by which run they are.
func mountOf(run int) Mount {
	text := strconv.Itoa(run)
	return Mount{Token: "token " + text + strings.Repeat(".", 1000), CA: []byte("ca " + text + strings.Repeat(".", 5000)), Namespace: "namespace " + text}
}

var mountTime = time.Date(2026, 5, 1, 12, 30, 1, 0, time.UTC)

func contentOf(run int) func() (Mount, error) {
	return func() (Mount, error) { return mountOf(run), nil }
}

// writeQuickly fails where anything of an earlier run is left over, too.
func writeQuickly(dir string, run int) error {
	kept, err := writeMount(dir, contentOf(run), mountTime, quick)
	return errors.Join(append(kept, err)...)
}

// view is a snapshot without the random part of the folder's name.
func view(t *testing.T, dir string) map[string]string {
	t.Helper()
	random := regexp.MustCompile(`(\.\.\d{4}(_\d\d){5}\.)\d+`)
	all := map[string]string{}
	for name, content := range snapshot(t, dir) {
		all[random.ReplaceAllString(name, "${1}N")] = random.ReplaceAllString(content, "${1}N")
	}
	return all
}

// shown returns which run the plain names show, 0 where there is no token, and
// fails when they show several.
func shown(t *testing.T, dir string) int {
	t.Helper()
	run, parts := 0, 0
	for name, want := range map[string]string{MountToken: "token ", MountCA: "ca ", MountNamespace: "namespace "} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		number, found := strings.CutPrefix(strings.TrimRight(string(data), "."), want)
		n, _ := strconv.Atoi(number)
		whole := mountOf(n)
		if err != nil || !found || (parts > 0 && n != run) || string(data) != string(whole.file(name)) {
			t.Errorf("%s is %.20q of %d bytes, another file is of run %d: %v", name, data, len(data), run, err)
		}
		run, parts = n, parts+1
	}
	if parts != 0 && parts != 3 {
		t.Errorf("%d of 3 files are there", parts)
	}
	return run
}

// checkMount asserts that a mount is the whole of a run, and nothing is left over.
func checkMount(t *testing.T, dir string, run int) {
	t.Helper()
	m := mountOf(run)
	want := map[string]string{
		".":      (fs.ModeDir | 0o755).String() + " ",
		"..data": "Lrwxrwxrwx ..2026_05_01_12_30_01.N", MountToken: "Lrwxrwxrwx ..data/token", MountCA: "Lrwxrwxrwx ..data/ca.crt", MountNamespace: "Lrwxrwxrwx ..data/namespace",
		"..2026_05_01_12_30_01.N":           "drwxr-xr-x ",
		"..2026_05_01_12_30_01.N/token":     "-rw------- " + m.Token,
		"..2026_05_01_12_30_01.N/ca.crt":    "-rw-r--r-- " + string(m.CA),
		"..2026_05_01_12_30_01.N/namespace": "-rw-r--r-- " + m.Namespace,
		// Of the user.
		"mine": "-rw-r--r-- hands off", "..mine": "drwxr-x--- ",
	}
	if d := cmp.Diff(want, view(t, dir)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// ownFolder is a folder with things of its owner.
func ownFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "mine", "hands off", 0o644)
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "..mine"), 0o750), os.Chmod(filepath.Join(dir, "..mine"), 0o750), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAMountIsReplacedAsAWhole(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077)) // whatever the umask
	dir := ownFolder(t)
	for run := 1; run <= 3; run++ {
		if err := writeQuickly(dir, run); err != nil {
			t.Fatal(err)
		}
		checkMount(t, dir, run)
	}
	// Made, with what is missing above.
	dir = filepath.Join(t.TempDir(), "a", "b")
	if kept, err := WriteMount(dir, contentOf(7)); err != nil || kept != nil || shown(t, dir) != 7 {
		t.Errorf("run %d is shown, %v, %v", shown(t, dir), kept, err)
	}
}

func TestAMountTakesNoName(t *testing.T) {
	for what, arrange := range map[string]func(dir string) error{
		"a file called token":              func(dir string) error { return os.WriteFile(filepath.Join(dir, "token"), []byte("mine"), 0o600) },
		"a link called ca.crt":             func(dir string) error { return os.Symlink("/etc/kubernetes/pki/ca.crt", filepath.Join(dir, "ca.crt")) },
		"a folder called namespace":        func(dir string) error { return os.Mkdir(filepath.Join(dir, "namespace"), 0o755) },
		"a folder called ..data":           func(dir string) error { return os.Mkdir(filepath.Join(dir, "..data"), 0o755) },
		"..data that leads to the outside": func(dir string) error { return os.Symlink("../other", filepath.Join(dir, "..data")) },
		"..data that leads to something":   func(dir string) error { return os.Symlink("mine", filepath.Join(dir, "..data")) },
		"a file called ..data_tmp":         func(dir string) error { return os.WriteFile(filepath.Join(dir, "..data_tmp"), nil, 0o600) },
	} {
		t.Run(what, func(t *testing.T) {
			dir := ownFolder(t)
			if err := arrange(dir); err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, dir)
			content := func() (Mount, error) { t.Error("a token is asked for"); return mountOf(1), nil }
			if _, err := writeMount(dir, content, mountTime, quick); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), dir+"/") {
				t.Errorf("got %v", err)
			}
			if d := cmp.Diff(before, snapshot(t, dir)); d != "" {
				t.Errorf("it was changed: %s", d)
			}
		})
	}
	t.Run("another run", func(t *testing.T) {
		dir := ownFolder(t)
		root, lock, err := openLocked(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		defer lock.Close()
		if err := writeQuickly(dir, 1); !errors.As(err, new(*BusyError)) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("files of others in the folder of an earlier run", func(t *testing.T) {
		dir := ownFolder(t)
		if err := writeQuickly(dir, 1); err != nil {
			t.Fatal(err)
		}
		old, _ := os.Readlink(filepath.Join(dir, "..data"))
		write(t, dir, old+"/extra", "of somebody", 0o644)
		if err := writeQuickly(dir, 2); err != nil || shown(t, dir) != 2 {
			t.Errorf("run %d is shown, %v", shown(t, dir), err)
		}
		if entries, err := os.ReadDir(filepath.Join(dir, old)); err != nil || len(entries) != 1 {
			t.Errorf("the old folder holds %v, %v", entries, err)
		}
	})
	t.Run("a folder called token in the folder of somebody else", func(t *testing.T) {
		dir := ownFolder(t)
		theirs := filepath.Join(dir, "..2020_01_01_00_00_00.1", "token")
		if err := errors.Join(os.MkdirAll(theirs, 0o755), writeQuickly(dir, 1)); err != nil || shown(t, dir) != 1 {
			t.Errorf("run %d is shown, %v", shown(t, dir), err)
		}
		if _, err := os.Stat(theirs); err != nil {
			t.Error(err)
		}
	})
}

// TestAMountWithoutContentIsLeftAsItWas: the cluster makes no token.
func TestAMountWithoutContentIsLeftAsItWas(t *testing.T) {
	refused := errors.New("refused")
	content := func() (Mount, error) { return Mount{}, refused }
	dir := ownFolder(t)
	for range 2 {
		before := snapshot(t, dir)
		if _, err := writeMount(dir, content, mountTime, quick); !errors.Is(err, refused) {
			t.Errorf("got %v", err)
		}
		if d := cmp.Diff(before, snapshot(t, dir)); d != "" {
			t.Errorf("it was changed: %s", d)
		}
		if err := writeQuickly(dir, 1); err != nil {
			t.Fatal(err)
		}
	}
	parent := t.TempDir()
	if _, err := writeMount(filepath.Join(parent, "a", "b"), content, mountTime, quick); !errors.Is(err, refused) || len(snapshot(t, parent)) != 1 {
		t.Errorf("got %v, and %v", err, snapshot(t, parent))
	}
}

// TestWhatCannotBeRemovedStopsNoRenewal: a run of root, then a folder of another
// user, who may not remove what root has written.
func TestWhatCannotBeRemovedStopsNoRenewal(t *testing.T) {
	dir := filepath.Join(openTempDir(t), "mount")
	if err := writeQuickly(dir, 1); err != nil {
		t.Fatal(err)
	}
	first, err := os.Readlink(filepath.Join(dir, "..data"))
	// For who runs this test as himself it has to be closed.
	if err = errors.Join(err, os.Chmod(filepath.Join(dir, first), 0o555)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, first), 0o755) })
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	unprivileged(t, "renew", dir)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 6 {
		t.Errorf("there is %v, %v: want one leftover", entries, err)
	}
}

func TestNoTokenIsAskedForWhereNoneCanBeWritten(t *testing.T) {
	dir := openTempDir(t)
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	unprivileged(t, "closed", dir)
	unprivileged(t, "closed", filepath.Join(dir, "new"))
}

// renewMount is a child that renews a mount over a folder that it cannot remove.
func renewMount(dir string) error {
	for run := 2; run <= 4; run++ {
		kept, err := WriteMount(dir, contentOf(run))
		if err != nil || len(kept) != 1 || !errors.Is(kept[0], fs.ErrPermission) || !strings.Contains(kept[0].Error(), "removing "+dir+"/..2026_05_01_12_30_01.") {
			return fmt.Errorf("run %d: %v, kept %v", run, err, kept)
		}
		if data, err := os.ReadFile(filepath.Join(dir, MountToken)); err != nil || string(data) != mountOf(run).Token {
			return fmt.Errorf("run %d is not shown: %.20q, %w", run, data, err)
		}
	}
	return nil
}

// writeClosed is a child that may not write into a folder.
func writeClosed(dir string) error {
	content := func() (Mount, error) { return Mount{}, errors.New("a token was asked for") }
	if _, err := WriteMount(dir, content); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), dir) {
		return fmt.Errorf("got %w", err)
	}
	return nil
}

// mountOperations counts the changing operations of a run, as the first one or
// over an earlier one.
func mountOperations(t *testing.T, first bool) int {
	t.Helper()
	d := &faultyDisk{decide: func(int, bool) fault { return works }}
	dir := ownFolder(t)
	if !first {
		if err := writeQuickly(dir, 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := writeMount(dir, contentOf(2), mountTime, func(r *os.Root) fileOps { d.fileOps = quick(r); return d }); err != nil {
		t.Fatal(err)
	}
	if d.count < 16 {
		t.Fatalf("only %d operations seen", d.count)
	}
	return d.count
}

// TestAMountSurvivesEveryFault fails, and stops, at each operation in turn: of a
// first run, and of one that replaces another.
func TestAMountSurvivesEveryFault(t *testing.T) {
	for _, first := range []bool{true, false} {
		for _, f := range []fault{full, dead} {
			newShown := 0
			total := mountOperations(t, first)
			for n := range total {
				dir, old := ownFolder(t), 0
				if !first {
					old = 1
					if err := writeQuickly(dir, 1); err != nil {
						t.Fatal(err)
					}
				}
				before := snapshot(t, dir)
				d := &faultyDisk{decide: func(i int, _ bool) fault {
					if i == n {
						return f
					}
					return works
				}}
				kept, err := writeMount(dir, contentOf(2), mountTime, func(r *os.Root) fileOps { d.fileOps = quick(r); return d })
				switch {
				case err == nil && (len(kept) != 1 || shown(t, dir) != 2):
					t.Errorf("it has seen no fault, and kept %v", kept)
				case err != nil && strings.Contains(err.Error(), "\n") && f != dead:
					t.Errorf("the error is %v", err)
				}
				switch run := shown(t, dir); {
				case run == 2:
					newShown++
				case run != old:
					t.Errorf("run %d is shown", run)
				case f == full:
					if d := cmp.Diff(before, snapshot(t, dir)); d != "" {
						t.Errorf("an error changed the folder: %s", d)
					}
				}
				if err := writeQuickly(dir, 3); err != nil {
					t.Error(err)
				}
				checkMount(t, dir, 3)
				if t.Failed() {
					t.Fatalf("first run: %t, fault %d at operation %d of %d", first, f, n, total)
				}
			}
			if newShown < 1 || newShown > total/2 {
				t.Errorf("of %d faults, %d left the new files", total, newShown)
			}
		}
	}
}

// recordedDisk notes the operations by which files become durable and are shown.
type recordedDisk struct {
	fileOps
	log []string
}

func (d *recordedDisk) note(what, name string) {
	d.log = append(d.log, what+" "+regexp.MustCompile(`^\.\.\d[\d_.]+`).ReplaceAllString(name, "..TIME"))
}

func (d *recordedDisk) Sync(name string) error { d.note("sync", name); return d.fileOps.Sync(name) }

func (d *recordedDisk) Remove(name string) error {
	d.note("remove", name)
	return d.fileOps.Remove(name)
}

func (d *recordedDisk) Rename(from, to string) error {
	d.note("show", to)
	return d.fileOps.Rename(from, to)
}

func TestAMountIsDurableBeforeItIsShown(t *testing.T) {
	dir := ownFolder(t)
	if err := writeQuickly(dir, 1); err != nil {
		t.Fatal(err)
	}
	d := &recordedDisk{}
	if _, err := writeMount(dir, contentOf(2), mountTime, func(r *os.Root) fileOps { d.fileOps = diskOps{r}; return d }); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"sync ..TIME/token", "sync ..TIME/ca.crt", "sync ..TIME/namespace", "sync ..TIME", "sync .",
		"show ..data", "sync .",
		"remove ..TIME/token", "remove ..TIME/ca.crt", "remove ..TIME/namespace", "remove ..TIME",
	}
	if d := cmp.Diff(want, d.log); d != "" {
		t.Error(d)
	}
}

// TestKilledWhileAMountIsTidied stops the run after a run that was stopped.
func TestKilledWhileAMountIsTidied(t *testing.T) {
	stopAt := func(dir string, run, n int) {
		d := &faultyDisk{decide: func(i int, _ bool) fault {
			if i == n {
				return dead
			}
			return works
		}}
		_, _ = writeMount(dir, contentOf(run), mountTime, func(r *os.Root) fileOps { d.fileOps = quick(r); return d })
	}
	total := mountOperations(t, false)
	for first := range total {
		for second := first % 3; second < total+5; second += 3 {
			dir := ownFolder(t)
			if err := writeQuickly(dir, 1); err != nil {
				t.Fatal(err)
			}
			stopAt(dir, 2, first)
			stopAt(dir, 3, second)
			if run := shown(t, dir); run < 1 || run > 3 {
				t.Errorf("run %d is shown", run)
			}
			if err := writeQuickly(dir, 4); err != nil {
				t.Error(err)
			}
			checkMount(t, dir, 4)
			if t.Failed() {
				t.Fatalf("stopped at operation %d, then at %d", first, second)
			}
		}
	}
}

// mountForever is a child that replaces a mount until it is killed, and says so
// before each operation.
func mountForever(dir string) error {
	talk := func(int, bool) fault { fmt.Print("."); return works }
	for run := 1; ; run++ {
		if _, err := writeMount(dir, contentOf(run), mountTime, func(r *os.Root) fileOps { return &faultyDisk{fileOps: diskOps{r}, decide: talk} }); err != nil {
			return err
		}
	}
}

// readMount reads as a client must who wants files of one run: it follows ..data
// once. It is empty where the folder was replaced meanwhile.
func readMount(dir string) (token, ca string) {
	folder, err := os.Readlink(filepath.Join(dir, mountData))
	if err != nil {
		return "", ""
	}
	first, err1 := os.ReadFile(filepath.Join(dir, folder, MountToken))
	second, err2 := os.ReadFile(filepath.Join(dir, folder, MountCA))
	if errors.Join(err1, err2) != nil {
		return "", ""
	}
	return string(first), string(second)
}

func TestReadersSeeOneRunWhileWritersAreKilled(t *testing.T) {
	// Not beside other tests: a fork copies their locks until its exec.
	reads := 0
	for round := range 20 {
		dir := ownFolder(t)
		cmd := child("mount", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		talk := bufio.NewReaderSize(out, 16)
		for range 60 + rand.IntN(60) {
			if _, err := io.CopyN(io.Discard, talk, 1); err != nil {
				t.Fatalf("round %d: the child ended by itself: %v", round, err)
			}
			if token, ca := readMount(dir); token != "" {
				run, _ := strconv.Atoi(strings.TrimRight(strings.TrimPrefix(token, "token "), "."))
				if m := mountOf(run); token != m.Token || ca != string(m.CA) {
					t.Fatalf("round %d: %.20q beside %.20q", round, token, ca)
				}
				reads++
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if shown(t, dir) < 1 {
			t.Errorf("round %d: nothing is shown", round)
		}
		if err := writeQuickly(dir, 1000); err != nil {
			t.Fatal(err)
		}
		checkMount(t, dir, 1000)
	}
	if reads < 400 {
		t.Errorf("only %d reads", reads)
	}
}
