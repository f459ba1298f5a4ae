package catalog_test

import (
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/catalog"
)

func wantedCluster(change ...func(*catalog.Cluster)) *catalog.Cluster {
	c := &catalog.Cluster{
		Name: "kubernetes", KubernetesVersion: "v1.37.2", CertificatesDir: "/etc/kubernetes/pki", ServiceSubnet: "10.96.0.0/12",
		DNSDomain: "cluster.local", Shape: catalog.Separate, Validity: time.Hour, CAValidity: time.Hour,
		ControlPlanes: []catalog.ControlPlane{
			{Name: "cp1", Address: netip.MustParseAddr("10.0.0.11"), BindPort: 6443},
			{Name: "cp2", Address: netip.MustParseAddr("fd00::12"), BindPort: 7443},
		},
	}
	for _, f := range change {
		f(c)
	}
	return c
}

func intermediate(c *catalog.Cluster) { c.Shape = catalog.Intermediate }
func shared(c *catalog.Cluster)       { c.Shape = catalog.Shared }
func kubelets(c *catalog.Cluster)     { c.KubeletAuthority = true }
func members(c *catalog.Cluster) {
	c.EtcdMembers = []catalog.EtcdMember{{Name: "e1", Address: netip.MustParseAddr("10.0.0.31")}, {Name: "e2", Address: netip.MustParseAddr("10.0.0.32")}}
}
func elsewhere(c *catalog.Cluster) { c.CertificatesDir = "/srv/pki" }
func podSubnet(c *catalog.Cluster) { c.PodSubnet = "10.244.0.0/16" }
func externalEtcd(c *catalog.Cluster) {
	c.ExternalEtcd = &catalog.ExternalEtcd{Endpoints: []string{"https://10.0.0.31:2379", "https://10.0.0.32:2379"},
		CAFile: "/srv/etcd/ca.crt", CertFile: "/srv/etcd/tls/client.crt", KeyFile: "/etc/kubernetes/pki/etcd-client.key"}
}

var variants = map[string][]func(*catalog.Cluster){
	"separate": nil, "intermediate": {intermediate}, "shared": {shared}, "kubelets' authority": {kubelets},
	"intermediate and kubelets'": {intermediate, kubelets}, "external members": {members, intermediate},
	"another folder": {elsewhere, kubelets}, "pod subnet": {podSubnet},
}

func command(t *testing.T, c *catalog.Cluster, component string, node int) map[string]string {
	t.Helper()
	args, err := c.Command(component, &c.ControlPlanes[node])
	if err != nil {
		t.Fatal(err)
	}
	if args[0] != component {
		t.Errorf("the program is %q, want %q", args[0], component)
	}
	byName := func(a, b string) int {
		a, _, _ = strings.Cut(a, "=")
		b, _, _ = strings.Cut(b, "=")
		return strings.Compare(a, b)
	}
	if !slices.IsSortedFunc(args[1:], byName) && len(c.ExtraArgs) == 0 {
		t.Errorf("the flags of %s are not sorted", component)
	}
	flags := map[string]string{}
	for _, a := range args[1:] {
		name, value, ok := strings.Cut(strings.TrimPrefix(a, "--"), "=")
		if _, twice := flags[name]; !ok || twice || !strings.HasPrefix(a, "--") {
			t.Errorf("%s has the flag %q", component, a)
		}
		flags[name] = value
	}
	return flags
}

// TestFlagsNameWhatEntriesMake holds flags and files together: each file that a
// flag names is made for that node.
func TestFlagsNameWhatEntriesMake(t *testing.T) {
	for name, change := range variants {
		c := wantedCluster(change...)
		nodes, err := c.Entries()
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range c.ControlPlanes {
			made := filesOf(nodes[i].Entries)
			for _, component := range append(catalog.Components(), catalog.Kubelet) {
				if component == catalog.Etcd && c.EtcdIsExternal() {
					continue
				}
				count := 0
				flags := command(t, c, component, i)
				for flag, value := range flags {
					if ext := path.Ext(value); ext != ".crt" && ext != ".key" && ext != ".pub" && ext != ".conf" {
						continue
					}
					count++
					if !made[value] {
						t.Errorf("%s: --%s of %s on %s names %s, which is not made", name, flag, component, n.Name, value)
					}
				}
				if count < 2 {
					t.Errorf("%s: %s names only %d files", name, component, count)
				}
				for _, use := range catalog.FlagUses(component) {
					if component != catalog.Kubelet && required(use.Flag) && flags[use.Flag] == "" {
						t.Errorf("%s: %s lacks --%s", name, component, use.Flag)
					}
				}
			}
		}
	}
}

// required leaves out the flags that only some shapes need.
func required(flag string) bool {
	for _, part := range []string{"kubelet-certificate-authority", "cluster-signing", "tls-cert-file", "tls-private-key-file", "client-ca", "requestheader"} {
		if strings.Contains(flag, part) {
			return false
		}
	}
	return !strings.HasSuffix(flag, "crl-file") && flag != "config"
}

func filesOf(entries []catalog.Entry) map[string]bool {
	files := map[string]bool{}
	for _, e := range entries {
		switch e.Kind {
		case catalog.KindKubeconfig:
			files[e.Path] = true
		case catalog.KindSigningKey:
			files[e.Path+".pub"], files[e.Path+".key"] = true, true
		case catalog.KindAnchors:
			files[e.Path+".crt"] = true
		default:
			files[e.Path+".crt"], files[e.Path+".key"] = true, !e.NoKey
		}
	}
	return files
}

func TestFlagsOfEachShape(t *testing.T) {
	for name, c := range map[string]struct {
		change    []func(*catalog.Cluster)
		component string
		node      int
		want      map[string]string // "-": not there
	}{
		"one authority for all clients": {nil, catalog.APIServer, 0, map[string]string{
			"client-ca-file": "/etc/kubernetes/pki/ca.crt", "kubelet-certificate-authority": "-", "secure-port": "6443",
			"etcd-servers": "https://127.0.0.1:2379", "authorization-mode": "Node,RBAC", "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
		}},
		"an IPv6 node": {nil, catalog.APIServer, 1, map[string]string{"advertise-address": "fd00::12", "etcd-servers": "https://[::1]:2379", "secure-port": "7443"}},
		"kubelets with an authority of their own": {[]func(*catalog.Cluster){kubelets}, catalog.APIServer, 0, map[string]string{
			"client-ca-file": "/etc/kubernetes/pki/client-ca.crt", "kubelet-certificate-authority": "/etc/kubernetes/pki/kubelet-ca.crt",
		}},
		"external etcd members": {[]func(*catalog.Cluster){members}, catalog.APIServer, 0, map[string]string{
			"etcd-servers": "https://10.0.0.31:2379,https://10.0.0.32:2379", "etcd-cafile": "/etc/kubernetes/pki/etcd/ca.crt",
		}},
		"somebody else's etcd": {[]func(*catalog.Cluster){externalEtcd}, catalog.APIServer, 0, map[string]string{
			"etcd-servers": "https://10.0.0.31:2379,https://10.0.0.32:2379", "etcd-cafile": "/srv/etcd/ca.crt",
			"etcd-certfile": "/srv/etcd/tls/client.crt", "etcd-keyfile": "/etc/kubernetes/pki/etcd-client.key",
		}},
		"the generic signing pair": {nil, catalog.ControllerManager, 0, map[string]string{
			"cluster-signing-cert-file": "/etc/kubernetes/pki/ca.crt", "cluster-signing-key-file": "/etc/kubernetes/pki/ca.key",
			"root-ca-file": "/etc/kubernetes/pki/ca.crt", "cluster-cidr": "-",
		}},
		"a signing pair per signer": {[]func(*catalog.Cluster){kubelets, intermediate}, catalog.ControllerManager, 0, map[string]string{
			"cluster-signing-cert-file":                       "-",
			"cluster-signing-kubelet-serving-key-file":        "/etc/kubernetes/pki/kubelet-ca.key",
			"cluster-signing-kubelet-client-cert-file":        "/etc/kubernetes/pki/kubelet-ca.crt",
			"cluster-signing-kube-apiserver-client-cert-file": "/etc/kubernetes/pki/ca.crt",
			"cluster-signing-legacy-unknown-key-file":         "/etc/kubernetes/pki/ca.key",
			"root-ca-file": "/etc/kubernetes/pki/root-ca.crt", "client-ca-file": "/etc/kubernetes/pki/client-ca.crt",
		}},
		"no signing where the key is elsewhere": {[]func(*catalog.Cluster){func(c *catalog.Cluster) { c.ExternalCA = true }}, catalog.ControllerManager, 0, map[string]string{
			"cluster-signing-cert-file": "", "cluster-signing-key-file": "",
		}},
		"a pod subnet": {[]func(*catalog.Cluster){podSubnet}, catalog.ControllerManager, 0, map[string]string{
			"allocate-node-cidrs": "true", "cluster-cidr": "10.244.0.0/16", "service-cluster-ip-range": "10.96.0.0/12",
		}},
		"stacked etcd": {nil, catalog.Etcd, 1, map[string]string{
			"name": "cp2", "initial-cluster": "cp1=https://10.0.0.11:2380,cp2=https://[fd00::12]:2380", "initial-cluster-state": "new",
			"listen-client-urls": "https://[::1]:2379,https://[fd00::12]:2379", "peer-client-cert-auth": "true",
		}},
		"a kubelet": {[]func(*catalog.Cluster){kubelets}, catalog.Kubelet, 0, map[string]string{
			"client-ca-file": "/etc/kubernetes/pki/ca.crt", "tls-cert-file": "/var/lib/kubelet/pki/kubelet.crt", "hostname-override": "cp1", "anonymous-auth": "false",
		}},
		"kube-proxy": {[]func(*catalog.Cluster){podSubnet}, catalog.KubeProxy, 0, map[string]string{"kubeconfig": "/etc/kubernetes/kube-proxy.conf", "cluster-cidr": "10.244.0.0/16"}},
	} {
		got := command(t, wantedCluster(c.change...), c.component, c.node)
		for flag, want := range c.want {
			value, ok := got[flag]
			if want == "-" && ok || want != "-" && (!ok || value != want) {
				t.Errorf("%s: --%s is %q (%v), want %q", name, flag, value, ok, want)
			}
		}
	}
}

func TestExtraArguments(t *testing.T) {
	c := wantedCluster(func(c *catalog.Cluster) {
		c.ExtraArgs = map[string][]catalog.Arg{
			catalog.Scheduler: {{Name: "v", Value: "4"}, {Name: "leader-elect", Value: "false"}},
			catalog.ControllerManager: {{Name: "controllers", Value: ",-nodeipam", Merge: "append"},
				{Name: "bind-address", Value: "x", Merge: "prepend"}, {Name: "new", Value: "y", Merge: "append"}},
			catalog.Etcd:      {{Name: "advertise-client-urls", Value: "https://10.9.9.9:2379"}},
			catalog.APIServer: {{Name: "authorization-config", Value: "/a"}},
		}
	})
	got, err := c.Command(catalog.Scheduler, &c.ControlPlanes[0])
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"kube-scheduler", "--authentication-kubeconfig=/etc/kubernetes/scheduler.conf", "--authorization-kubeconfig=/etc/kubernetes/scheduler.conf",
		"--bind-address=127.0.0.1", "--kubeconfig=/etc/kubernetes/scheduler.conf", "--v=4", "--leader-elect=false"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("want -, got +:\n%s", d)
	}
	manager := command(t, c, catalog.ControllerManager, 0)
	if manager["controllers"] != "*,bootstrapsigner,tokencleaner,-nodeipam" || manager["bind-address"] != "x127.0.0.1" {
		t.Errorf("merged to %q and %q", manager["controllers"], manager["bind-address"])
	}
	if value, there := manager["new"]; there {
		t.Errorf("an argument that has nothing to merge with became %q: kubeadm ignores it", value)
	}
	apiserver := command(t, c, catalog.APIServer, 0)
	if apiserver["etcd-servers"] != "https://10.9.9.9:2379" {
		t.Errorf("etcd-servers is %q, want etcd's advertise-client-urls", apiserver["etcd-servers"])
	}
	if _, ok := apiserver["authorization-mode"]; ok {
		t.Error("authorization-mode excludes authorization-config")
	}
}

func TestComponentsThatAreNotThere(t *testing.T) {
	c := wantedCluster(members)
	for component, want := range map[string]string{"etcd": `"cp1" runs no etcd`, "kube-dns": `unknown component "kube-dns": use one of etcd, `} {
		_, err := c.Command(component, &c.ControlPlanes[0])
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := c.NodeCommand("etcd", "w1"); err == nil {
		t.Error("etcd passed as a component of every node")
	}
	args := c.EtcdCommand(&c.EtcdMembers[1])
	if !slices.Contains(args, "--initial-cluster=e1=https://10.0.0.31:2380,e2=https://10.0.0.32:2380") {
		t.Errorf("flags %q lack the initial cluster", args)
	}
}

// manifest has the fields of a Pod that the tests look at.
type manifest struct {
	Metadata struct {
		Name        string            `json:"name"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		HostNetwork bool `json:"hostNetwork"`
		Containers  []struct {
			Image        string   `json:"image"`
			Command      []string `json:"command"`
			VolumeMounts []struct {
				Name, MountPath string
				ReadOnly        bool
			} `json:"volumeMounts"`
			Env          []map[string]any `json:"env"`
			StartupProbe struct{ FailureThreshold int }
		} `json:"containers"`
		Volumes []struct {
			Name     string
			HostPath struct{ Path, Type string }
		} `json:"volumes"`
	} `json:"spec"`
}

func parseManifest(t *testing.T, pod map[string]any, err error) manifest {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	data, err := yaml.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	var m manifest
	if err := yaml.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Spec.Containers) != 1 || !m.Spec.HostNetwork {
		t.Fatalf("not a static pod with one container:\n%s", data)
	}
	return m
}

// TestManifestsMountWhatFlagsName holds manifests and flags together: the
// container sees each file that its flags name, at the same path.
func TestManifestsMountWhatFlagsName(t *testing.T) {
	all := map[string][]func(*catalog.Cluster){"somebody else's etcd": {externalEtcd}}
	for name, change := range variants {
		all[name] = change
	}
	for name, change := range all {
		c := wantedCluster(change...)
		for _, component := range catalog.Components() {
			if component == catalog.Etcd && c.EtcdIsExternal() {
				continue
			}
			data, err := c.Manifest(component, &c.ControlPlanes[0], nil)
			m := parseManifest(t, data, err)
			want, err := c.Command(component, &c.ControlPlanes[0])
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, m.Spec.Containers[0].Command); d != "" {
				t.Errorf("%s: the command of %s differs:\n%s", name, component, d)
			}
			var mounts []string
			for _, v := range m.Spec.Volumes {
				mounts = append(mounts, v.HostPath.Path)
			}
			for _, a := range want[1:] {
				_, value, _ := strings.Cut(a, "=")
				seen := slices.ContainsFunc(mounts, func(p string) bool { return value == p || strings.HasPrefix(value, p+"/") })
				if strings.HasPrefix(value, "/") && !seen {
					t.Errorf("%s: %s does not see %s", name, component, a)
				}
			}
		}
	}
}

func TestManifestDetails(t *testing.T) {
	c := wantedCluster(members, func(c *catalog.Cluster) {
		c.ImageRepository, c.KubernetesVersion = "images.example.test", "v1.36.0+local"
		c.Pods = map[string]catalog.PodExtras{catalog.APIServer: {
			Volumes: []catalog.HostPath{{Name: "audit", HostPath: "/var/log", MountPath: "/log"}},
			Env:     []catalog.EnvVar{{Name: "A", Value: "b"}, {Name: "IP", ValueFrom: map[string]any{"fieldRef": map[string]any{"fieldPath": "status.hostIP"}}}},
		}}
	})
	data, err := c.Manifest(catalog.APIServer, &c.ControlPlanes[1], nil)
	m := parseManifest(t, data, err)
	if got := m.Spec.Containers[0].Image; got != "images.example.test/kube-apiserver:v1.36.0_local" {
		t.Errorf("image %s", got)
	}
	if got := m.Metadata.Annotations["kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint"]; got != "[fd00::12]:7443" {
		t.Errorf("annotation %q", got)
	}
	if m.Spec.Containers[0].VolumeMounts[0].Name != "audit" || m.Spec.Volumes[0].HostPath.Path != "/var/log" {
		t.Errorf("the extra volume is not mounted: %+v", m.Spec)
	}
	env := []map[string]any{{"name": "A", "value": "b"}, {"name": "IP", "valueFrom": map[string]any{"fieldRef": map[string]any{"apiVersion": "v1", "fieldPath": "status.hostIP"}}}}
	if d := cmp.Diff(env, m.Spec.Containers[0].Env); d != "" {
		t.Errorf("want -, got +:\n%s", d)
	}
	if got := m.Spec.Containers[0].StartupProbe.FailureThreshold; got != 24 {
		t.Errorf("startup may fail %d times, want 24 within kubeadm's four minutes", got)
	}
	etcd := c.EtcdManifest(&c.EtcdMembers[0])
	m = parseManifest(t, etcd, nil)
	if m.Metadata.Name != "etcd" || m.Spec.Containers[0].Image != "images.example.test/etcd:3.7.0-0" {
		t.Errorf("etcd's manifest: %+v", m.Metadata)
	}
	if d := cmp.Diff(etcd, c.EtcdManifest(&c.EtcdMembers[0])); d != "" {
		t.Errorf("two manifests of the same member differ:\n%s", d)
	}
}
