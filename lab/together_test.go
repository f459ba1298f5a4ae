//go:build linux

package lab_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// kubeadm and kubepki complete each other's folders: what is there stays byte
// for byte, and what the other makes fits.
func TestKubeadmAndInitCompleteEachOther(t *testing.T) {
	config := configOf(t, "ECDSA-P256")
	makers := []struct {
		name string
		make func(root string)
	}{
		{"kubeadm", func(root string) { kubeadmFiles(t, root, config) }},
		{"kubepki", func(root string) { initNode(t, config, root) }},
	}
	for i, first := range makers {
		second := makers[1-i]
		for _, missing := range [][]string{
			{"pki/apiserver.crt", "pki/apiserver.key"},
			{"pki/etcd/peer.crt", "pki/etcd/peer.key", "scheduler.conf"},
			{"pki/front-proxy-client.crt", "pki/front-proxy-client.key", "admin.conf"},
			{"pki/etcd/server.crt", "pki/etcd/server.key", "pki/etcd/healthcheck-client.crt", "pki/etcd/healthcheck-client.key", "kubelet.conf", "super-admin.conf"},
		} {
			t.Run(first.name+" then "+second.name+" for "+missing[0], func(t *testing.T) {
				root := t.TempDir()
				first.make(root)
				missing := missing
				if second.name == "kubepki" {
					// kubeadm takes a folder with sa.key alone for complete.
					missing = append(slices.Clone(missing), "pki/sa.pub")
				}
				kubernetes := filepath.Join(root, "etc/kubernetes")
				for _, file := range missing {
					if err := os.Remove(filepath.Join(kubernetes, file)); err != nil {
						t.Fatal(err)
					}
				}
				before := contents(t, kubernetes)
				second.make(root)
				after := contents(t, kubernetes)
				for file, content := range before {
					if after[file] != content {
						t.Errorf("%s was changed", file)
					}
				}
				for _, file := range missing {
					if after[filepath.Join(kubernetes, file)] == "" {
						t.Errorf("%s was not made", file)
					}
				}
				verify(t, "--root="+root)
			})
		}
	}
}

// contents reads every file below a folder but the manifests, which kubeadm
// writes anew.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"*.conf", "pki/*", "pki/etcd/*"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if info, err := os.Stat(file); err != nil || info.IsDir() {
				continue
			}
			all[file] = string(read(t, file))
		}
	}
	return all
}
