//go:build linux

package lab_test

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// orphanEnv names the node's root for the program that is killed.
const orphanEnv = "KUBEPKI_LAB_TEST_ROOT"

// Killed as no program can catch it, a program of the lab leaves nothing that
// runs. The proof is etcd's lock on its database, which falls with it.
func TestNothingOutlivesTheProgram(t *testing.T) {
	if root := os.Getenv(orphanEnv); root != "" {
		waitToBeKilled(t, root)
		return
	}
	root := filepath.Join(initCluster(t, 1, "--key-algorithm=ECDSA-P256"), "cp1")
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=2m")
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "KUBEPKI_LAB_INSIDE=") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	// What it cannot clean up any more goes with this test's folders.
	cmd.Env = append(cmd.Env, orphanEnv+"="+root, "KUBEPKI_BUILD="+programs, "TMPDIR="+t.TempDir())
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && lines.Text() != "etcd runs" {
		t.Log(lines.Text())
	}
	database := filepath.Join(root, "var/lib/etcd/member/snap/db")
	if err := lock(database); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("etcd does not hold its database: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed: there is an error
	eventually(t, "etcd's lock falls", func(context.Context) error { return lock(database) })
}

// waitToBeKilled starts etcd in namespaces within the test's namespaces.
func waitToBeKilled(t *testing.T, root string) {
	node := addNode(t, newNetwork(t), "cp1", root, "10.99.0.11/24")
	ready(t, start(t, node, "etcd", "--unsafe-no-fsync"))
	if _, err := os.Stdout.WriteString("etcd runs\n"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute) // the end comes before
	t.Error("was not killed")
}

// lock takes and frees the lock that etcd holds while it runs.
func lock(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
