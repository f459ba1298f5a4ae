package main

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/testpki"
)

// age fakes the age of the node roots in DIR: age LEAVES AUTHORITIES FILES DIR [PART...] makes
// leaves, authorities and the files older by times such as 400d, -1h or 0h, in files
// whose path has one of the parts in it alone.
func age(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: age LEAVES AUTHORITIES FILES DIR [PART...]")
	}
	var by [3]time.Duration
	for i := range by {
		text, sign := args[i], time.Duration(1)
		if text[0] == '-' {
			text, sign = text[1:], -1
		}
		d, err := parseDays(text)
		ts.Check(err)
		by[i] = sign * d
	}
	roots, err := filepath.Glob(ts.MkAbs(args[3] + "/*"))
	ts.Check(err)
	ts.Check(testpki.Age(roots, testpki.Ageing{Leaves: by[0], Authorities: by[1], Files: by[2], Only: args[4:]}))
}

// TestRecoverEachShape: whatever the authorities are and however the files are laid out,
// all that is over is made anew in one run, and a second one finds nothing.
func TestRecoverEachShape(t *testing.T) {
	now := testpki.At
	clock = func() time.Time { return now }
	defer func() { clock = time.Now }()
	made := map[string]func(*testing.T) *testpki.Cluster{
		"hardway of openssl": func(t *testing.T) *testpki.Cluster { return testpki.NewHardway(t, testpki.HardwayOpenssl) },
		"hardway of cfssl":   func(t *testing.T) *testpki.Cluster { return testpki.NewHardway(t, testpki.HardwayCfssl) },
	}
	for _, k := range []testpki.Kind{testpki.Single, testpki.Bare, testpki.HA, testpki.Intermediate, testpki.KubeletCA, testpki.Shared, testpki.ExternalEtcd} {
		made[string(k)] = func(t *testing.T) *testpki.Cluster { return testpki.New(t, k) }
	}
	const day = 24 * time.Hour
	for _, over := range []struct {
		name string
		by   testpki.Ageing
		of   []string // nil: of all
	}{
		{"leaves and authorities", testpki.Ageing{Leaves: 4000 * day, Authorities: 4000 * day}, nil},
		{"leaves", testpki.Ageing{Leaves: 400 * day}, []string{"hardway of cfssl", string(testpki.KubeletCA), string(testpki.ExternalEtcd)}},
		{"authorities alone", testpki.Ageing{Authorities: 4000 * day}, []string{"hardway of openssl", string(testpki.Intermediate), string(testpki.HA)}},
	} {
		for shape, build := range made {
			if len(over.of) > 0 && !slices.Contains(over.of, shape) {
				continue
			}
			t.Run(over.name+" of "+shape, func(t *testing.T) {
				c := build(t)
				// Keys that are kept elsewhere are put beside their certificates for this.
				switch shape {
				case string(testpki.Intermediate):
					c.Write("cp1", "pki/root-ca.key", c.Read("", "/authorities/root-ca.key"))
				case string(testpki.ExternalEtcd):
					c.Write("etcd1", "pki/etcd/ca.key", c.Read("", "/authorities/etcd-ca.key"))
				}
				roots, err := filepath.Glob(filepath.Join(c.Dir, "*"))
				if err != nil {
					t.Fatal(err)
				}
				by := over.by
				by.Files = time.Since(now) // what is on the disk was written before the test's now
				if err := testpki.Age(roots, by); err != nil {
					t.Fatal(err)
				}
				if c.Verify(check.Options{At: now}).Healthy() {
					t.Fatal("nothing is over")
				}
				out, talk := recoverIn(t, exitDone, c.Dir, "--yes")
				if !strings.Contains(out, " 0 broken, 0 errors") {
					t.Errorf("not all is proved:\n%s%s", talk, out)
				}
				for _, f := range c.Verify(check.Options{At: now}).Findings {
					if f.Severity == check.Error {
						t.Errorf("left: %s %s %s:%s", f.ID, f.Cause, f.Node, f.Path)
					}
				}
				if out, _ := recoverIn(t, exitDone, c.Dir); !strings.HasPrefix(out, "nothing to recover") {
					t.Errorf("a second run says %s", out)
				}
			})
		}
	}
}

// recoverIn runs recover on a cluster's folder.
func recoverIn(t *testing.T, want int, dir string, more ...string) (out, talk string) {
	t.Helper()
	var o, e bytes.Buffer
	if code := run(context.Background(), append([]string{"recover", "--root", dir}, more...), streams{out: &o, err: &e}); code != want {
		t.Fatalf("exit code %d, want %d:\n%s%s", code, want, e.String(), o.String())
	}
	return o.String(), e.String()
}

// TestRecoverKilled kills recover at moments of a run that certifies authorities again
// and writes three nodes. What the next run finds it completes: one certificate for each
// authority, with the key of before.
func TestRecoverKilled(t *testing.T) {
	const day = 24 * time.Hour
	whole := filepath.Join(t.TempDir(), "whole")
	runKubepki(t, "init", "--out", whole, "--manifests", "--key-algorithm", "Ed25519", "--control-plane-endpoint", "api.example.test",
		"--control-plane", "cp1=10.0.0.11", "--control-plane", "cp2=10.0.0.12", "--worker", "w1=10.0.0.21")
	roots, err := filepath.Glob(filepath.Join(whole, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if err := testpki.Age(roots, testpki.Ageing{Leaves: 4000 * day, Authorities: 4000 * day}); err != nil {
		t.Fatal(err)
	}
	copied := func(name string) string {
		dir := filepath.Join(t.TempDir(), name)
		if out, err := exec.Command("cp", "-a", whole, dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return dir
	}
	first, start := copied("first"), time.Now()
	runKubepki(t, "recover", "--root", first, "--yes")
	took, partial := time.Since(start), 0
	for round := range 6 {
		dir := copied("cluster")
		// The files appear within a few milliseconds, node by node: wait for one of them.
		node := []string{"cp1", "cp2", "w1"}[round%3]
		backups := filepath.Join(dir, node, "etc/kubernetes/kubepki-backup")
		kill(t, func() { waitFor(backups, 20*took); time.Sleep(rand.N(took / 20)) }, "recover", "--root", dir, "--yes")
		if out, err := exec.Command("kubepki", "verify", dir).CombinedOutput(); err != nil && strings.Contains(string(out), "healthy at") {
			partial++
		}
		runKubepki(t, "recover", "--root", dir, "--yes")
		if out := runKubepki(t, "recover", "--root", dir); !bytes.HasPrefix(out, []byte("nothing to recover")) {
			t.Fatalf("round %d: the third run says %s", round, out)
		}
		runKubepki(t, "verify", dir)
		for _, name := range []string{"ca", "etcd/ca", "front-proxy-ca"} {
			at := func(node, ext string) string { return filepath.Join(dir, node, "etc/kubernetes/pki", name+ext) }
			one, other := readAll(t, at("cp1", ".crt")), readAll(t, at("cp2", ".crt"))
			if one != other {
				t.Errorf("round %d: the nodes have two certificates of %s", round, name)
			}
			if readAll(t, at("cp1", ".key")) != readAll(t, filepath.Join(whole, "cp1/etc/kubernetes/pki", name+".key")) {
				t.Errorf("round %d: the key of %s is another", round, name)
			}
		}
	}
	if partial == 0 {
		t.Error("no run was killed before its end: the test proves nothing")
	}
	t.Logf("a run takes %s; %d of 6 runs were killed before their end", took, partial)
}

func readAll(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
