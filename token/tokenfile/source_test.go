package tokenfile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/token"
	"github.com/kubepki/kubepki/token/tokenfile"
)

func write(t *testing.T, path string, names ...string) {
	t.Helper()
	var all []byte
	for _, n := range names {
		data, err := issue.EncodePublicKey(tokentest.Key(n).Public())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data...)
	}
	if err := os.WriteFile(path, all, 0o600); err != nil {
		t.Fatal(err)
	}
}

func id(t *testing.T, name string) string {
	t.Helper()
	k, err := token.NewKey(tokentest.Key(name).Public())
	if err != nil {
		t.Fatal(err)
	}
	return k.ID
}

// Keys are rotated in the files, and a file that is broken meanwhile changes
// nothing.
func TestKeysFollowTheFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := filepath.Join(t.TempDir(), "a.pub"), filepath.Join(t.TempDir(), "b.pub")
		write(t, a, tokentest.RSA)
		write(t, b, tokentest.P256)
		var told []string
		s, err := tokenfile.Open(func(err error) {
			if err == nil {
				told = append(told, "taken up")
			} else {
				told = append(told, err.Error())
			}
		}, a, b)
		if err != nil {
			t.Fatal(err)
		}
		want := func(names ...string) {
			t.Helper()
			var set *token.KeySet
			for range 3 {
				time.Sleep(time.Second)
				var err error
				if set, err = s.Keys(t.Context(), ""); err != nil {
					t.Fatal(err)
				}
			}
			if len(set.All()) != len(names) {
				t.Fatalf("%d keys, want %q", len(set.All()), names)
			}
			for _, n := range names {
				if !set.Has(id(t, n)) {
					t.Fatalf("%s is missing", n)
				}
			}
		}
		want(tokentest.RSA, tokentest.P256)
		write(t, a, tokentest.RSA, tokentest.P384)
		want(tokentest.RSA, tokentest.P384, tokentest.P256)
		if err := os.WriteFile(a, []byte("-----BEGIN PUBLIC KEY-----\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		want(tokentest.RSA, tokentest.P384, tokentest.P256)
		if err := os.Remove(a); err != nil {
			t.Fatal(err)
		}
		want(tokentest.RSA, tokentest.P384, tokentest.P256)
		write(t, a, tokentest.P384)
		want(tokentest.P384, tokentest.P256)
		if len(told) != 4 || told[0] != "taken up" || !strings.Contains(told[1], a+": ") || !strings.Contains(told[2], "no such file") || told[3] != "taken up" {
			t.Errorf("told %q", told)
		}
	})
}

func TestFilesThatHoldNoKeys(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, paths := range map[string][]string{"an empty file": {empty}, "no file": {filepath.Join(dir, "absent")}, "a folder": {dir}, "nothing": nil} {
		if _, err := tokenfile.Open(nil, paths...); err == nil || len(paths) > 0 && !strings.Contains(err.Error(), paths[0]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
