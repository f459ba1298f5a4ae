package layout_test

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

func states(n trust.Node) map[string]trust.State {
	got := map[string]trust.State{}
	for _, m := range n.Materials {
		got[m.Place.Path+"#"+m.Place.Field] = m.State
	}
	for _, k := range n.Kubeconfigs {
		got[k.Place.Path] = k.State
	}
	return got
}

// controlPlane is the root of a node as kubeadm leaves it, without manifests.
func controlPlane(t testing.TB) string {
	t.Helper()
	root, p := t.TempDir(), ecPair(t)
	pki := []string{"ca", "apiserver", "apiserver-kubelet-client", "front-proxy-ca", "front-proxy-client", "apiserver-etcd-client", "etcd/ca", "etcd/server", "etcd/peer", "etcd/healthcheck-client"}
	for _, name := range pki {
		put(t, root, "etc/kubernetes/pki/"+name+".crt", p.certificate, 0o644)
		put(t, root, "etc/kubernetes/pki/"+name+".key", p.sec1, 0o600)
	}
	put(t, root, "etc/kubernetes/pki/sa.pub", p.public, 0o644)
	put(t, root, "etc/kubernetes/pki/sa.key", p.sec1, 0o600)
	for _, name := range []string{"admin", "super-admin", "controller-manager", "scheduler"} {
		put(t, root, "etc/kubernetes/"+name+".conf", []byte(kubeconfig(t, p)), 0o600)
	}
	put(t, root, "etc/kubernetes/kubelet.conf", []byte(strings.NewReplacer(
		"client-certificate-data: ", "client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem #",
		"client-key-data: ", "client-key: /var/lib/kubelet/pki/kubelet-client-current.pem #").Replace(kubeconfig(t, p))), 0o600)
	put(t, root, "var/lib/kubelet/pki/kubelet-client-2026-11-23.pem", slices.Concat(p.certificate, p.sec1), 0o600)
	if err := os.Symlink("/var/lib/kubelet/pki/kubelet-client-2026-11-23.pem", filepath.Join(root, "var/lib/kubelet/pki/kubelet-client-current.pem")); err != nil {
		t.Fatal(err)
	}
	put(t, root, "var/lib/kubelet/config.yaml", []byte("kind: KubeletConfiguration\nauthentication: {x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}\n"), 0o644)
	put(t, root, "var/lib/kubelet/kubeadm-flags.env", []byte(`KUBELET_KUBEADM_ARGS="--hostname-override=n1 --container-runtime-endpoint=unix:///a"`+"\n"), 0o644)
	return root
}

func TestReadOfAWholeControlPlane(t *testing.T) {
	n, keys, err := layout.Read(controlPlane(t), layout.Options{Name: "cp1"})
	if err != nil {
		t.Fatal(err)
	}
	if n.Name != "cp1" || n.Layout != layout.LayoutKubeadm || n.Live || n.NodeName != "n1" || len(n.NotSeen) != 0 {
		t.Errorf("%q, %s, live %v, node name %q, not seen %v", n.Name, n.Layout, n.Live, n.NodeName, n.NotSeen)
	}
	for p, state := range states(n) {
		if state != trust.Present {
			t.Errorf("%s is %s", p, state)
		}
	}
	// 11 pairs, of which sa has no certificate, the kubelet's, and 4 kubeconfigs with 3 fields and one with 1.
	if len(n.Materials) != 22+1+13 || len(n.Kubeconfigs) != 5 || len(keys) != 11+1+4 {
		t.Errorf("%d materials, %d kubeconfigs, %d keys", len(n.Materials), len(n.Kubeconfigs), len(keys))
	}
	at := trust.Place{Node: "cp1", Path: "/var/lib/kubelet/pki/kubelet-client-current.pem"}
	i := slices.IndexFunc(n.Materials, func(m *trust.Material) bool { return m.Place == at })
	if i < 0 || n.Materials[i].Role != trust.RoleCombined || n.Materials[i].Target != "/var/lib/kubelet/pki/kubelet-client-2026-11-23.pem" || keys[at] == nil {
		t.Errorf("the kubelet's certificate: %+v", n.Materials[max(i, 0)])
	}
	var names []string
	for _, c := range n.Components {
		names = append(names, c.Name)
		if c.Name == "kubelet" {
			if got, _ := c.Flag("hostname-override"); got != "n1" || c.Source.Path != "/var/lib/kubelet/config.yaml" {
				t.Errorf("kubelet: %+v", c)
			}
		}
	}
	slices.Sort(names)
	want := []string{"admin", "etcd", "etcdctl", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "super-admin"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("components: %s", diff)
	}
}

func TestReadNotesTheModesOfPrivateFilesAndTheirFolders(t *testing.T) {
	root := controlPlane(t)
	os.Chmod(filepath.Join(root, "etc/kubernetes/pki/sa.key"), 0o644)
	os.Chmod(filepath.Join(root, "etc/kubernetes/pki/etcd"), 0o770)
	n, _, err := layout.Read(root, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]trust.File{}
	for _, f := range n.Files {
		if _, twice := got[f.Place.Path]; twice {
			t.Errorf("%s is there twice", f.Place.Path)
		}
		got[f.Place.Path] = f
	}
	uid := os.Geteuid()
	for _, want := range []trust.File{
		{Place: trust.Place{Path: "/etc/kubernetes/pki/sa.key"}, Mode: 0o644, UID: uid, Private: true},
		{Place: trust.Place{Path: "/etc/kubernetes/pki/ca.crt"}, Mode: 0o644, UID: uid},
		{Place: trust.Place{Path: "/etc/kubernetes/admin.conf"}, Mode: 0o600, UID: uid, Private: true},
		{Place: trust.Place{Path: "/etc/kubernetes/pki/etcd"}, Mode: 0o770, UID: uid, Private: true, IsDir: true},
		{Place: trust.Place{Path: "/var/lib/kubelet/pki/kubelet-client-current.pem"}, Mode: 0o600, UID: uid, Private: true},
		{Place: trust.Place{Path: "/var/lib/kubelet/pki"}, Mode: 0o755, UID: uid, Private: true, IsDir: true},
	} {
		if diff := cmp.Diff(want, got[want.Place.Path]); diff != "" {
			t.Error(diff)
		}
	}
}

func TestReadTellsMissingFromNotGiven(t *testing.T) {
	for name, c := range map[string]struct {
		remove  []string
		want    map[string]trust.State
		notSeen []string // folders
	}{
		"one key of many is missing": {
			[]string{"etc/kubernetes/pki/apiserver.key"},
			map[string]trust.State{"/etc/kubernetes/pki/apiserver.key#": trust.Missing}, nil,
		},
		"a kubeconfig of many is missing": {
			[]string{"etc/kubernetes/scheduler.conf"},
			map[string]trust.State{"/etc/kubernetes/scheduler.conf": trust.Missing}, nil,
		},
		"a public bundle is missing beside keys": {
			[]string{"etc/kubernetes/pki/front-proxy-ca.crt"},
			map[string]trust.State{"/etc/kubernetes/pki/front-proxy-ca.crt#": trust.Missing}, nil,
		},
		"a whole folder is not given": {
			[]string{"etc/kubernetes/pki/etcd"},
			map[string]trust.State{"/etc/kubernetes/pki/etcd/ca.crt#": trust.NotGiven}, []string{"/etc/kubernetes/pki/etcd"},
		},
		"the kubelet's folder is not given": {
			[]string{"var"},
			map[string]trust.State{"/var/lib/kubelet/pki/kubelet-client-current.pem#": trust.NotGiven}, []string{"/var/lib/kubelet/pki"},
		},
		"the kubelet's link dangles": {
			[]string{"var/lib/kubelet/pki/kubelet-client-2026-11-23.pem"},
			map[string]trust.State{"/var/lib/kubelet/pki/kubelet-client-current.pem#": trust.Missing}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := controlPlane(t)
			for _, r := range c.remove {
				if err := os.RemoveAll(filepath.Join(root, r)); err != nil {
					t.Fatal(err)
				}
			}
			n, _, err := layout.Read(root, layout.Options{})
			if err != nil {
				t.Fatal(err)
			}
			got := states(n)
			maps.DeleteFunc(got, func(_ string, s trust.State) bool { return s == trust.Present })
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			var folders []string
			for _, s := range n.NotSeen {
				folders = append(folders, s.Place.Path)
			}
			if diff := cmp.Diff(c.notSeen, folders, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("not seen: %s", diff)
			}
		})
	}
}

func TestReadSaysWhatIsWrongWithAFile(t *testing.T) {
	root := controlPlane(t)
	key := "etc/kubernetes/pki/apiserver.key"
	full := filepath.Join(root, key)
	for name, c := range map[string]struct {
		put    func() error
		state  trust.State
		reason string
	}{
		"a folder":        {func() error { return os.Mkdir(full, 0o700) }, trust.Unreadable, "is a folder"},
		"a link loop":     {func() error { return os.Symlink("apiserver.key", full) }, trust.Unreadable, "loop"},
		"a dangling link": {func() error { return os.Symlink("/gone", full) }, trust.Missing, "leads to /gone"},
		"junk":            {func() error { return os.WriteFile(full, []byte("junk"), 0o600) }, trust.Malformed, "no PEM block"},
		"100 MB": {func() error {
			return errors.Join(os.WriteFile(full, nil, 0o600), os.Truncate(full, 100<<20))
		}, trust.Unreadable, "larger than 1 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			os.RemoveAll(full)
			if err := c.put(); err != nil {
				t.Fatal(err)
			}
			n, keys, err := layout.Read(root, layout.Options{})
			if err != nil {
				t.Fatal(err)
			}
			at := trust.Place{Path: "/" + key}
			i := slices.IndexFunc(n.Materials, func(m *trust.Material) bool { return m.Place == at })
			if i < 0 || n.Materials[i].State != c.state || !strings.Contains(n.Materials[i].Reason, c.reason) || keys[at] != nil {
				t.Errorf("%+v", n.Materials[max(i, 0)])
			}
		})
	}
}

func TestReadTakesFlagsFromManifests(t *testing.T) {
	root, p := t.TempDir(), ecPair(t)
	put(t, root, "etc/kubernetes/manifests/etcd.yaml", []byte(podWith("etcd", "command: [etcd, --name=node-7, --cert-file=/srv/etcd.pem, --key-file=/srv/etcd.pem, --trusted-ca-file=/srv/ca.crt]")), 0o600)
	put(t, root, "etc/kubernetes/manifests/etcd.old", []byte(podWith("etcd", "command: [etcd, --name=old]")), 0o600)
	put(t, root, "etc/kubernetes/manifests/.hidden.yaml", []byte("junk: ["), 0o600)
	put(t, root, "etc/kubernetes/manifests/coredns.yaml", []byte(podWith("coredns", "command: [coredns]")), 0o600)
	put(t, root, "etc/kubernetes/manifests/broken.yaml", []byte("kind: ["), 0o600)
	put(t, root, "srv/etcd.pem", slices.Concat(p.certificate, p.sec1), 0o600)
	put(t, root, "srv/ca.crt", p.certificate, 0o644)
	n, keys, err := layout.Read(root, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if n.NodeName != "node-7" || len(n.Components) != 1 {
		t.Errorf("node name %q, components %+v", n.NodeName, n.Components)
	}
	want := map[string]trust.State{"/srv/etcd.pem#": trust.Present, "/srv/ca.crt#": trust.Present}
	if diff := cmp.Diff(want, states(n)); diff != "" {
		t.Error(diff)
	}
	if n.Materials[1].Role != trust.RoleCombined || keys[trust.Place{Path: "/srv/etcd.pem"}] == nil {
		t.Errorf("%+v", n.Materials[1])
	}
	var reasons []string
	for _, s := range n.NotSeen {
		reasons = append(reasons, s.Place.Path+": "+s.Reason)
	}
	if len(reasons) != 2 || !strings.Contains(reasons[0], "broken.yaml: the manifest was not understood: is not YAML") ||
		!strings.Contains(reasons[1], "etcd.old: a second manifest for etcd") {
		t.Errorf("not seen: %q", reasons)
	}
}

// TestManifestsThatAreRefused: a component's own manifest that the kubelet refuses
// keeps it from running, unless another file runs it.
func TestManifestsThatAreRefused(t *testing.T) {
	const folder = "etc/kubernetes/manifests/"
	for name, c := range map[string]struct {
		files map[string]string
		stops []string
	}{
		"the component's own is not YAML":       {map[string]string{"kube-apiserver.yaml": "kind: ["}, []string{catalog.APIServer}},
		"the component's own is empty":          {map[string]string{"etcd.yaml": ""}, []string{catalog.Etcd}},
		"a copy under another name is not YAML": {map[string]string{"kube-apiserver.old.yaml": "kind: ["}, []string{""}},
		"another file runs the component":       {map[string]string{"etcd.yaml": "kind: [", "member.yaml": podWith("etcd", "command: [etcd, --name=a]")}, []string{""}},
		"all are well":                          {map[string]string{"etcd.yaml": podWith("etcd", "command: [etcd, --name=a]")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range c.files {
				put(t, root, folder+file, []byte(text), 0o600)
			}
			n, _, err := layout.Read(root, layout.Options{})
			if err != nil {
				t.Fatal(err)
			}
			var stops []string
			for _, s := range n.NotSeen {
				stops = append(stops, s.Stops)
			}
			if !slices.Equal(stops, c.stops) {
				t.Errorf("stops %q, want %q: %+v", stops, c.stops, n.NotSeen)
			}
		})
	}
}

func TestReadOfTheServiceLayout(t *testing.T) {
	root, p := t.TempDir(), rsaPair(t)
	put(t, root, "ca.crt", p.certificate, 0o644)
	for _, name := range []string{"client", "server"} {
		put(t, root, name+"/"+name+".crt", p.certificate, 0o644)
		put(t, root, name+"/"+name+".key", p.pkcs1, 0o600)
	}
	n, keys, err := layout.Read(root, layout.Options{Name: "svc"})
	if err != nil {
		t.Fatal(err)
	}
	if n.Layout != layout.LayoutService || len(n.Materials) != 5 || len(keys) != 2 || len(n.NotSeen) != 0 || len(n.Components) != 2 {
		t.Errorf("%s, %d materials, %d keys, not seen %v, %d components", n.Layout, len(n.Materials), len(keys), n.NotSeen, len(n.Components))
	}
	os.Remove(filepath.Join(root, "server/server.key"))
	n, _, err = layout.Read(root, layout.Options{})
	if got := states(n)["/server/server.key#"]; err != nil || got != trust.Missing {
		t.Errorf("server.key is %s: %v", got, err)
	}
}

func TestReadOfWhatIsNoNode(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "file", nil, 0o600)
	put(t, dir, "other/ca.crt", nil, 0o600)
	if _, _, err := layout.Read(filepath.Join(dir, "absent"), layout.Options{}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "absent") {
		t.Errorf("absent: %v", err)
	}
	if _, _, err := layout.Read(filepath.Join(dir, "file"), layout.Options{}); err == nil || !strings.Contains(err.Error(), "is not a folder") {
		t.Errorf("a file: %v", err)
	}
	var unknown *layout.UnknownError
	if _, _, err := layout.Read(filepath.Join(dir, "other"), layout.Options{}); !errors.As(err, &unknown) || !strings.Contains(err.Error(), "looked for") {
		t.Errorf("another layout: %v", err)
	}
}

func BenchmarkReadControlPlane(b *testing.B) {
	root := controlPlane(b)
	for b.Loop() {
		if _, _, err := layout.Read(root, layout.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func TestReadSaysWhatIsWrongWithAKubeconfig(t *testing.T) {
	root := controlPlane(t)
	os.Remove(filepath.Join(root, "etc/kubernetes/admin.conf"))
	os.Mkdir(filepath.Join(root, "etc/kubernetes/admin.conf"), 0o700)
	put(t, root, "etc/kubernetes/scheduler.conf", []byte("current-context: x\n"), 0o600)
	n, _, err := layout.Read(root, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, k := range n.Kubeconfigs {
		got[filepath.Base(k.Place.Path)] = string(k.State) + " " + k.Field + " " + k.Reason
	}
	want := map[string]string{
		"admin.conf": "unreadable  is a folder", "super-admin.conf": "present  ", "controller-manager.conf": "present  ", "kubelet.conf": "present  ",
		"scheduler.conf": `malformed current-context current-context: there is no context "x"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestReadSaysWhichConfigurationIsNotThereOrRefused(t *testing.T) {
	root := t.TempDir()
	put(t, root, "etc/kubernetes/manifests/etcd.yaml", []byte(podWith("etcd", "command: [etcd, --config-file=/etc/etcd.yaml]")), 0o600)
	put(t, root, "var/lib/kubelet/config.yaml", []byte("authentication: [x]\n"), 0o600)
	n, _, err := layout.Read(root, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range n.NotSeen {
		got[s.Place.Path] = s.Reason
	}
	if !strings.Contains(got["/etc"], "etcd.yaml: named by the node's configuration") || len(got) != 2 {
		t.Errorf("%q", got)
	}
	i := slices.IndexFunc(n.Components, func(c trust.Component) bool { return c.Name == "kubelet" })
	want := []trust.Conflict{{Place: trust.Place{Path: "/var/lib/kubelet/config.yaml", Field: "authentication"}, Reason: "the kubelet refuses this file: authentication: is not a mapping", Fix: "mend /var/lib/kubelet/config.yaml"}}
	if diff := cmp.Diff(want, n.Components[i].Conflicts[:1]); diff != "" {
		t.Error(diff)
	}
}

func TestNodeRoots(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"w1", "cp1", "authorities"} {
		put(t, dir, name+"/etc/kubernetes/kubelet.conf", nil, 0o600)
	}
	put(t, dir, "notes/readme", nil, 0o600)
	put(t, dir, "file", nil, 0o600)
	got, err := layout.NodeRoots(dir, "authorities")
	if diff := cmp.Diff([]string{"cp1", "w1"}, got); diff != "" || err != nil {
		t.Errorf("%v: %s", err, diff)
	}
	if _, err := layout.NodeRoots(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	if layout.IsRoot(dir) || layout.IsRoot(filepath.Join(dir, "absent")) {
		t.Error("a folder of roots is no root")
	}
}
