package main

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/token"
)

// keyFile writes a file of public keys; documents of many take longer to write.
func keyFile(t *testing.T, path string, n int) {
	t.Helper()
	var all []byte
	for range n {
		key, err := issue.GenerateKey(issue.ECDSAP256)
		if err != nil {
			t.Fatal(err)
		}
		data, err := issue.EncodePublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data...)
	}
	if err := os.WriteFile(path, all, 0o600); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestServeOutKilled kills the program with SIGKILL while it writes. What is
// published is whole at any moment, and the next run, whether it writes or not,
// leaves nothing of the killed one in the folder of the web host.
func TestServeOutKilled(t *testing.T) {
	const n = 100
	dir := t.TempDir()
	www, keys := filepath.Join(dir, "www"), [2]string{filepath.Join(dir, "a.pub"), filepath.Join(dir, "b.pub")}
	args := func(key string) []string {
		return []string{"sa", "serve", "--out", www, "--key", key, "--issuer", servedIssuer}
	}
	keyFile(t, keys[0], n)
	keyFile(t, keys[1], n)
	document, temporary := filepath.Join(www, "east/openid/v1/jwks"), filepath.Join(www, "east/openid/v1/.kubepki-jwks.tmp")
	start := time.Now()
	runKubepki(t, args(keys[0])...)
	took, first := time.Since(start), readFile(t, document)
	left, rounds := 0, 0
	for ; rounds < 100 && left < 4; rounds++ {
		held := 1 // which of the files is published
		if bytes.Equal(readFile(t, document), first) {
			held = 0
		}
		kill(t, func() { waitFor(temporary, 2*took) }, args(keys[1-held])...)
		if _, err := os.Lstat(temporary); err == nil {
			left++
		}
		if all, err := token.ParseKeys(readFile(t, document)); err != nil || len(all) != n {
			t.Fatalf("round %d: %d keys, %v", rounds, len(all), err)
		}
		runKubepki(t, args(keys[(held+left)%2])...)
		if found := hidden(t, www); len(found) != 1 { // the folder .well-known
			t.Fatalf("round %d: there is %q", rounds, found)
		}
	}
	if left == 0 {
		t.Error("no run was killed while it wrote: the test proves nothing")
	}
	t.Logf("%d of %d killed runs left something", left, rounds)
}

// hidden are the names below a folder that begin with a dot.
func hidden(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), ".") {
			all = append(all, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A file that the user may not read is named by its flag.
func TestKeyWithoutTheRightToReadIt(t *testing.T) {
	dir, err := os.MkdirTemp("", "serve") // that every user may enter
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "sa.pub")
	keyFile(t, key, 1)
	if err := os.Chmod(key, 0); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("kubepki", "sa", "serve", "--out", filepath.Join(dir, "www"), "--key", key, "--issuer", servedIssuer)
	c.Env = environment()
	if os.Geteuid() == 0 { // who may read everything
		const nobody = 65534
		c.Path = "/proc/self/exe" // needs no path that nobody may walk
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: true}}
	}
	said, err := c.CombinedOutput()
	if err == nil || string(said) != "kubepki: error: --key: open "+key+": permission denied\nkubepki: hint: run it with sudo\n" {
		t.Errorf("%v: %s", err, said)
	}
}
