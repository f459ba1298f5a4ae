package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/testpki"
)

// verifyAsNobody runs kubepki verify as a user who owns nothing.
func verifyAsNobody(t *testing.T, root string) report.Verification {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may run something as another user")
	}
	for dir := root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"kubepki", "verify", "--root", root, "-o", "json", "--at", testpki.At.Format("2006-01-02")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &talk, "/"
	_ = cmd.Run() // 3, for what it may not read is an error
	var v report.Verification
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		t.Fatalf("%v: %s", err, talk.String())
	}
	return v
}

// TestOrdinaryUser: on a whole node whose files root alone may read there is one
// finding, which says so, whichever folders are closed too.
func TestOrdinaryUser(t *testing.T) {
	kubeadm := func(t *testing.T) string { return testpki.New(t, testpki.Single).Path("cp1", "/") }
	hardway := func(node string) func(t *testing.T) string {
		return func(t *testing.T) string { return testpki.NewHardway(t, testpki.HardwayCfssl).Path(node, "/") }
	}
	for name, row := range map[string]struct {
		make   func(t *testing.T) string
		closed []string // folders; files are closed all
		gone   []string
	}{
		"kubeadm, closed files":                                         {make: kubeadm},
		"kubeadm, closed manifests":                                     {make: kubeadm, closed: []string{"etc/kubernetes/manifests"}},
		"kubeadm, closed manifests of another certificates folder":      {make: kubeadm, closed: []string{"etc/kubernetes/manifests"}, gone: []string{"etc/kubernetes/pki"}},
		"kubeadm, closed keys":                                          {make: kubeadm, closed: []string{"etc/kubernetes/pki"}},
		"kubeadm, closed altogether":                                    {make: kubeadm, closed: []string{"etc/kubernetes"}},
		"units, closed files":                                           {make: hardway("controller-0")},
		"units, closed folders":                                         {make: hardway("controller-0"), closed: []string{"var/lib/kubernetes", "etc/etcd", "root"}},
		"units, closed units":                                           {make: hardway("controller-0"), closed: []string{"etc/systemd/system"}},
		"a worker of units, with a closed configuration of the kubelet": {make: hardway("worker-0"), closed: []string{"var/lib/kubelet"}},
	} {
		t.Run(name, func(t *testing.T) {
			root := row.make(t)
			err := filepath.WalkDir(root, func(at string, d fs.DirEntry, err error) error {
				switch {
				case err != nil:
					return err
				case d.IsDir():
					return os.Chmod(at, 0o755)
				case strings.HasSuffix(at, ".service"):
					return os.Chmod(at, 0o644)
				}
				return os.Chmod(at, 0o600)
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, folder := range row.gone {
				_ = os.RemoveAll(filepath.Join(root, folder))
			}
			for _, folder := range row.closed {
				if err := os.Chmod(filepath.Join(root, folder), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			v := verifyAsNobody(t, root)
			if len(v.Findings) != 1 || v.Findings[0].ID != "file-unreadable" || !strings.Contains(v.Findings[0].Cause, "needs to read") || !strings.Contains(v.Findings[0].Cause, "run with sudo") {
				t.Errorf("findings: %+v", v.Findings)
			}
		})
	}
}
