package main

import (
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// TestKubeconfigsLeadToTheFolder has client-go read kubeconfigs from elsewhere.
func TestKubeconfigsLeadToTheFolder(t *testing.T) {
	root, dir := controlPlaneRoot(t, "ECDSA-P256"), t.TempDir()
	t.Chdir(dir)
	here(t, "sa", "token", "ci/robot", "--root", root, "--uid", accountUID, "--write-mount", "out/mount")
	for file, mount := range map[string]string{
		"out/beside.conf":   "out/mount",
		"above.conf":        "out/mount",
		"out/absolute.conf": filepath.Join(dir, "out/mount"),
		"away/conf":         "out/mount",
	} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		here(t, "kubeconfig", "sa", "ci/robot", "--root", root, "--mount", mount, "--file", file)
	}
	t.Chdir("/")
	want, err := os.ReadFile(filepath.Join(dir, "out/mount/token"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"out/beside.conf", "above.conf", "out/absolute.conf", "away/conf"} {
		c, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if c.BearerToken != string(want) || c.BearerTokenFile != filepath.Join(dir, "out/mount/token") {
			t.Errorf("%s: the token is that of %s", file, c.BearerTokenFile)
		}
		if err := rest.LoadTLSFiles(c); err != nil || len(c.CAData) == 0 {
			t.Errorf("%s: the authorities of %s: %v", file, c.CAFile, err)
		}
	}
}
