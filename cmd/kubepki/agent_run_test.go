package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newNode makes a control plane's folder and returns its root.
func newAgentNode(t *testing.T, more ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cluster")
	runKubepki(t, append([]string{"init", "--out", dir, "--manifests", "--key-algorithm", "ECDSA-P256", "--control-plane", "cp1=10.0.0.11"}, more...)...)
	return filepath.Join(dir, "cp1")
}

// The interval is so long that only the kernel's word can make it look in time.
func TestAgentSaysWhatGoesWrongAndWhatIsMended(t *testing.T) {
	root := newAgentNode(t)
	crt := filepath.Join(root, "etc/kubernetes/pki/apiserver.crt")
	c, said := startAgent(t, root, "--watch", "--interval", "1h", "--listen=", "--path", filepath.Join(root, "etc/kubernetes/pki/*.crt"))
	waitSaid(t, said, "msg=verified healthy=true links=15 broken=0", 1)
	for _, do := range []struct {
		rename [2]string
		says   string
		times  int
	}{
		{[2]string{crt, crt + ".away"}, "id=file-missing", 1},
		{[2]string{crt + ".away", crt}, `msg="finding gone" id=file-missing`, 1},
		{[2]string{filepath.Join(root, "etc/kubernetes/pki"), filepath.Join(root, "etc/kubernetes/gone")}, "level=ERROR msg=finding id=file-missing path=/etc/kubernetes/pki", 3},
		{[2]string{filepath.Join(root, "etc/kubernetes/gone"), filepath.Join(root, "etc/kubernetes/pki")}, `msg="finding gone" id=file-missing`, 3},
	} {
		if err := os.Rename(do.rename[0], do.rename[1]); err != nil {
			t.Fatal(err)
		}
		waitSaid(t, said, do.says, do.times)
	}
	endAgent(t, c, said)
	if !strings.Contains(said.String(), "msg=stopped") || strings.Contains(said.String(), "PRIVATE") {
		t.Error(said)
	}
}

func TestAgentThatWatchesWritesNothing(t *testing.T) {
	root := newAgentNode(t, "--validity", "20m") // all of it is due at ten percent
	before := treeTimes(t, root)
	c, said := startAgent(t, root, "--watch", "--renew-at", "10", "--interval", "1s", "--listen=")
	waitSaid(t, said, "msg=verified", 1)
	if err := os.Chmod(filepath.Join(root, "etc/kubernetes/pki/ca.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	waitSaid(t, said, "id=key-permissions", 1)
	if err := os.Chmod(filepath.Join(root, "etc/kubernetes/pki/ca.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	endAgent(t, c, said)
	if after := treeTimes(t, root); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// treeTimes lists the names below a folder, with when they were written.
func treeTimes(t *testing.T, root string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		all.WriteString(name + " " + info.ModTime().Format(time.RFC3339Nano) + "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// The authority's key is not on the node: without it nothing of that authority is made
// anew, and with it, from where it is, all.
func TestAgentRenewsWithAKeyFromElsewhere(t *testing.T) {
	root := newAgentNode(t, "--validity", "20m")
	elsewhere := filepath.Join(t.TempDir(), "ca.key")
	if err := os.Rename(filepath.Join(root, "etc/kubernetes/pki/ca.key"), elsewhere); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"--listen="}, dueAtOnce...)
	c, said := startAgent(t, root, args...)
	waitSaid(t, said, "reason=refused", 7)
	waitSaid(t, said, "msg=renewed", 5)
	endAgent(t, c, said)
	if got := strings.Count(said.String(), "msg=renewed"); got != 5 || !strings.Contains(said.String(), "id=etcd-server") {
		t.Errorf("%d were made anew without the key of ca:\n%s", got, said)
	}
	c, said = startAgent(t, root, append(args, "--ca-key", "ca="+elsewhere)...)
	waitSaid(t, said, "msg=renewed", 12)
	endAgent(t, c, said)
	if strings.Contains(said.String(), "reason=refused") {
		t.Error(said)
	}
}
