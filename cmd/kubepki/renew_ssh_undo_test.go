package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/sshtest"
)

// without are the files of nodes beside what is kept of renewals.
func without(trees map[string]map[string]string) map[string]map[string]string {
	for _, tree := range trees {
		maps.DeleteFunc(tree, func(name, _ string) bool { return strings.Contains(name, "kubepki-backup") })
	}
	return trees
}

// TestRenewOverSSHIsUndone in a later run, each node by what it has kept itself.
func TestRenewOverSSHIsUndone(t *testing.T) {
	c := newSSHCluster(t, haFlags...)
	all := c.ssh("w1", "cp1", "cp2")
	before := without(c.trees())
	undone := func() []string {
		var names []string
		for n, tree := range without(c.trees()) {
			if mapsEqual(tree, before[n]) {
				names = append(names, n)
			}
		}
		slices.Sort(names)
		return names
	}
	t.Run("where nothing is kept that is said", func(t *testing.T) {
		r := c.renew(append(all, "--undo", "--yes")...)
		if r.code != exitFailed {
			t.Errorf("ended with %d", r.code)
		}
		wants(t, r.err, `no backup "latest" is kept on these nodes`)
	})
	if r := c.renew(append(all, "kubelet.conf", "--yes")...); r.code != 0 {
		t.Fatalf("ended with %d: %s", r.code, r.err)
	}
	t.Run("a dry run shows the files and changes none", func(t *testing.T) {
		r := c.renew(append(all, "--undo", "--dry-run")...)
		if r.code != 0 || len(undone()) > 0 {
			t.Errorf("ended with %d, undone %v: %s", r.code, undone(), r.err)
		}
		wants(t, r.err, "w1:/etc/kubernetes/kubelet.conf", "restored")
	})
	t.Run("it stops where a connection is cut, tells what it does not know, and goes on with the rest", func(t *testing.T) {
		c.machines["cp2"].OnLine(func(l sshtest.Line) sshtest.Deed {
			if l.ToHere && bytes.Contains(l.Text, []byte(`"do":true`)) {
				return sshtest.PassCut
			}
			return sshtest.Pass
		})
		r := c.renew(append(all, "--undo", "--yes")...)
		c.machines["cp2"].OnLine(nil)
		if r.code != exitFailed {
			t.Errorf("ended with %d", r.code)
		}
		wants(t, r.err, "undone: cp1; not known: cp2; not begun: w1", "see on cp2 before you undo anything there again", "--nodes=w1")
		_, again, _ := strings.Cut(r.err, "what is left: kubepki ")
		again, _, _ = strings.Cut(again, "\n")
		for began := time.Now(); time.Since(began) < 20*time.Second; { // what was begun there ends by itself
			r = c.run(strings.Fields(strings.ReplaceAll(again, "'", ""))...)
			if !strings.Contains(r.err, "another kubepki is writing") && slices.Contains(undone(), "cp2") {
				break
			}
		}
		if got := undone(); r.code != 0 || len(got) != 3 {
			t.Errorf("going on ended with %d, undone %v: %s", r.code, got, r.err)
		}
		c.healthy()
	})
	t.Run("an undo is undone, and what somebody changed since stays without --force", func(t *testing.T) {
		args := append(c.ssh("w1"), "--undo", "--yes")
		if r := c.renew(args...); r.code != 0 || slices.Contains(undone(), "w1") {
			t.Errorf("ended with %d, undone %v: %s", r.code, undone(), r.err)
		}
		file := filepath.Join(c.dir, "w1", "etc/kubernetes/kubelet.conf")
		data, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(file, append(data, "# mine\n"...), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		r := c.renew(args...)
		if r.code != exitFailed || slices.Contains(undone(), "w1") {
			t.Errorf("ended with %d, undone %v", r.code, undone())
		}
		wants(t, r.err, "changed since: w1:/etc/kubernetes/kubelet.conf")
		if r := c.renew(append(args, "--force")...); r.code != 0 || !slices.Contains(undone(), "w1") {
			t.Errorf("by force it ended with %d, undone %v: %s", r.code, undone(), r.err)
		}
	})
	t.Run("what does not go together is refused", func(t *testing.T) {
		for flag, says := range map[string]string{"--backups": "--backups: does not go with --ssh", "--undo --restart": "does not go with --undo", "--undo --root=x=" + c.dir: "give --root or --ssh", "--due --force": "for --undo alone"} {
			r := c.renew(append(c.ssh("w1"), strings.Fields(flag)...)...)
			if r.code != exitUsage {
				t.Errorf("%s ended with %d", flag, r.code)
			}
			wants(t, r.err, says)
		}
	})
}
