package layout_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// published copies a node of the published cluster, private files as 0600: the
// version control keeps no modes.
func published(t *testing.T, node string) string {
	t.Helper()
	from, to := filepath.Join("testdata", "published-cluster", node), t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(to, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if strings.HasSuffix(p, ".crt") {
			return os.Chmod(p, 0o644)
		}
		return os.Chmod(p, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func TestReadOfThePublishedMaster(t *testing.T) {
	n, keys, err := layout.Read(published(t, "master"), layout.Options{Name: "master"})
	if err != nil {
		t.Fatal(err)
	}
	if n.NodeName != "vm-4-3-centos" || len(keys) != 3 {
		t.Errorf("node name %q, %d keys", n.NodeName, len(keys))
	}
	var servers, present []string
	for _, k := range n.Kubeconfigs {
		servers = append(servers, k.Place.Path+" "+string(k.State)+" "+k.Server)
	}
	want := []string{
		"/etc/kubernetes/controller-manager.conf present https://10.0.4.3:6443",
		"/etc/kubernetes/kubelet.conf present https://10.0.4.3:6443",
		"/etc/kubernetes/scheduler.conf present https://10.0.4.3:6443",
	}
	if diff := cmp.Diff(want, servers); diff != "" {
		t.Error(diff)
	}
	for _, m := range n.Materials {
		switch m.State {
		case trust.Present:
			if m.Place.Field == "" {
				present = append(present, m.Place.Path)
			}
		case trust.NotGiven:
		default:
			t.Errorf("%s is %s: %s", m.Place, m.State, m.Reason)
		}
	}
	if diff := cmp.Diff([]string{"/etc/kubernetes/pki/ca.crt"}, present); diff != "" {
		t.Error(diff)
	}
	var folders []string
	for _, s := range n.NotSeen {
		folders = append(folders, s.Place.Path)
	}
	if diff := cmp.Diff([]string{"/etc/kubernetes/pki", "/etc/kubernetes/pki/etcd"}, folders); diff != "" {
		t.Errorf("not seen, once per folder: %s", diff)
	}
	i := slices.IndexFunc(n.Components, func(c trust.Component) bool { return c.Name == "kube-apiserver" })
	if i < 0 || n.Components[i].Source.Path != "/etc/kubernetes/manifests/kube-apiserver.yaml" {
		t.Fatalf("no apiserver among %d components", len(n.Components))
	}
	if got, _ := n.Components[i].Flag("etcd-cafile"); got != "/etc/kubernetes/pki/etcd/ca.crt" {
		t.Errorf("etcd-cafile is %q: the comment behind it must not be part of it", got)
	}
}

func TestReadOfThePublishedWorker(t *testing.T) {
	n, keys, err := layout.Read(published(t, "worker"), layout.Options{Name: "worker"})
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) != 0 || len(n.Kubeconfigs) != 2 || !n.Kubeconfigs[0].HasToken || n.Kubeconfigs[1].HasToken {
		t.Errorf("%d keys, kubeconfigs %+v", len(keys), n.Kubeconfigs)
	}
	at := trust.Place{Node: "worker", Path: "/var/lib/kubelet/pki/kubelet-client-current.pem"}
	if n.Kubeconfigs[1].Certificate != at || n.Kubeconfigs[1].Key != at || states(n)[at.Path+"#"] != trust.NotGiven {
		t.Errorf("kubelet.conf: %+v, %s", n.Kubeconfigs[1], states(n)[at.Path+"#"])
	}
}
