package layout_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// flagged is what a test expects of one flag: its value, and where it is set
// (path#field), "" where no file sets it.
type flagged struct{ component, flag, value, at string }

func TestReadersOfDistributions(t *testing.T) {
	const unit = `[Service]
EnvironmentFile=-/etc/systemd/system/k3s.service.env
ExecStart=/usr/local/bin/k3s \
    server \
	'--tls-san' \
	'k3s.example.com' \
	--kube-apiserver-arg=anonymous-auth=true
`
	for name, tc := range map[string]struct {
		files   map[string]string
		layout  string
		node    string
		want    []flagged
		without []string // components
		unseen  string   // a part of what is not seen
	}{
		"k3s by its defaults, with SQLite": {layout: "k3s",
			files: map[string]string{"/var/lib/rancher/k3s/server/tls/service.key": "", "/var/lib/rancher/k3s/server/tls/etcd/server-client.crt": "",
				"/var/lib/rancher/k3s/server/db/state.db": "", "/var/lib/rancher/k3s/server/cred/controller.kubeconfig": ""},
			want: []flagged{
				{catalog.APIServer, "secure-port", "6444", ""}, {catalog.APIServer, "client-ca-file", "/var/lib/rancher/k3s/server/tls/client-ca.crt", ""},
				{catalog.APIServer, "service-account-signing-key-file", "/var/lib/rancher/k3s/server/tls/service.key", ""},
			}, without: []string{catalog.Etcd, catalog.Kubelet, catalog.Scheduler}, unseen: "encrypted with the server token"},
		"k3s in another folder, by config.yaml and a drop-in": {layout: "k3s", node: "edge-1",
			files: map[string]string{"/srv/k3s/server/tls/service.key": "", "/srv/k3s/server/tls/service.current.key": "",
				"/etc/rancher/k3s/config.yaml":                "data-dir: /srv/k3s\nnode-name: Edge-1\nnode-ip: 10.1.1.1,fd00::1\ntls-san: one.example.com\ncluster-domain: k3s.local\ntoken: secret\n",
				"/etc/rancher/k3s/config.yaml.d/50-more.yaml": "tls-san+:\n- two.example.com\nkube-apiserver-arg:\n- authorization-mode=AlwaysAllow\n"},
			want: []flagged{
				{catalog.APIServer, "tls-cert-file", "/srv/k3s/server/tls/serving-kube-apiserver.crt", ""},
				{catalog.APIServer, "advertise-address", "10.1.1.1", "/etc/rancher/k3s/config.yaml#node-ip"},
				{catalog.APIServer, "tls-san", "two.example.com", "/etc/rancher/k3s/config.yaml.d/50-more.yaml#tls-san+"},
				{catalog.APIServer, "service-account-issuer", "https://kubernetes.default.svc.k3s.local", "/etc/rancher/k3s/config.yaml#cluster-domain"},
				{catalog.APIServer, "authorization-mode", "AlwaysAllow", "/etc/rancher/k3s/config.yaml.d/50-more.yaml#--authorization-mode"},
				{catalog.APIServer, "service-account-signing-key-file", "/srv/k3s/server/tls/service.current.key", ""},
			}},
		"k3s by the command line and environment of its unit": {layout: "k3s", node: "edge-2",
			files: map[string]string{"/var/lib/rancher/k3s/server/tls/service.key": "", "/etc/systemd/system/k3s.service": unit,
				"/etc/systemd/system/k3s.service.env": "K3S_TOKEN=secret\nK3S_NODE_NAME=edge-2\n"},
			want: []flagged{
				{catalog.APIServer, "anonymous-auth", "true", "/etc/systemd/system/k3s.service#--anonymous-auth"},
				{catalog.APIServer, "tls-san", "k3s.example.com", "/etc/systemd/system/k3s.service#--tls-san"},
			}},
		"k3s with a database that needs a password": {layout: "k3s",
			files: map[string]string{"/var/lib/rancher/k3s/server/tls/service.key": "", "/var/lib/rancher/k3s/server/tls/etcd/client.crt": "",
				"/etc/rancher/k3s/config.yaml": "datastore-endpoint: mysql://user:hunter2@tcp(db:3306)/k3s\n"},
			without: []string{catalog.Etcd, catalog.Etcdctl}},
		"k3s with an etcd elsewhere": {layout: "k3s",
			files: map[string]string{"/var/lib/rancher/k3s/server/tls/service.key": "", "/etc/rancher/k3s/config.yaml": "datastore-endpoint: https://10.2.2.2:2379\ndatastore-cafile: /etc/etcd/ca.crt\n"},
			want: []flagged{
				{catalog.APIServer, "etcd-servers", "https://10.2.2.2:2379", "/etc/rancher/k3s/config.yaml#datastore-endpoint"},
				{catalog.APIServer, "etcd-cafile", "/etc/etcd/ca.crt", "/etc/rancher/k3s/config.yaml#datastore-cafile"},
			}, without: []string{catalog.Etcd}},
		"an etcd node of k3s runs no API server": {layout: "k3s",
			files: map[string]string{"/var/lib/rancher/k3s/server/tls/service.key": "", "/var/lib/rancher/k3s/server/tls/etcd/server-client.crt": "",
				"/etc/rancher/k3s/config.yaml": "disable-apiserver: true\ndisable-controller-manager: true\ndisable-scheduler: true\n", "/var/lib/rancher/k3s/server/cred/scheduler.kubeconfig": ""},
			want:    []flagged{{catalog.Etcd, "trusted-ca-file", "/var/lib/rancher/k3s/server/tls/etcd/server-ca.crt", ""}},
			without: []string{catalog.APIServer, catalog.Scheduler}},
		"RKE2 by a static pod, whose flags are all": {layout: "rke2",
			files: map[string]string{"/var/lib/rancher/rke2/server/tls/service.key": "", "/etc/rancher/rke2/config.yaml": "tls-san: [rke2.example.com]\nkube-apiserver-arg: [anonymous-auth=false]\n",
				"/var/lib/rancher/rke2/agent/pod-manifests/kube-apiserver.yaml": "kind: Pod\nspec:\n  containers:\n  - command: [kube-apiserver]\n    args: [--secure-port=6443, --anonymous-auth=true]\n"},
			want: []flagged{
				{catalog.APIServer, "anonymous-auth", "true", "/var/lib/rancher/rke2/agent/pod-manifests/kube-apiserver.yaml#--anonymous-auth"},
				{catalog.APIServer, "client-ca-file", "", ""},
				{catalog.APIServer, "tls-san", "rke2.example.com", "/etc/rancher/rke2/config.yaml#tls-san"},
			}},
		"k0s in another folder, by its unit and k0s.yaml": {layout: "k0s",
			files: map[string]string{"/srv/k0s/pki/ca.key": "", "/srv/k0s/pki/server.key": "",
				"/etc/systemd/system/k0scontroller.service": "[Service]\nExecStart=/usr/local/bin/k0s controller --data-dir=/srv/k0s --config=/etc/k0s.yaml\n",
				"/etc/k0s.yaml": "spec:\n  api:\n    address: 10.3.3.3\n    externalAddress: k0s.example.com\n    extraArgs:\n      anonymous-auth: \"true\"\n  storage:\n    type: kine\n"},
			want: []flagged{
				{catalog.APIServer, "tls-cert-file", "/srv/k0s/pki/server.crt", ""}, {catalog.APIServer, "advertise-address", "10.3.3.3", "/etc/k0s.yaml#spec.api.address"},
				{catalog.APIServer, "tls-san", "k0s.example.com", "/etc/k0s.yaml#spec.api.sans"}, {catalog.APIServer, "anonymous-auth", "true", "/etc/k0s.yaml#spec.api.extraArgs.anonymous-auth"},
			}, without: []string{catalog.Etcd}},
		"MicroK8s in a copy without the link to the revision": {layout: "microk8s",
			files: map[string]string{"/var/snap/microk8s/900/args/kubelet": "", "/var/snap/microk8s/9072/args/kube-apiserver": "# a comment\n--client-ca-file=${SNAP_DATA}/certs/ca.crt\n--token-auth-file $SNAP_COMMON/tokens\n",
				"/var/snap/microk8s/9072/args/kubelet": "--hostname-override=m9\n"}, node: "m9",
			want: []flagged{
				{catalog.APIServer, "client-ca-file", "/var/snap/microk8s/9072/certs/ca.crt", "/var/snap/microk8s/9072/args/kube-apiserver#--client-ca-file"},
				{catalog.APIServer, "token-auth-file", "/var/snap/microk8s/common/tokens", "/var/snap/microk8s/9072/args/kube-apiserver#--token-auth-file"},
			}, unseen: "kube-scheduler"},
		"a worker of MicroK8s goes by no file of a server": {layout: "microk8s",
			files:   map[string]string{"/var/snap/microk8s/current/args/kube-apiserver": "--client-ca-file=/x\n", "/var/snap/microk8s/current/args/kubelet": "", "/var/snap/microk8s/current/var/lock/clustered.lock": ""},
			without: []string{catalog.APIServer, catalog.Admin}},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range tc.files {
				at := filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			n, _, err := layout.Read(root, layout.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if n.Layout != tc.layout || n.NodeName != tc.node {
				t.Errorf("read a %s node named %q, want %s named %q", n.Layout, n.NodeName, tc.layout, tc.node)
			}
			for _, w := range tc.want {
				checkFlag(t, &n, w)
			}
			for _, c := range n.Components {
				if slices.Contains(tc.without, c.Name) {
					t.Errorf("%s is there", c.Name)
				}
			}
			if !slices.ContainsFunc(n.NotSeen, func(s trust.NotSeen) bool { return strings.Contains(s.Place.Path+" "+s.Reason, tc.unseen) }) && tc.unseen != "" {
				t.Errorf("nothing says that %q is not seen: %v", tc.unseen, n.NotSeen)
			}
			if text := dump(n); strings.Contains(text, "secret") || strings.Contains(text, "hunter2") {
				t.Error("a secret is in what was read")
			}
		})
	}
}

func checkFlag(t *testing.T, n *trust.Node, w flagged) {
	t.Helper()
	i := slices.IndexFunc(n.Components, func(c trust.Component) bool { return c.Name == w.component })
	if i < 0 {
		t.Errorf("%s is not there", w.component)
		return
	}
	c := &n.Components[i]
	value, _ := c.Flag(w.flag)
	at := c.Setting(w.flag)
	if value == "" {
		at = trust.Place{}
	}
	if value != w.value || at.String() != w.at {
		t.Errorf("--%s of %s is %q, set by %q; want %q by %q", w.flag, w.component, value, at, w.value, w.at)
	}
}

// dump is all that a program could print of a node.
func dump(n trust.Node) string {
	text, err := json.Marshal(n)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
