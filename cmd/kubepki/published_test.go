package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/report"
)

// published copies the published cluster, with the modes that version control
// does not keep.
func published(t *testing.T) string {
	t.Helper()
	from, to := filepath.FromSlash("../../internal/layout/testdata/published-cluster"), t.TempDir()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func verifyJSON(t *testing.T, wantCode int, args ...string) report.Verification {
	t.Helper()
	var out, talk bytes.Buffer
	if code := run(context.Background(), append([]string{"verify", "-o", "json"}, args...), streams{out: &out, err: &talk}); code != wantCode {
		t.Fatalf("exit code %d, want %d: %s", code, wantCode, talk.String())
	}
	var v report.Verification
	d := json.NewDecoder(&out)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestPublishedCluster: what the README of that cluster says is true of it.
func TestPublishedCluster(t *testing.T) {
	dir := published(t)
	master, worker := "master="+filepath.Join(dir, "master"), "worker="+filepath.Join(dir, "worker")
	v := verifyJSON(t, exitDone, "--at", "2020-09-01T00:00:00Z", "--root", master, "--root", worker)
	if !v.Healthy {
		t.Errorf("it was healthy on the first of September 2020: %+v", v.Findings)
	}
	good := map[int]bool{}
	for _, l := range v.Links {
		for _, h := range l.Halves {
			if h.State == "broken" {
				t.Errorf("link %d %s → %s: the %s half is broken", l.Number, l.Caller, l.Callee, h.Side)
			}
			if h.Side == "client" && h.State == "ok" && strings.HasPrefix(l.Caller, "master/") {
				good[l.Number] = true
			}
			if h.Side == "server" && h.State != "unseen" {
				t.Errorf("link %d: no server's certificate was published, yet its half is %s", l.Number, h.State)
			}
		}
	}
	for _, n := range []int{5, 6, 8} {
		if !good[n] {
			t.Errorf("the client half of link %d of the master is good", n)
		}
	}
	ids := map[string][]string{}
	for _, f := range v.Findings {
		ids[f.ID] = append(ids[f.ID], f.Node+":"+f.Path)
	}
	if len(ids["not-seen"]) == 0 || len(ids["bootstrap-leftover"]) != 1 || ids["bootstrap-leftover"][0] != "worker:/etc/kubernetes/bootstrap-kubelet.conf" {
		t.Errorf("it says what it could not see, and that the bootstrap kubeconfig was left behind: %v", ids)
	}

	expired := verifyJSON(t, exitFindings, "--at", "2026-01-01T00:00:00Z", "--root", filepath.Join(dir, "master"))
	for _, f := range expired.Findings {
		if f.Severity == "error" && f.ID != "cert-expired" {
			t.Errorf("today nothing but the dates is wrong: %+v", f)
		}
	}
	if got := len(expired.Findings); expired.Healthy || got < 3 {
		t.Errorf("three client certificates have expired: %+v", expired.Findings)
	}
}

// verifyAny is verifyJSON for a cluster that may have findings.
func verifyAny(t *testing.T, args []string, code *int) report.Verification {
	t.Helper()
	var out, talk bytes.Buffer
	*code = run(context.Background(), append([]string{"verify", "-o", "json"}, args...), streams{out: &out, err: &talk})
	var v report.Verification
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		t.Fatalf("exit code %d: %v: %s", *code, err, talk.String())
	}
	return v
}

func edit(text, old, with string) string { return strings.ReplaceAll(text, old, with) }

func indexOf(text, part string) int { return max(strings.Index(text, part), 0) }
