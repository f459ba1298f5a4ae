//go:build linux

package lab_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/lab"
)

func TestManifestsThatCannotBeStartedAreRefused(t *testing.T) {
	const container = "  - name: etcd\n    command: [etcd, --name=cp1]\n"
	const probe = "    startupProbe: {httpGet: {host: 127.0.0.1, path: /readyz, port: 2381, scheme: HTTP}}\n"
	head := "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n"
	for _, test := range []struct{ name, manifest, want string }{
		{"no YAML", "{", "yaml"},
		{"an unknown field", head + container + probe + "  colour: blue\n", "colour"},
		{"two containers", head + container + probe + container + probe, "2 containers"},
		{"another program", head + strings.Replace(container, "[etcd", "[sh", 1) + probe, "does not start etcd"},
		{"no probe", head + container, "neither a readiness nor a startup probe"},
		{"a probe of an unknown port", head + container + strings.Replace(probe, "2381", "probe-port", 1), "none of its ports"},
		{"a probe of an unknown scheme", head + container + strings.Replace(probe, "HTTP}", "FTP}", 1), "probe scheme"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, lab.ManifestsDir)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "etcd.yaml"), test.manifest)
			if _, err := lab.ReadManifest(root, "etcd"); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v; want %q", err, test.want)
			}
		})
	}
	if _, err := lab.ReadManifest(t.TempDir(), "etcd"); err == nil {
		t.Error("a manifest that is not there was read")
	}
}
