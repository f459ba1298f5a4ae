package reload_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/reload"
)

func TestAsOfStaysBehindWhatCannotBeUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "value")
		put := func(text string) {
			t.Helper()
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		put("one")
		began := time.Now()
		f, err := reload.New([]string{path}, func(all [][]byte) (string, error) {
			if string(all[0]) == "bad" {
				return "", errors.New("bad")
			}
			return string(all[0]), nil
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		wants := func(value string, asOf time.Duration) {
			t.Helper()
			if got := f.Get(); got != value || f.AsOf().Sub(began) != asOf {
				t.Errorf("after %s: %q as of %s, want %q as of %s", time.Since(began), got, f.AsOf().Sub(began), value, asOf)
			}
		}
		wants("one", 0)
		time.Sleep(5 * time.Second)
		if f.AsOf() != began {
			t.Error("nobody has asked, and it was read")
		}
		wants("one", 5*time.Second)
		put("bad")
		for range 4 {
			time.Sleep(time.Second)
			wants("one", 5*time.Second)
		}
		put("two")
		time.Sleep(time.Second)
		wants("one", 5*time.Second) // it may be half written
		time.Sleep(time.Second)
		wants("two", 11*time.Second)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		wants("two", 11*time.Second)
	})
}
