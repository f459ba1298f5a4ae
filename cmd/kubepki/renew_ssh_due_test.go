package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestRenewOverSSHPlansAsItDoesHere: what is due, what a configuration wants otherwise,
// and another kind of key.
func TestRenewOverSSHPlansAsItDoesHere(t *testing.T) {
	c := newSSHCluster(t, haFlags...)
	all := c.ssh("w1", "cp1", "cp2")
	same := func(t *testing.T, before map[string]map[string]string) {
		t.Helper()
		if got := c.changed(before); len(got) > 0 {
			t.Errorf("changed %v", got)
		}
	}
	t.Run("where nothing is due nothing is renewed, which is said", func(t *testing.T) {
		before := c.trees()
		r := c.renew(append(all, "--due", "--yes")...)
		if r.code != 0 || r.out != "" {
			t.Errorf("ended with %d: %s%s", r.code, r.out, r.err)
		}
		wants(t, r.err, "nothing is due")
		same(t, before)
	})
	t.Run("a dry run of what ends soon is a finding, with the reason, on every node", func(t *testing.T) {
		before := c.trees()
		r := c.renew(append(all, "--due", "--expiring", "400d", "--dry-run")...)
		if r.code != exitFindings {
			t.Errorf("ended with %d: %s", r.code, r.err)
		}
		wants(t, r.out, "cp1/apiserver renewed (dry run)", "w1/kubelet.conf renewed (dry run)")
		same(t, before)
	})
	t.Run("what is gone on one node is due there alone", func(t *testing.T) {
		if err := os.Remove(filepath.Join(c.dir, "cp2", "etc/kubernetes/scheduler.conf")); err != nil {
			t.Fatal(err)
		}
		r := c.renew(append(all, "--due", "--yes", "-o", "name")...)
		if r.code != 0 || r.out != "cp2/scheduler.conf\n" {
			t.Errorf("ended with %d: %s%s", r.code, r.out, r.err)
		}
		c.healthy()
	})
	t.Run("names that a configuration adds are due where they are missing, and on the nodes that were chosen alone", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "kubeadm.yaml")
		text := "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\ncontrolPlaneEndpoint: api.example.test:6443\nencryptionAlgorithm: ECDSA-P256\napiServer:\n  certSANs: [new.example.test]\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := c.renew(append(all, "--due", "--config", file, "--nodes", "cp2", "--yes", "-o", "json")...)
		var d renewDocument
		if err := json.Unmarshal([]byte(r.out), &d); err != nil || r.code != 0 {
			t.Fatalf("ended with %d: %v: %s", r.code, err, r.err)
		}
		if len(d.Items) != 1 || d.Items[0].ID != "cp2/apiserver" || !slices.Contains(d.Items[0].Names, "new.example.test") {
			t.Errorf("items %+v", d.Items)
		}
		c.healthy()
	})
	t.Run("another kind of key is made where the file is, and kept with --reuse-key", func(t *testing.T) {
		for _, row := range []struct{ flag, says string }{{"--algorithm=RSA-2048", "new RSA-2048"}, {"--reuse-key", "kept"}, {"--dry-run", "new RSA-2048"}} {
			r := c.renew(append(all, "w1/kubelet.conf", "--yes", row.flag)...)
			if r.code != 0 {
				t.Fatalf("%s ended with %d: %s", row.flag, r.code, r.err)
			}
			wants(t, r.err, row.says)
		}
		c.healthy()
	})
	t.Run("what is done on a node alone is refused, and changes nothing", func(t *testing.T) {
		before := c.trees()
		for flag, says := range map[string]string{"--users": "homes are looked at on the node alone", "--kubeconfigs=/x": "homes are looked at on the node alone", "--csr-only": "does not go with --ssh"} {
			r := c.renew(append(all, "--all", "--yes", flag)...)
			if r.code != exitUsage {
				t.Errorf("%s ended with %d", flag, r.code)
			}
			wants(t, r.err, says)
		}
		same(t, before)
	})
}
