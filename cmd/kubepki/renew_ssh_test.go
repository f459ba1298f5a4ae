package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/sshtest"
)

// sshCluster is a cluster whose nodes are machines with SSH servers.
type sshCluster struct {
	t        *testing.T
	dir      string // holds the root of each node
	machines map[string]*sshtest.Machine
	key      *sshtest.Key
	known    string
}

// newSSHCluster makes a cluster, by kubepki init with some flags, and a machine for
// each of its nodes. The test's own program is installed there as kubepki.
func newSSHCluster(t *testing.T, flags ...string) *sshCluster {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("SSH_AUTH_SOCK", "")
	c := &sshCluster{t: t, dir: filepath.Join(t.TempDir(), "cluster"), machines: map[string]*sshtest.Machine{}, key: sshtest.NewKey(t, home, ""), known: filepath.Join(home, "known")}
	c.must(append([]string{"init", "--out", c.dir, "--manifests", "--key-algorithm", "ECDSA-P256"}, flags...)...)
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); e.IsDir() && exists(filepath.Join(c.dir, name, "etc")) {
			c.machines[name] = c.machine(filepath.Join(c.dir, name))
		}
	}
	c.know()
	return c
}

func (c *sshCluster) machine(dir string) *sshtest.Machine {
	m := sshtest.Start(c.t, dir, c.key)
	program, err := os.Executable()
	if err == nil {
		err = os.Mkdir(filepath.Join(m.Home, "bin"), 0o755)
	}
	if err == nil {
		err = os.Symlink(program, filepath.Join(m.Home, "bin", "kubepki"))
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// know writes known_hosts.
func (c *sshCluster) know() {
	var lines string
	for _, m := range c.machines {
		lines += m.KnownHosts()
	}
	if err := os.WriteFile(c.known, []byte(lines), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// ssh are the flags that reach some nodes.
func (c *sshCluster) ssh(nodes ...string) []string {
	flags := []string{"--ssh-known-hosts", c.known, "--ssh-identity", c.key.File, "--ssh-config", "none", "--ssh-root", ".", "--ssh-command", "kubepki"}
	for _, n := range nodes {
		flags = append(flags, "--ssh", n+"=op@"+c.machines[n].Addr)
	}
	return flags
}

// ran is what came of a command.
type ran struct {
	code     int
	out, err string
}

func (c *sshCluster) run(args ...string) ran {
	c.t.Helper()
	var out, talk bytes.Buffer
	code := run(c.t.Context(), args, streams{in: strings.NewReader(""), out: &out, err: &talk})
	return ran{code, out.String(), talk.String()}
}

func (c *sshCluster) must(args ...string) ran {
	c.t.Helper()
	r := c.run(args...)
	if r.code != 0 {
		c.t.Fatalf("kubepki %s ended with %d: %s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r
}

func (c *sshCluster) renew(args ...string) ran {
	c.t.Helper()
	return c.run(append([]string{"renew"}, args...)...)
}

func (c *sshCluster) healthy() {
	c.t.Helper()
	c.must("verify", c.dir, "--fail-on", "warning")
}

// tree is the content of all files below a node.
func (c *sshCluster) tree(node string) map[string]string {
	c.t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(filepath.Join(c.dir, node), func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(file)
		all[strings.TrimPrefix(file, filepath.Join(c.dir, node))] = string(data)
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return all
}

func (c *sshCluster) trees() map[string]map[string]string {
	all := map[string]map[string]string{}
	for n := range c.machines {
		all[n] = c.tree(n)
	}
	return all
}

// changed are the nodes of which a file differs.
func (c *sshCluster) changed(before map[string]map[string]string) []string {
	var names []string
	for n, was := range before {
		if !mapsEqual(was, c.tree(n)) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}

func mapsEqual(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

func wants(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is missing from:\n%s", p, text)
		}
	}
}

var haFlags = []string{"--control-plane-endpoint", "api.example.test:6443", "--control-plane", "cp1=10.0.0.11", "--control-plane", "cp2=10.0.0.12", "--worker", "w1=10.0.0.21"}

func TestRenewOverSSH(t *testing.T) {
	c := newSSHCluster(t, haFlags...)
	all := c.ssh("w1", "cp1", "cp2")

	t.Run("a dry run changes nothing on any node and shows the plan of all", func(t *testing.T) {
		before := c.trees()
		r := c.renew(append(all, "--all", "--dry-run")...)
		if r.code != 0 || len(c.changed(before)) > 0 {
			t.Fatalf("ended with %d, changed %v: %s", r.code, c.changed(before), r.err)
		}
		wants(t, r.out, "cp1/apiserver renewed (dry run)", "w1/kubelet.conf renewed (dry run)")
		wants(t, r.err, "SIGNED ON", "cp2/etcd-peer", "kube-apiserver: by itself")
	})
	t.Run("all nodes are renewed, their keys never leave them, and the cluster is healthy", func(t *testing.T) {
		var mu sync.Mutex
		var lines []byte
		for _, m := range c.machines {
			m.OnLine(func(l sshtest.Line) sshtest.Deed {
				mu.Lock()
				defer mu.Unlock()
				lines = append(lines, l.Text...)
				return sshtest.Pass
			})
		}
		before := c.trees()
		r := c.renew(append(all, "--all", "--yes")...)
		if r.code != 0 {
			t.Fatalf("ended with %d: %s", r.code, r.err)
		}
		if got := c.changed(before); len(got) != 3 {
			t.Errorf("changed %v", got)
		}
		c.healthy()
		for _, m := range c.machines {
			m.OnLine(nil)
		}
		mu.Lock()
		seen := slices.Clone(lines)
		mu.Unlock()
		if bytes.Contains(seen, []byte("PRIVATE KEY")) {
			t.Error("a private key travelled")
		}
		for node := range c.machines {
			for name, data := range c.tree(node) {
				if strings.HasSuffix(name, ".key") && !strings.Contains(name, "kubepki-backup") {
					body := strings.Split(data, "\n")[1]
					if bytes.Contains(seen, []byte(body)) {
						t.Errorf("the key %s of %s travelled", name, node)
					}
				}
			}
		}
	})
	t.Run("the authority's key is here, a leaf's key is kept, the answer is JSON", func(t *testing.T) {
		r := c.renew(append(c.ssh("cp2", "w1"), "kubelet.conf", "--reuse-key", "--yes", "-o", "json", "--root", "cp1="+filepath.Join(c.dir, "cp1"))...)
		if r.code != 0 {
			t.Fatalf("ended with %d: %s", r.code, r.err)
		}
		var d renewDocument
		if err := json.Unmarshal([]byte(r.out), &d); err != nil {
			t.Fatal(err)
		}
		if len(d.Items) != 3 || !d.Items[0].KeptKey || len(d.Nodes) != 2 || d.Nodes[0].State != "done" {
			t.Errorf("items %d, nodes %+v", len(d.Items), d.Nodes)
		}
		c.healthy()
	})
	t.Run("the key is on a far node and the leaf here", func(t *testing.T) {
		r := c.renew(append(c.ssh("cp1"), "w1/kubelet.conf", "--yes", "--root", "w1="+filepath.Join(c.dir, "w1"))...)
		if r.code != 0 {
			t.Fatalf("ended with %d: %s", r.code, r.err)
		}
		wants(t, r.out, "w1/kubelet.conf renewed: valid until")
		c.healthy()
	})
	t.Run("an authority is not certified again from here", func(t *testing.T) {
		r := c.renew(append(all, "cp1/ca", "--yes")...)
		if r.code != 1 {
			t.Errorf("ended with %d", r.code)
		}
		wants(t, r.err, "cp1/ca: an authority is certified again on the node that has it", "hint: on cp1: kubepki renew ca")
	})
	t.Run("two nodes that are swapped in the inventory stay what they are", func(t *testing.T) {
		before := c.trees()
		args := append(c.ssh("cp1"), "--ssh", "w2=op@"+c.machines["w1"].Addr, "kubelet.conf", "--nodes", "w2", "--yes")
		r := c.renew(args...)
		if r.code != exitFailed || len(c.changed(before)) > 0 {
			t.Errorf("ended with %d, changed %v", r.code, c.changed(before))
		}
		wants(t, r.err, `this machine is node "w1" today, and the operator calls it "w2"`, "call it w1=HOST")
	})
	t.Run("without an authority's key there is nothing to do, which is said", func(t *testing.T) {
		r := c.renew(append(c.ssh("w1"), "--all", "--yes")...)
		if r.code != exitFailed {
			t.Errorf("ended with %d", r.code)
		}
		wants(t, r.err, "nothing can be renewed", "hint: add the node that has it")
	})
	t.Run("what no node knows is an error that lists what there is", func(t *testing.T) {
		r := c.renew(append(all, "cp9/apiserver", "--yes")...)
		wants(t, r.err, "cp9/apiserver: no credential of this name", "cp1/apiserver")
	})
}

// TestCopiesRemoveThemselves before they answer anything, and nothing where the folder
// is not one that renew --ssh made.
func TestCopiesRemoveThemselves(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for folder, stays := range map[string]bool{".kubepki-ssh-abcdefghij": false, "bin": true} {
		dir := filepath.Join(t.TempDir(), folder)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(program, filepath.Join(dir, "kubepki")); err != nil {
			t.Skipf("the folder of tests is on another disk than their program: %v", err)
		}
		out, err := exec.Command(filepath.Join(dir, "kubepki"), "renew", "--serve-stdio", "--remove-itself").Output()
		if err != nil || !strings.HasPrefix(string(out), `{"kubepki":"node","protocol":1,`) {
			t.Errorf("%s: %q (%v)", folder, out, err)
		}
		if exists(dir) != stays {
			t.Errorf("%s is there: %v", folder, exists(dir))
		}
	}
}

// TestRenewOverSSHCopiesItself onto nodes that have no kubepki, and leaves nothing there.
// The program of a test is large; package reach copies a small one in every run.
func TestRenewOverSSHCopiesItself(t *testing.T) {
	if os.Getenv("KUBEPKI_LAB_LONG") == "" {
		t.Skip("a minute's work: KUBEPKI_LAB_LONG=1 (make test-long) runs it")
	}
	c := newSSHCluster(t, haFlags...)
	for _, m := range c.machines {
		if err := os.RemoveAll(filepath.Join(m.Home, "bin")); err != nil {
			t.Fatal(err)
		}
	}
	flags := slices.DeleteFunc(c.ssh("cp1"), func(s string) bool { return s == "--ssh-command" || s == "kubepki" })
	before := c.trees() // TestRenewOverOpenSSH does it without --dry-run
	if r := c.renew(append(flags, "apiserver", "--dry-run")...); r.code != 0 {
		t.Fatalf("ended with %d: %s", r.code, r.err)
	}
	left, err := filepath.Glob(filepath.Join(c.machines["cp1"].Home, ".kubepki*"))
	if err != nil || len(left) > 0 || len(c.changed(before)) > 0 {
		t.Errorf("it left %v there (%v), and changed %v", left, err, c.changed(before))
	}
	for _, command := range c.machines["cp1"].Commands() {
		if strings.Contains(command, "PRIVATE") || strings.Contains(command, "BEGIN") {
			t.Errorf("a command line holds more than names: %s", command)
		}
	}
	c.healthy()
}

// answersWithin has nodes waited for so many times as long as for a login.
func answersWithin(t *testing.T, times float64) {
	t.Helper()
	was := answerTimes
	answerTimes = times
	t.Cleanup(func() { answerTimes = was })
}

// TestRenewOverSSHIsCut at each message, killed at each, and hung at each: the node is
// as it was or done, the run says which, and the command that it prints does the rest.
func TestRenewOverSSHIsCut(t *testing.T) {
	type trouble struct {
		toHere bool
		number int
		deed   sshtest.Deed
	}
	// To the node, after facts and restarts are asked for: keys, write, read; from it the answers, one line later for its greeting.
	rows := []trouble{{true, 3, sshtest.Drop}, {true, 4, sshtest.Drop}, {true, 4, sshtest.PassCut}, {false, 5, sshtest.Kill}, {true, 5, sshtest.Kill}, {false, 5, sshtest.Hang}}
	if os.Getenv("KUBEPKI_LAB_LONG") != "" {
		rows = nil
		for _, deed := range []sshtest.Deed{sshtest.Drop, sshtest.PassCut, sshtest.Kill, sshtest.Hang} {
			for n := 3; n <= 5; n++ {
				rows = append(rows, trouble{true, n, deed}, trouble{false, n + 1, deed})
			}
		}
	}
	c := newSSHCluster(t, haFlags...)
	answersWithin(t, 0.6) // 6s for an answer: a busy machine takes some to read a node
	for _, row := range rows {
		t.Run(fmt.Sprintf("line %d, to the node %v, deed %d", row.number, row.toHere, row.deed), func(t *testing.T) {
			var hit atomic.Bool
			c.machines["cp2"].OnLine(func(l sshtest.Line) sshtest.Deed {
				if l.ToHere == row.toHere && l.Number == row.number && hit.CompareAndSwap(false, true) {
					return row.deed
				}
				return sshtest.Pass
			})
			before := c.trees()
			r := c.renew(append(c.ssh("cp1", "cp2", "w1"), "--all", "--yes", "--ssh-timeout", "10s")...)
			c.machines["cp2"].OnLine(nil)
			if !hit.Load() {
				t.Fatal("the line did not come")
			}
			c.healthy()
			changed := c.changed(before)
			cp2 := slices.Contains(changed, "cp2")
			if r.code == 0 {
				if len(changed) != 3 {
					t.Errorf("the run was well, and changed %v", changed)
				}
				return
			}
			wants(t, r.err, "done: cp1", "not begun: w1", "go on with what is left: kubepki renew --all ", "--nodes=")
			switch {
			case strings.Contains(r.err, "failed and unchanged: cp2") && cp2, strings.Contains(r.err, "done: cp1, cp2") && !cp2:
				t.Errorf("cp2 changed: %v, and it says %s", cp2, r.err)
			}
			if slices.Contains(changed, "w1") {
				t.Error("it went on after a control plane failed")
			}
			_, again, _ := strings.Cut(r.err, "what is left: kubepki ")
			again, _, _ = strings.Cut(again, "\n")
			if r := c.run(strings.Fields(strings.ReplaceAll(again, "'", ""))...); r.code != 0 {
				t.Fatalf("going on ended with %d: %s", r.code, r.err)
			}
			if got := c.changed(before); len(got) != 3 {
				t.Errorf("after going on %v are changed", got)
			}
			c.healthy()
		})
	}
}

func TestRenewOverSSHWithTroubledHosts(t *testing.T) {
	c := newSSHCluster(t, haFlags...)
	before := c.trees()
	unchanged := func(t *testing.T, r ran, parts ...string) {
		t.Helper()
		if got := c.changed(before); r.code != 1 || len(got) > 0 {
			t.Errorf("ended with %d and changed %v", r.code, got)
		}
		wants(t, r.err, parts...)
	}
	t.Run("one of three is down: nothing is changed, and which one is said", func(t *testing.T) {
		args := append(c.ssh("cp1", "w1"), "--ssh", "cp2=127.0.0.1:1", "--all", "--yes")
		unchanged(t, c.renew(args...), "cp2: cannot be reached: connect: connection refused", "--ssh-skip-down")
	})
	t.Run("a host that nobody knows is refused with its fingerprint and the command to know it", func(t *testing.T) {
		if err := os.WriteFile(c.known, []byte(c.machines["cp1"].KnownHosts()+c.machines["w1"].KnownHosts()), 0o600); err != nil {
			t.Fatal(err)
		}
		defer c.know()
		unchanged(t, c.renew(append(c.ssh("cp1", "cp2", "w1"), "--all", "--yes", "--ssh-skip-down")...),
			"its host key is not known", "SHA256:", "hint: compare that", "ssh-keyscan -t ed25519 -p "+c.machines["cp2"].Port()+" 127.0.0.1 >> "+c.known)
	})
	t.Run("a host key that is not the known one is refused loudly, also where hosts that are down are skipped", func(t *testing.T) {
		lines := c.machines["cp1"].KnownHosts() + c.machines["w1"].KnownHosts() + c.machines["cp2"].KnownBy(c.machines["w1"].HostKey)
		if err := os.WriteFile(c.known, []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
		defer c.know()
		unchanged(t, c.renew(append(c.ssh("cp1", "cp2", "w1"), "--all", "--yes", "--ssh-skip-down")...), "ITS HOST KEY IS NOT THE KNOWN ONE", "ssh-keygen -R [127.0.0.1]:"+c.machines["cp2"].Port())
	})
	t.Run("a host that lets us in with no key says which user", func(t *testing.T) {
		other := sshtest.NewKey(t, t.TempDir(), "")
		args := append(c.ssh("cp1"), "--all", "--yes", "--ssh-identity", other.File)
		unchanged(t, c.renew(args...), "lets op in with none of the 1 keys", "ssh -o BatchMode=yes op@127.0.0.1:")
	})
	t.Run("an encrypted key asks nobody where nobody is", func(t *testing.T) {
		locked := sshtest.NewKey(t, t.TempDir(), "secret")
		unchanged(t, c.renew(append(c.ssh("cp1"), "--all", "--yes", "--ssh-identity", locked.File)...), "the key is encrypted, and nobody is here", "ssh-add "+locked.File)
	})
	t.Run("a host that does not speak is not waited for longer than was said", func(t *testing.T) {
		c.machines["cp2"].OnLine(func(sshtest.Line) sshtest.Deed { return sshtest.Hang })
		defer c.machines["cp2"].OnLine(nil)
		started := time.Now()
		answersWithin(t, 0.1)
		unchanged(t, c.renew(append(c.ssh("cp2"), "--all", "--yes", "--ssh-timeout", "10s")...), "cp2: no answer within 1s")
		if took := time.Since(started); took > 30*time.Second {
			t.Errorf("took %s", took)
		}
	})
	t.Run("another kubepki there is refused, and so is none", func(t *testing.T) {
		bin := filepath.Join(c.machines["w1"].Home, "bin")
		if err := os.WriteFile(filepath.Join(bin, "old"), []byte("#!/bin/sh\necho welcome\necho '{\"kubepki\":\"node\",\"protocol\":1,\"version\":\"v0.0.1\"}'\ncat\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		unchanged(t, c.renew(append(c.ssh("w1"), "--all", "--yes", "--ssh-command", "old")...), `w1: kubepki "v0.0.1" is there`)
		unchanged(t, c.renew(append(c.ssh("w1"), "--all", "--yes", "--ssh-command", "nowhere")...), "nowhere: not found", "ssh op@")
		unchanged(t, c.renew(append(c.ssh("w1"), "--all", "--yes", "--sudo", "--ssh-timeout", "5s")...), "sudo")
	})
	t.Run("sudo without a password is how root is had, and asks nobody", func(t *testing.T) {
		sudo := filepath.Join(c.machines["w1"].Home, "bin", "sudo")
		if err := os.WriteFile(sudo, []byte("#!/bin/sh\n[ \"$1 $2\" = \"-n --\" ] || exit 9\nshift 2\nexec \"$@\"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(sudo)
		if r := c.renew(append(c.ssh("cp1", "w1"), "kubelet.conf", "--dry-run", "--sudo", "--nodes", "w1")...); r.code == 0 || !strings.Contains(r.err, "cp1") {
			t.Errorf("without sudo on cp1 it ended with %d: %s", r.code, r.err)
		}
		args := append(c.ssh("w1"), "kubelet.conf", "--dry-run", "--sudo", "--root", "cp1="+filepath.Join(c.dir, "cp1"), "--nodes", "w1")
		if r := c.renew(args...); r.code != 0 {
			t.Errorf("ended with %d: %s", r.code, r.err)
		}
		if err := os.WriteFile(sudo, []byte("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		unchanged(t, c.renew(append(args, "--yes")...), "sudo: a password is required", "sudo must ask for no password there")
	})
	t.Run("hosts that are down are left out where that was asked for, and named", func(t *testing.T) {
		args := append(c.ssh("cp1", "w1"), "--ssh", "cp2=127.0.0.1:1", "kubelet.conf", "--yes", "--ssh-skip-down")
		r := c.renew(args...)
		if got := c.changed(before); r.code != 1 || !slices.Equal(got, []string{"cp1", "w1"}) {
			t.Errorf("ended with %d and changed %v", r.code, got)
		}
		wants(t, r.err, "not all nodes could be reached; done: cp1, w1; down: cp2", "--nodes=cp2")
		c.healthy()
	})
}

func TestRenewOverSSHRefusesWrongUse(t *testing.T) {
	c := newSSHCluster(t, haFlags...)
	for name, row := range map[string]struct {
		args []string
		says string
	}{
		"a host with a blank":             {[]string{"--all", "--ssh", "a b"}, `"a b" is no host`},
		"an option for ssh":               {[]string{"--all", "--ssh", "w1=-oProxyCommand=x"}, "is no host"},
		"a port that is none":             {[]string{"--all", "--ssh", "w1=a:99999"}, "is not HOST:PORT"},
		"a name that no node can have":    {[]string{"--all", "--ssh", "W_1=a"}, "is no name of a node"},
		"two nodes of one name":           {[]string{"--all", "--ssh", "w1=a", "--ssh", "w1=b"}, `two nodes are called "w1"`},
		"a node that is not there":        {[]string{"--all", "--ssh", "w1=a", "--nodes", "w2"}, `no node is called "w2"`},
		"a folder without a name":         {[]string{"--all", "--ssh", "w1=a", "--root", filepath.Join(c.dir, "cp1")}, "needs a name"},
		"one node as folder and as host":  {[]string{"--all", "--ssh", "w1=a", "--root", "w1=" + filepath.Join(c.dir, "w1")}, "among those of --root too"},
		"nothing at once":                 {[]string{"--all", "--ssh", "w1=a", "--ssh-parallel", "0"}, "must be more than nothing"},
		"names together with all of them": {[]string{"apiserver", "--all", "--ssh", "w1=a"}, "--all: does not go with names"},
	} {
		t.Run(name, func(t *testing.T) {
			r := c.renew(row.args...)
			if r.code != exitUsage {
				t.Errorf("ended with %d", r.code)
			}
			wants(t, r.err, row.says)
		})
	}
	t.Run("an inventory's bad line is named", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "hosts")
		if err := os.WriteFile(file, []byte("# ours\ncp1=root@a trusted\n\nw1=b worker\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		r := c.renew("--all", "--ssh-hosts", file)
		if r.code != exitUsage {
			t.Errorf("ended with %d", r.code)
		}
		wants(t, r.err, "line 4: want [NAME=][USER@]HOST[:PORT]")
	})
}

// TestRenewOverSSHOfTwentyNodes at once, from an inventory.
func TestRenewOverSSHOfTwentyNodes(t *testing.T) {
	flags := []string{"--control-plane", "cp1=10.0.0.11"}
	for i := range 20 {
		flags = append(flags, "--worker", fmt.Sprintf("w%d=10.0.1.%d", i, i+1))
	}
	c := newSSHCluster(t, flags...)
	inventory := "# one a line\ncp1=op@" + c.machines["cp1"].Addr + "\n"
	for i := range 20 {
		name := fmt.Sprintf("w%d", i)
		inventory += name + "=op@" + c.machines[name].Addr + "\n"
	}
	file := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(file, []byte(inventory), 0o600); err != nil {
		t.Fatal(err)
	}
	before := c.trees()
	r := c.renew(append(c.ssh(), "kubelet.conf", "--yes", "--ssh-hosts", file)...)
	if r.code != 0 {
		t.Fatalf("ended with %d: %s", r.code, r.err)
	}
	if got := c.changed(before); len(got) != 21 {
		t.Errorf("changed %v", got)
	}
	c.healthy()
}

// TestRenewOverSSHEndsWhenToldTo between two nodes: what is begun is ended, and no more
// is begun.
func TestRenewOverSSHEndsWhenToldTo(t *testing.T) {
	c := newSSHCluster(t, haFlags...)
	ctx, stop := context.WithCancel(t.Context())
	c.machines["cp1"].OnLine(func(l sshtest.Line) sshtest.Deed {
		if l.ToHere && bytes.HasPrefix(l.Text, []byte(`{"write"`)) {
			stop()
		}
		return sshtest.Pass
	})
	before := c.trees()
	var out, talk bytes.Buffer
	code := run(ctx, append([]string{"renew", "--all", "--yes"}, c.ssh("cp1", "cp2", "w1")...), streams{in: strings.NewReader(""), out: &out, err: &talk})
	if code != exitFailed {
		t.Errorf("ended with %d", code)
	}
	if got := c.changed(before); slices.Contains(got, "cp2") || slices.Contains(got, "w1") {
		t.Errorf("changed %v", got)
	}
	wants(t, talk.String(), "not begun: cp2, w1")
	c.healthy()
}
