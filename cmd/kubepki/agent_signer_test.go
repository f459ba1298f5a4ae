package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
)

// The authority's key is not on the node. What the cluster signs is asked for there, the
// rest is signed by the node's own authorities, and what neither signs is refused.
func TestAgentHasCertificatesSignedByTheCluster(t *testing.T) {
	a, root, admin, viewer := signedByAPI(t, "--validity", "20m")
	scheduler := filepath.Join(root, "etc/kubernetes/scheduler.conf")
	pending := filepath.Join(root, "etc/kubernetes/kubepki-pending/etc/kubernetes")
	before := readFile(t, scheduler)
	start := func(as string, more ...string) (said *talk, end func()) {
		args := append([]string{"--listen=", "--signer-kubeconfig", as, "--signer-timeout", "1s"}, more...)
		c, said := startAgent(t, root, append(args, dueAtOnce...)...)
		return said, func() { endAgent(t, c, said) }
	}
	forge := func(f func(*issue.Template)) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.forge = f
	}

	said, end := start(viewer) // who may ask, and not approve
	waitSaid(t, said, "reason=waiting", 5)
	waitSaid(t, said, "msg=renewed", 5)
	waitSaid(t, said, "and by the cluster: ", 2)
	end()
	for _, want := range []string{"id=etcd-server", "no built-in signer signs it", "refuses requests for group system:masters", "needs an approval"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
	if !bytes.Equal(before, readFile(t, scheduler)) || strings.Contains(said.String(), "PRIVATE") {
		t.Error("the kubeconfig was changed though nobody approved, or a key was said")
	}

	forge(func(t *issue.Template) { t.Subject.Organization = []string{"system:masters"} })
	said, end = start(admin)
	waitSaid(t, said, "which are groups", 4)
	end()
	if !bytes.Equal(before, readFile(t, scheduler)) {
		t.Fatal("what is forged was put in place")
	}
	forge(nil)

	said, end = start(viewer)
	waitSaid(t, said, "reason=waiting", 5)
	end()
	a.mu.Lock()
	asked := len(a.requests)
	a.mu.Unlock()
	said, end = start(admin)
	for _, id := range []string{"scheduler.conf", "controller-manager.conf", "admin.conf", "apiserver-kubelet-client"} {
		waitSaid(t, said, "msg=renewed id="+id, 1)
	}
	waitGone(t, filepath.Join(pending, "scheduler.conf.key"), said)
	end()
	// Nobody signs for kubelets here: its key waits on.
	if _, err := os.Stat(filepath.Join(pending, "kubelet.conf.key")); err != nil || !strings.Contains(said.String(), "is approved, and nobody has signed it") {
		t.Errorf("the kubelet's: %v\n%s", err, said)
	}
	if bytes.Equal(before, readFile(t, scheduler)) {
		t.Error("the kubeconfig was not changed")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.requests) != asked {
		t.Errorf("%d requests, and %d before an agent that may approve: keys that wait are not gone on with", len(a.requests), asked)
	}
}

// waitGone waits until a file is not there any more.
func waitGone(t *testing.T, file string, said *talk) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(file); os.IsNotExist(err) {
			return
		}
		if time.Since(began) > 30*time.Second {
			t.Fatalf("%s is there still:\n%s", file, said)
		}
	}
}
