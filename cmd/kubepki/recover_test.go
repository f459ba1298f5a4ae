package main

import (
	"bytes"
	"context"
	"path/filepath"
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
	}{
		{"leaves", testpki.Ageing{Leaves: 400 * day}},
		{"leaves and authorities", testpki.Ageing{Leaves: 4000 * day, Authorities: 4000 * day}},
		{"authorities alone", testpki.Ageing{Authorities: 4000 * day}},
	} {
		for shape, build := range made {
			t.Run(over.name+" of "+shape, func(t *testing.T) {
				c := build(t)
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
