package main

import (
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/sshtest"
)

const sshd = "/usr/sbin/sshd"

// needSSHD skips where there is no OpenSSH. Where `make deps` has run that is a failure.
func needSSHD(t *testing.T) {
	t.Helper()
	if exists(sshd) {
		return
	}
	if os.Getenv("CI") != "" || os.Getenv("KUBEPKI_DEPS") != "" {
		t.Fatalf("%s is not there: hack/deps.sh installs it", sshd)
	}
	t.Skipf("%s is not there: hack/deps.sh installs it", sshd)
}

// startSSHD starts OpenSSH's server as whoever runs the test, and returns its port.
func startSSHD(t *testing.T, authorized, tmp string) string {
	t.Helper()
	dir := t.TempDir()
	if os.Geteuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // what Debian's unit makes
			t.Fatal(err)
		}
	}
	host := filepath.Join(dir, "host")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	config := strings.Join([]string{"ListenAddress 127.0.0.1", "Port " + port, "HostKey " + host, "AuthorizedKeysFile " + authorized, "PidFile none", "StrictModes no", "UsePAM no",
		"PasswordAuthentication no", "PermitRootLogin prohibit-password", "SetEnv TMPDIR=" + tmp, ""}, "\n")
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.Command(sshd, "-D", "-e", "-f", file)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			conn.Close()
			return port
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// TestRenewOverOpenSSH against the real sshd, with keys of ssh-keygen, a real ssh-agent,
// a configuration of ssh's, and known_hosts as the printed command makes it.
func TestRenewOverOpenSSH(t *testing.T) {
	needSSHD(t)
	c := newSSHCluster(t, "--control-plane", "cp1=10.0.0.11", "--worker", "w1=10.0.0.21")
	home, tmp := os.Getenv("HOME"), t.TempDir()
	ssh := filepath.Join(home, ".ssh")
	if err := os.Mkdir(ssh, 0o700); err != nil {
		t.Fatal(err)
	}
	tool := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		return string(out)
	}
	key := filepath.Join(ssh, "night")
	tool("ssh-keygen", "-q", "-t", "ecdsa", "-N", "words of a passphrase", "-f", key)
	port := startSSHD(t, key+".pub", tmp)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(ssh, "config"), []byte("Host w1\n  HostName 127.0.0.1\n  Port "+port+"\n  User "+me.Username+"\n  IdentityFile ~/.ssh/night\n  IdentitiesOnly yes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"kubelet.conf", "--yes", "--root", "cp1=" + filepath.Join(c.dir, "cp1"), "--ssh", "w1", "--ssh-root", filepath.Join(c.dir, "w1"), "--nodes", "w1"}
	before := c.trees()

	r := c.renew(args...)
	wants(t, r.err, "the key is encrypted, and nobody is here to ask for its passphrase", "ssh-add "+key)

	socket := filepath.Join(t.TempDir(), "agent")
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = agent.Process.Kill()
		_ = agent.Wait()
	})
	t.Setenv("SSH_AUTH_SOCK", socket)
	ask := filepath.Join(t.TempDir(), "ask")
	if err := os.WriteFile(ask, []byte("#!/bin/sh\necho words of a passphrase\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSH_ASKPASS", ask)
	t.Setenv("SSH_ASKPASS_REQUIRE", "force")
	for range 100 {
		if exists(socket) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	tool("ssh-add", key)

	r = c.renew(args...)
	if r.code != exitFailed || len(c.changed(before)) > 0 {
		t.Fatalf("a host that nobody knows: ended with %d, changed %v", r.code, c.changed(before))
	}
	_, command, ok := strings.Cut(r.err, "keep it: ")
	if !ok {
		t.Fatalf("no command to know the host in: %s", r.err)
	}
	tool("sh", "-c", strings.SplitN(command, "\n", 2)[0])
	scanned, err := os.ReadFile(filepath.Join(ssh, "known_hosts"))
	if err != nil || !strings.Contains(string(scanned), "[127.0.0.1]:"+port) {
		t.Fatalf("known_hosts is %q (%v)", scanned, err)
	}

	r = c.renew(args...)
	if r.code != 0 {
		t.Fatalf("ended with %d: %s", r.code, r.err)
	}
	if got := c.changed(before); !slices.Equal(got, []string{"w1"}) {
		t.Errorf("changed %v", got)
	}
	c.healthy()
	if left, _ := filepath.Glob(filepath.Join(tmp, ".kubepki*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}

	// Somebody else answers at the same address.
	other := sshtest.NewKey(t, t.TempDir(), "")
	line := strings.Fields(string(scanned))
	if err := os.WriteFile(filepath.Join(ssh, "known_hosts"), []byte(line[0]+" "+other.Authorized()), 0o600); err != nil {
		t.Fatal(err)
	}
	r = c.renew(args...)
	wants(t, r.err, "ITS HOST KEY IS NOT THE KNOWN ONE")
	_, command, _ = strings.Cut(r.err, "forget the old key: ")
	tool("sh", "-c", strings.SplitN(command, "\n", 2)[0])
	if data, err := os.ReadFile(filepath.Join(ssh, "known_hosts")); err != nil || strings.Contains(string(data), "127.0.0.1") {
		t.Errorf("the old key is known still: %s (%v)", data, err)
	}
}
