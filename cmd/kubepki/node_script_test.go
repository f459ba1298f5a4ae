package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kubepki/kubepki/internal/apitest"
)

const scriptToken = "abcdef.0123456789abcdef"

// joinserver starts an API server that answers requests as told until the
// script ends: joinserver FOLDER [issue|approve|wait|deny|fail]. FOLDER gets its
// bootstrap kubeconfig, token and authority; PIN and SERVER are set.
func joinserver(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: joinserver FOLDER [ANSWER]")
	}
	s, err := apitest.Start(scriptToken)
	ts.Check(err)
	ts.Defer(s.Close)
	if len(args) > 1 {
		s.Answer(apitest.Answer(args[1]))
	}
	dir := ts.MkAbs(args[0])
	ts.Check(writeBootstrapFiles(dir, s))
	block, _ := pem.Decode(s.CA)
	ts.Setenv("PIN", pinOf(block.Bytes))
	ts.Setenv("SERVER", strings.TrimPrefix(s.URL, "https://"))
}

func writeBootstrapFiles(dir string, s *apitest.Server) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, data := range map[string][]byte{"token": []byte(s.Token + "\n"), "ca.crt": s.CA} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"kubernetes": {Server: s.URL, CertificateAuthorityData: s.CA}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": {Token: s.Token}},
		Contexts:       map[string]*clientcmdapi.Context{"c": {Cluster: "kubernetes", AuthInfo: "u"}},
		CurrentContext: "c",
	}, filepath.Join(dir, "bootstrap.conf"))
}

func pinOf(der []byte) string {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// TestNodeJoinKilled kills the program at random moments of joining. What it
// leaves is never a kubelet.conf without its certificate, and the next run
// completes with the same request.
func TestNodeJoinKilled(t *testing.T) {
	s, err := apitest.Start(scriptToken)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	root := func() string {
		dir := t.TempDir()
		if err := writeBootstrapFiles(filepath.Join(dir, "etc/kubernetes"), s); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	args := func(dir string) []string {
		return []string{"node", "join", "--root", dir, "--node-name", "w1", "--bootstrap-kubeconfig", "/etc/kubernetes/bootstrap.conf"}
	}
	took, killed := time.Hour, 0
	for range 3 { // the first may be slow, and what is slow gives delays that nothing is killed after
		s.Delete()
		dir, start := root(), time.Now()
		runKubepki(t, args(dir)...)
		took = min(took, time.Since(start))
	}
	const rounds = 20
	for round := range rounds {
		s.Delete()
		dir := root()
		delay := took/4 + took*time.Duration(round)/rounds
		if kill(t, func() { time.Sleep(delay) }, args(dir)...) {
			killed++
		}
		current := filepath.Join(dir, "var/lib/kubelet/pki/kubelet-client-current.pem")
		if _, err := os.Lstat(filepath.Join(dir, "etc/kubernetes/kubelet.conf")); err == nil {
			if _, err := os.Readlink(current); err != nil {
				t.Errorf("killed after %s: a kubelet.conf without a certificate: %v", delay, err)
			}
		}
		runKubepki(t, args(dir)...)
		if n := len(s.Requests()); n != 1 {
			t.Errorf("killed after %s: %d requests", delay, n)
		}
		if names, err := filepath.Glob(filepath.Join(dir, "var/lib/kubelet/pki/*")); err != nil || len(names) != 2 {
			t.Errorf("killed after %s: there are %v", delay, names)
		}
	}
	if killed < rounds/4 {
		t.Errorf("only %d of %d runs were killed", killed, rounds)
	}
}

// TestAgentEndsAtASignal as systemd stops it.
func TestAgentEndsAtASignal(t *testing.T) {
	s, err := apitest.Start(scriptToken)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	dir := t.TempDir()
	if err := writeBootstrapFiles(filepath.Join(dir, "etc/kubernetes"), s); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	c := exec.Command("kubepki", "agent", "--root", dir, "--node-name", "w1", "--bootstrap-kubeconfig", "/etc/kubernetes/bootstrap.conf", "--log-format", "json")
	c.Stderr, c.Env = &log, environment()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(filepath.Join(dir, "etc/kubernetes/kubelet.conf"), 20*time.Second)
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil || !strings.Contains(log.String(), `"msg":"stopped"`) || strings.Contains(log.String(), "0123456789abcdef") {
		t.Errorf("%v\n%s", err, &log)
	}
	if _, err := os.Stat(filepath.Join(dir, "etc/kubernetes/kubelet.conf")); err != nil {
		t.Error(err)
	}
}
