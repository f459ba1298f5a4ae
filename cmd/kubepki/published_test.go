package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
	if got, want := said(v), []string{
		"info file-missing master:/etc/kubernetes/admin.conf",
		"info not-seen master:/etc/kubernetes/manifests", // the scheduler's was not shown
		"info not-seen master:/etc/kubernetes/pki", "info not-seen master:/etc/kubernetes/pki/etcd",
		"info not-seen worker:/etc/kubernetes/pki", "info not-seen worker:/var/lib/kubelet/pki",
		"warning bootstrap-leftover worker:/etc/kubernetes/bootstrap-kubelet.conf",
	}; !slices.Equal(got, want) {
		t.Errorf("it says what it could not see, each once, and that the bootstrap kubeconfig was left behind:\nwant %s\ngot  %s", strings.Join(want, "\n     "), strings.Join(got, "\n     "))
	}

	// The last second of the first certificate, and the one after.
	if v := verifyJSON(t, exitDone, "--at", "2021-08-20T02:30:07Z", "--root", master); !v.Healthy {
		t.Errorf("its certificates end at that second: %v", said(v))
	}
	expired := verifyJSON(t, exitFindings, "--at", "2026-01-01T00:00:00Z", "--root", master, "--root", worker)
	var errors []string
	for _, f := range expired.Findings {
		if f.Severity == "error" {
			errors = append(errors, fmt.Sprintf("%s %s %v", f.ID, f.Path, f.Links))
		}
	}
	if want := []string{
		"cert-expired /etc/kubernetes/controller-manager.conf [5]", "cert-expired /etc/kubernetes/kubelet.conf [8]", "cert-expired /etc/kubernetes/scheduler.conf [6]",
	}; !slices.Equal(errors, want) {
		t.Errorf("today nothing but the dates is wrong: want %v, got %v", want, errors)
	}
	if renewed := said(verifyJSON(t, exitFindings, "--at", "2031-01-01T00:00:00Z", "--root", master)); !slices.Contains(renewed, "error cert-expired master:/etc/kubernetes/pki/ca.crt") {
		t.Errorf("the authority ends in 2030: %v", renewed)
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

// TestPublishedClusterBroken: one fault more in the published cluster is that one
// finding more.
func TestPublishedClusterBroken(t *testing.T) {
	for name, r := range map[string]struct{ file, old, new, want string }{
		"the scheduler's context dangles":                {"scheduler.conf", "current-context: ", "current-context: x", "error kubeconfig-broken master:/etc/kubernetes/scheduler.conf"},
		"any name may be the front proxy":                {"manifests/kube-apiserver.yaml", "--requestheader-allowed-names=front-proxy-client", "--requestheader-allowed-names=", "warning requestheader-any-name master:/etc/kubernetes/manifests/kube-apiserver.yaml"},
		"the apiserver lets everybody do everything":     {"manifests/kube-apiserver.yaml", "--authorization-mode=Node,RBAC", "--authorization-mode=AlwaysAllow", "error authorization-open master:/etc/kubernetes/manifests/kube-apiserver.yaml"},
		"etcd is asked without TLS, beyond its own host": {"manifests/kube-apiserver.yaml", "--etcd-servers=https://127.0.0.1", "--etcd-servers=http://10.0.4.3", "error plain-http master:/etc/kubernetes/manifests/kube-apiserver.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(published(t), "master")
			file := filepath.Join(dir, "etc/kubernetes", r.file)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(text, []byte(r.old)) {
				t.Fatalf("%s does not hold %q", r.file, r.old)
			}
			if err := os.WriteFile(file, bytes.Replace(text, []byte(r.old), []byte(r.new), 1), 0o600); err != nil {
				t.Fatal(err)
			}
			code := exitFindings
			if strings.HasPrefix(r.want, "warning") {
				code = exitDone
			}
			var weighty []string
			for _, s := range said(verifyJSON(t, code, "--at", "2020-09-01T00:00:00Z", "--root", "master="+dir)) {
				if !strings.HasPrefix(s, "info ") {
					weighty = append(weighty, s)
				}
			}
			if !slices.Equal(weighty, []string{r.want}) {
				t.Errorf("want %s, got %v", r.want, weighty)
			}
		})
	}
}

// said are the findings in short, sorted.
func said(v report.Verification) []string {
	var out []string
	for _, f := range v.Findings {
		out = append(out, string(f.Severity)+" "+f.ID+" "+f.Node+":"+f.Path)
	}
	slices.Sort(out)
	return out
}
