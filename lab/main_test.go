//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/apart"
)

// longest are the tests that take a minute and more, the longest first. They begin first
// when tests run beside each other.
var longest = []string{
	"TestControlPlaneRunsOnTheFilesOfInit", "TestComponentsTakeUpFilesAsTheMatrixSays", "TestManyNodesJoin", "TestLoad",
	"TestAPIServersAskAnExternalSigner", "TestExplainNamesTheLinkOfRealErrors", "TestRestartOfStaticPods",
}

// programs is the folder of the programs under test and of the real components.
var programs string

func TestMain(m *testing.M) {
	if code, ran := apart.Main(longest...); ran {
		os.Exit(code)
	}
	os.Exit(lab.Main(func() int {
		var err error
		if programs, err = findPrograms(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}))
}

// findPrograms looks in KUBEPKI_BUILD, else in the repository's .build.
func findPrograms() (string, error) {
	dir := os.Getenv("KUBEPKI_BUILD")
	if dir == "" {
		dir = filepath.Join("..", ".build")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for _, name := range []string{"kubepki", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubeadm", "kubelet", "kubectl", "pods"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("%w\nbuild the programs first: KUBEPKI_BUILD=%s lab/build.sh", err, dir)
		}
	}
	return dir, nil
}

// output is what a program wrote.
type output struct{ stdout, stderr string }

// try runs a program of the build folder and returns what it wrote and how it
// ended.
func try(t testing.TB, name string, args ...string) (output, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	path := name
	if !filepath.IsAbs(name) {
		path = filepath.Join(programs, name)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	return output{stdout.String(), stderr.String()}, err
}

// run is try for programs that must succeed.
func run(t testing.TB, name string, args ...string) output {
	t.Helper()
	out, err := try(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out.stdout, out.stderr)
	}
	return out
}

// write writes a file of a test.
func write(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// kubeadm runs kubeadm with root as its "/". The configuration is put there as
// /kubeadm.yaml while it runs.
func kubeadm(t testing.TB, root, config string, args ...string) output {
	t.Helper()
	file := write(t, filepath.Join(root, "kubeadm.yaml"), config)
	out := run(t, "kubeadm", append([]string{"--rootfs=" + root, "--config=/kubeadm.yaml"}, args...)...)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	return out
}

// kubeadmNode makes everything that kubeadm makes for a first control plane.
func kubeadmNode(t testing.TB, config string) string {
	t.Helper()
	root := t.TempDir()
	kubeadmFiles(t, root, config)
	return root
}

// kubeadmFiles is kubeadmNode for a folder that is there.
func kubeadmFiles(t testing.TB, root, config string) {
	t.Helper()
	for _, phase := range [][]string{{"certs", "all"}, {"kubeconfig", "all"}, {"control-plane", "all"}} {
		kubeadm(t, root, config, append([]string{"init", "phase"}, phase...)...)
	}
	if !strings.Contains(config, "external:") {
		kubeadm(t, root, config, "init", "phase", "etcd", "local")
	}
}
