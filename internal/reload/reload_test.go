package reload_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/reload"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, told func(string, error), paths ...string) *reload.Files[string] {
	t.Helper()
	f, err := reload.New(paths, func(contents [][]byte) (string, error) {
		text := ""
		for _, c := range contents {
			text += string(c) + "|"
		}
		if strings.Contains(text, "bad") {
			return "", errors.New("it is bad")
		}
		return text, nil
	}, told)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// age makes a file look as if it was changed some time ago, by the clock of the
// bubble.
func age(t *testing.T, path string, d time.Duration) {
	t.Helper()
	at := time.Now().Add(-d)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsBeingWrittenIsNotTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "f")
		put(t, path, "one")
		f := open(t, nil, path)
		put(t, path, "tw")
		age(t, path, 0)
		time.Sleep(time.Second)
		if got := f.Get(); got != "one|" {
			t.Errorf("half written, it is %q", got)
		}
		put(t, path, "two")
		age(t, path, 0)
		time.Sleep(time.Second)
		if got := f.Get(); got != "one|" {
			t.Errorf("just written, it is %q", got)
		}
		time.Sleep(time.Second)
		if got := f.Get(); got != "two|" {
			t.Errorf("seen twice, it is %q", got)
		}
	})
}

// After a long silence the first who asks gets what is there, not what was.
func TestWhatWasWrittenLongAgoIsTakenUpAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "f")
		put(t, path, "one")
		f := open(t, nil, path)
		put(t, path, "two")
		age(t, path, 0)
		time.Sleep(time.Hour)
		if got := f.Get(); got != "two|" {
			t.Errorf("an hour later it is %q", got)
		}
	})
}

func TestBothFilesCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		put(t, a, "one")
		put(t, b, "one")
		f := open(t, nil, a, b)
		time.Sleep(time.Hour)
		put(t, a, "two")
		age(t, a, time.Minute)
		put(t, b, "tw")
		age(t, b, 0)
		if got := f.Get(); got != "one|one|" {
			t.Errorf("while the second is written, it is %q", got)
		}
		put(t, b, "two")
		age(t, b, 0)
		time.Sleep(10 * time.Second)
		if got := f.Get(); got != "two|two|" {
			t.Errorf("it is %q", got)
		}
	})
}

func TestWhatCannotBeUsedIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "f")
		put(t, path, "one")
		var told []string
		f := open(t, func(v string, err error) {
			if err != nil {
				v = err.Error()
			}
			told = append(told, v)
		}, path)
		for _, step := range []func(){
			func() { put(t, path, "bad") },
			func() { put(t, path, "one") }, // mended
			func() { put(t, path, "bad") }, // and broken again
			func() {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			},
			func() { put(t, path, "two") },
		} {
			step()
			for range 10 {
				time.Sleep(time.Second)
				f.Get()
			}
		}
		want := []string{"it is bad", "one|", "it is bad", "no such file", "two|"}
		if len(told) != len(want) {
			t.Fatalf("told %q", told)
		}
		for i := range want {
			if !strings.Contains(told[i], want[i]) {
				t.Errorf("told %q, want %q", told[i], want[i])
			}
		}
	})
}

// net/http recovers where a handshake panics: what hears of changes must not stop
// the next ones.
func TestWhoHearsOfItMayPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "f")
		put(t, path, "one")
		f := open(t, func(string, error) { panic("told") }, path)
		for _, next := range []string{"two", "bad", "three"} {
			put(t, path, next)
			panics := 0
			for range 10 {
				time.Sleep(time.Second)
				func() {
					defer func() {
						if recover() != nil {
							panics++
						}
					}()
					f.Get()
				}()
			}
			if panics != 1 {
				t.Errorf("%s: it was told %d times", next, panics)
			}
		}
		if got := f.Get(); got != "three|" {
			t.Errorf("got %q", got)
		}
	})
}

func TestManyGoroutines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	put(t, path, "one")
	f := open(t, nil, path)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 1000 {
				if got := f.Get(); got != "one|" && got != "two|" {
					t.Errorf("it is %q", got)
					return
				}
			}
		})
	}
	put(t, path, "two")
	group.Wait()
}

func TestFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	put(t, large, strings.Repeat("x", 1<<20+1))
	for _, path := range []string{dir, filepath.Join(dir, "absent"), large, os.DevNull} {
		_, err := reload.New([]string{path}, func([][]byte) (int, error) { return 0, nil }, nil)
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
