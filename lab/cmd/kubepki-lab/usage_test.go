package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWrongUsageIsSaidWithExitCodeTwo(t *testing.T) {
	config := filepath.Join(t.TempDir(), "cluster.yaml")
	if err := os.WriteFile(config, []byte("apiVersion: kubepki.dev/v1alpha1\nkind: Cluster\ncontrolPlane: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rows := map[string]struct {
		args []string
		say  string
	}{
		"an unknown command":                        {[]string{"begin"}, `unknown command "begin"`},
		"two control planes":                        {[]string{"up", "--control-planes", "2"}, "--control-planes 2"},
		"an argument that up does not take":         {[]string{"up", "cluster"}, "takes no arguments"},
		"a configuration with a field that is none": {[]string{"up", "--config", config}, "controlPlane"},
		"a configuration and control planes":        {[]string{"up", "--config", config, "--control-planes", "3"}, "--control-planes"},
		"a number of nodes below nothing":           {[]string{"up", "--nodes", "-1"}, "--nodes -1"},
		"exec without a command":                    {[]string{"exec", "cp1"}, "two dashes"},
		"exec with nothing after the dashes":        {[]string{"exec", "cp1", "--"}, "two dashes"},
		"stop without a name":                       {[]string{"stop"}, "name a component"},
		"a flag that is none":                       {[]string{"status", "--colour"}, "unknown flag"},
		"load for less than no time":                {[]string{"load", "--for", "-1s"}, "--for -1s"},
		"load at no rate":                           {[]string{"load", "--rate", "0"}, "--rate 0"},
		"load as a picture":                         {[]string{"load", "-o", "svg"}, "svg"},
		"logs of two":                               {[]string{"logs", "etcd", "kubelet"}, "name one"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			c := newCommand()
			c.SetArgs(append([]string{"--dir", filepath.Join(t.TempDir(), "lab"), "--programs", noPrograms(t)}, row.args...))
			err := c.ExecuteContext(t.Context())
			if err == nil || !strings.Contains(err.Error(), row.say) {
				t.Fatalf("error %v, want one with %q", err, row.say)
			}
			if !errors.As(err, new(usageError)) {
				t.Errorf("%v: is no wrong usage", err)
			}
		})
	}
}

// noPrograms is a folder of programs that are never started.
func noPrograms(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubeadm"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
