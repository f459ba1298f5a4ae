package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/probe"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

// live verifies a running cluster as the command does.
func live(t *testing.T, c *testpki.Cluster, r *testpki.Running) *report.Verification {
	t.Helper()
	v := verify(t.Context(), cluster{nodes: []nodeRoot{{dir: c.Dir}}}, check.Options{At: testpki.At}, &probe.Options{Dial: r.Dial})
	if v.err != nil {
		t.Fatal(v.err)
	}
	return &v.verification
}

// TestVerifyLiveOfACluster: what is seen is in the table and in the machine's
// output, and no key is.
func TestVerifyLiveOfACluster(t *testing.T) {
	c := testpki.New(t, testpki.HA)
	r := c.Run()
	v := live(t, c, r)
	if !v.Healthy {
		t.Errorf("not healthy: %+v", v.Findings)
	}
	var text, document bytes.Buffer
	if err := v.Text(&text, report.Palette{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ok (live)", "10.0.0.12:2380", "endpoint api.example.test:6443", "TLS 1.3", " let in", "proved live;"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	if err := report.Document(&document, "json", v); err != nil {
		t.Fatal(err)
	}
	var parsed struct{ Observations []report.Observed }
	if err := json.Unmarshal(document.Bytes(), &parsed); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, o := range parsed.Observations {
		if o.Outcome == trust.Answered && len(o.Certificates) > 0 && len(o.ClientAuthorities) > 0 {
			seen++
		}
		for _, call := range o.Calls {
			if o.Kind == trust.ServesAPI && call.User == "" {
				t.Errorf("%s does not say who %s is", o.Component, call.Credential)
			}
		}
	}
	// Etcd's two ports and the apiserver of three nodes, four kubelets, and the
	// endpoint.
	if want := 3*3 + 4 + 1; seen != want {
		t.Errorf("%d servers were seen, want %d", seen, want)
	}
	if strings.Contains(document.String(), "PRIVATE KEY") {
		t.Error("a key was printed")
	}
}

// TestVerifyLiveSaysWhatIsStale with both serials.
func TestVerifyLiveSaysWhatIsStale(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	r := c.Run()
	old, err := trust.ParseCertificates(c.Read("cp1", "pki/apiserver.crt"))
	if err != nil {
		t.Fatal(err)
	}
	c.Reissue("cp1", "apiserver", "ca", nil)
	v := live(t, c, r)
	if v.Healthy || len(v.Findings) == 0 || v.Findings[0].ID != "serving-stale" {
		t.Fatalf("got %+v", v.Findings)
	}
	if serial := strings.ToUpper(old[0].SerialNumber.Text(16)); !strings.Contains(v.Findings[0].Cause, serial) {
		t.Errorf("%q does not name serial %s", v.Findings[0].Cause, serial)
	}
}

// TestServerAddresses: what names a server, and what a file.
func TestServerAddresses(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("host:6443", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for arg, want := range map[string]string{
		"10.0.0.11:6443":            "10.0.0.11:6443",
		"api.example.test:443":      "api.example.test:443",
		"[fd00::11]:2379":           "[fd00::11]:2379",
		"[fe80::1%eth0]:2379":       "[fe80::1%eth0]:2379",
		"https://10.0.0.11:6443/":   "10.0.0.11:6443",
		"host:6443":                 "", // a file
		"fd00::11:2379":             "", // which colon?
		"10.0.0.11":                 "",
		"10.0.0.11:0":               "",
		"10.0.0.11:70000":           "",
		":6443":                     "",
		"-":                         "",
		"dir/file:1":                "",
		"http://10.0.0.11:6443":     "",
		"https://10.0.0.11:6443/ab": "",
	} {
		if got, ok := serverAddress(arg); got != want || ok != (want != "") {
			t.Errorf("%s: %q %v, want %q", arg, got, ok, want)
		}
	}
}
