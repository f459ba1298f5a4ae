package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/deploy"
)

var exposure = regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)

// What systemd itself says of the units: that they are right, and how much a process
// under them could do to the machine (0 nothing, 10 all; sshd.service of Debian has 9.6).
func TestUnitsOfTheAgentAreRightAndTight(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		if os.Getenv("CI") != "" || os.Getenv("KUBEPKI_DEPS") != "" {
			t.Fatal(err)
		}
		t.Skip("systemd-analyze is not here: make deps installs it")
	}
	program, err := exec.LookPath("kubepki")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, dropIn string
		most         float64
	}{
		{"kubepki-agent.service", "", 2.2},
		{"kubepki-agent.service", "restart.conf", 2.4},
		{"kubepki-agent-watch.service", "", 1.6},
	} {
		name, most := row.name, row.most
		dir := t.TempDir()
		file := filepath.Join(dir, name)
		put := func(from, to string) {
			unit, err := deploy.Files.ReadFile("agent/" + from)
			if err != nil {
				t.Fatal(err)
			}
			started := bytes.Replace(unit, []byte("=/usr/local/bin/kubepki"), []byte("="+program), 1)
			if bytes.Equal(started, unit) {
				t.Fatalf("%s does not start /usr/local/bin/kubepki", from)
			}
			if err := os.WriteFile(to, started, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		put(name, file)
		if row.dropIn != "" {
			if err := os.Mkdir(file+".d", 0o700); err != nil {
				t.Fatal(err)
			}
			put(row.dropIn, filepath.Join(file+".d", row.dropIn))
			name += " with " + row.dropIn
		}
		if out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", file).CombinedOutput()
		found := exposure.FindSubmatch(out)
		if err != nil || found == nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		if got, err := strconv.ParseFloat(string(found[1]), 64); err != nil || got > most {
			t.Errorf("%s: the exposure is %s, want %g at most\n%s", name, found[1], most, out)
		}
		// What a restart has to see, and nobody else.
		if sees := bytes.Contains(out, []byte("✗ ProcSubset=")) && bytes.Contains(out, []byte("✗ ProtectProc=")); sees != (row.dropIn != "") {
			t.Errorf("%s: sees the machine's processes: %v", name, sees)
		}
	}
}

// capDacReadSearch is CAP_DAC_READ_SEARCH of linux/capability.h.
const capDacReadSearch = 2

// The user and the rights of kubepki-agent-watch.service, and those of anybody.
func TestAgentOfAnotherUserReadsWithOneRightAndSaysWhatItCannotWithout(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can start a process of another user")
	}
	root := newAgentNode(t)
	start := func(caps ...uintptr) (*exec.Cmd, *talk) {
		said := &talk{}
		c := exec.Command("kubepki", "agent", "--watch", "--root", "cp1="+root, "--listen=", "--interval", "1s")
		c.Stderr, c.Env = said, environment()
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: caps}
		if err := c.Start(); err != nil {
			t.Skipf("this user cannot be changed to here: %v", err)
		}
		t.Cleanup(func() { _ = c.Process.Kill() })
		return c, said
	}
	c, said := start(capDacReadSearch)
	waitSaid(t, said, "msg=verified healthy=true links=15 broken=0", 1)
	endAgent(t, c, said)
	if got := said.String(); strings.Contains(got, "unreadable") || strings.Contains(got, "not-seen") {
		t.Errorf("with CAP_DAC_READ_SEARCH:\n%s", got)
	}
	open(t, root)
	c, said = start()
	waitSaid(t, said, "msg=verified", 1)
	endAgent(t, c, said)
	if got := said.String(); strings.Count(got, "unreadable") != 1 {
		t.Errorf("without it, this is said once:\n%s", got)
	}
}

// open lets anybody go to the folders of a node, and no further.
func open(t *testing.T, root string) {
	t.Helper()
	for dir := root; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // of a test
			t.Fatal(err)
		}
	}
	program, err := exec.LookPath("kubepki")
	if err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(program); dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // of a test
			t.Fatal(err)
		}
	}
}

func TestManifestsOfTheAgentGiveTheLeastRights(t *testing.T) {
	objects := readManifests(t, "agent/daemonset.yaml")
	want := []string{"kubepki-agent create leases", "kubepki-agent get,update leases kubepki-agent"}
	if d := cmp.Diff(want, rights(objects)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	pods := 0
	for _, o := range objects {
		d, ok := o.(*appsv1.DaemonSet)
		if !ok {
			continue
		}
		pods++
		watches := d.Name == "kubepki-agent-watch"
		for _, c := range d.Spec.Template.Spec.Containers {
			s := c.SecurityContext
			if !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || s.Privileged != nil || cmp.Diff([]corev1.Capability{"ALL"}, s.Capabilities.Drop) != "" {
				t.Errorf("%s: %+v", d.Name, s)
			}
			for _, m := range c.VolumeMounts {
				if written := !m.ReadOnly; written != (!watches && m.MountPath == "/host/etc/kubernetes") {
					t.Errorf("%s: %s is read-only: %v", d.Name, m.MountPath, m.ReadOnly)
				}
			}
			if watches && (cmp.Diff([]corev1.Capability{"DAC_READ_SEARCH"}, s.Capabilities.Add) != "" || *d.Spec.Template.Spec.AutomountServiceAccountToken) {
				t.Errorf("%s may do more than read", d.Name)
			}
		}
	}
	if pods != 2 {
		t.Errorf("%d DaemonSets", pods)
	}
}
