package layout_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// apiserverNode is the root of a node whose kube-apiserver has some flags.
func apiserverNode(t *testing.T, flags ...string) string {
	t.Helper()
	root, p := t.TempDir(), ecPair(t)
	put(t, root, "etc/kubernetes/manifests/kube-apiserver.yaml", []byte(podWith("kube-apiserver", "command: [kube-apiserver, "+strings.Join(flags, ", ")+"]")), 0o600)
	put(t, root, "etc/kubernetes/admin.conf", []byte(kubeconfig(t, p)), 0o600)
	return root
}

// told is what is said of a node beside its materials: conflicts and what was
// not seen, by their places.
func told(n trust.Node) map[string]string {
	got := map[string]string{}
	for _, c := range n.Components {
		for _, x := range c.Conflicts {
			got["conflict "+x.Place.String()] = x.Reason
		}
	}
	for _, s := range n.NotSeen {
		got["not seen "+s.Place.String()] = s.Reason
	}
	return got
}

func TestConfigurationThatIsNotKnownIsSaidOnce(t *testing.T) {
	const file = "/etc/kubernetes/a.yaml"
	for name, c := range map[string]struct {
		flag, text string
		want       map[string]string
	}{
		"a newer version": {"authentication-config", "apiVersion: apiserver.config.k8s.io/v2\nkind: AuthenticationConfiguration\nanonymous: {enabled: true}\n",
			map[string]string{"not seen " + file: "apiserver.config.k8s.io/v2, a version of AuthenticationConfiguration that is not known here: what it sets is not judged"}},
		"a field that is new, and one of another case": {"authentication-config", "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: [{issuer: {url: https://a.test, audiences: [x], tls: {}}, Issuer: {}}]\n",
			map[string]string{"not seen " + file: "fields of AuthenticationConfiguration that are not known here, and not judged: jwt[0].Issuer, jwt[0].issuer.tls"}},
		"the group of another file": {"authorization-config", "apiVersion: apiserver.k8s.io/v1\nkind: AuthorizationConfiguration\n",
			map[string]string{"conflict " + file + "#apiVersion": "kube-apiserver refuses this file: apiVersion: is not of apiserver.config.k8s.io"}},
		"an empty file": {"authorization-config", "",
			map[string]string{"conflict " + file + "#kind": "kube-apiserver refuses this file: kind: is not AuthorizationConfiguration"}},
		"a field of another type": {"egress-selector-config-file", "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections: {}\n",
			map[string]string{"conflict " + file + "#egressSelections": "kube-apiserver refuses this file: egressSelections: is not a list"}},
		"the file of a plugin that is not there": {"admission-control-config-file", "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins: [{name: ImagePolicyWebhook, path: /srv/gone.yaml}]\n",
			map[string]string{"not seen /srv": "gone.yaml: named by the node's configuration, and not in what was given"}},
		"the old form of one plugin": {"admission-control-config-file", "imagePolicy: {kubeConfigFile: /srv/hook.conf}\n",
			map[string]string{"not seen /srv": "hook.conf: named by the node's configuration, and not in what was given"}},
	} {
		t.Run(name, func(t *testing.T) {
			root := apiserverNode(t, "--"+c.flag+"="+file)
			put(t, root, file, []byte(c.text), 0o600)
			n, _, err := layout.Read(root, layout.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, told(n)); diff != "" {
				t.Error(diff)
			}
			i := slices.IndexFunc(n.Components, func(c trust.Component) bool { return c.Name == "kube-apiserver" })
			if _, set := n.Components[i].Flag("anonymous-auth"); set {
				t.Error("what is not known sets a flag")
			}
		})
	}
}

// Static pods may see a file elsewhere than where the node has it.
func TestFilesAreWhereTheNodeHasThem(t *testing.T) {
	root, p := t.TempDir(), ecPair(t)
	put(t, root, "etc/kubernetes/manifests/kube-apiserver.yaml", []byte(`kind: Pod
spec:
  containers:
  - command: [kube-apiserver, --oidc-ca-file=/trust/oidc/ca.crt, "--tls-sni-cert-key=/conf/a.crt,/conf/a.key:a.test", --authorization-config=/conf/authz.yaml, --client-ca-file=/one.crt]
    volumeMounts: [{name: conf, mountPath: /conf}, {name: trust, mountPath: /trust}, {name: oidc, mountPath: /trust/oidc, subPath: in}, {name: one, mountPath: /one.crt}, {name: other, mountPath: /conf/not}]
  volumes:
  - {name: conf, hostPath: {path: /etc/kubernetes/conf}}
  - {name: trust, hostPath: {path: /wrong}}
  - {name: oidc, hostPath: {path: /srv/oidc}}
  - {name: one, hostPath: {path: /srv/clients.crt}}
  - {name: other, emptyDir: {}}
`), 0o600)
	put(t, root, "etc/kubernetes/conf/authz.yaml", []byte("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n"+
		"- {type: Webhook, name: h, webhook: {connectionInfo: {type: KubeConfigFile, kubeConfigFile: /conf/hook.conf}}}\n"), 0o600)
	put(t, root, "etc/kubernetes/conf/hook.conf", []byte(kubeconfig(t, p)), 0o600)
	put(t, root, "etc/kubernetes/conf/a.crt", p.certificate, 0o600)
	put(t, root, "etc/kubernetes/conf/a.key", p.sec1, 0o600)
	put(t, root, "srv/oidc/in/ca.crt", p.certificate, 0o600)
	put(t, root, "srv/clients.crt", p.certificate, 0o600)
	n, _, err := layout.Read(root, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := states(n)
	for _, file := range []string{"/etc/kubernetes/conf/a.crt#", "/etc/kubernetes/conf/a.key#", "/srv/oidc/in/ca.crt#", "/srv/clients.crt#", "/etc/kubernetes/conf/hook.conf"} {
		if got[file] != trust.Present {
			t.Errorf("%s is %q: %v", file, got[file], got)
		}
	}
}

func TestDropInsOfAKubelet(t *testing.T) {
	const line = `KUBELET_EXTRA_ARGS="--config-dir=/etc/kubelet.d"` + "\n"
	for name, c := range map[string]struct {
		do   func(root string) error
		want map[string]string
	}{
		"a folder that is a link is not followed": {
			func(root string) error { return os.Symlink("real.d", filepath.Join(root, "etc/kubelet.d")) },
			map[string]string{"not seen /etc/kubelet.d": "is a symbolic link: the kubelet does not follow it and reads none of its drop-ins; name the folder itself in --config-dir"},
		},
		"a folder that is not there": {
			func(string) error { return nil },
			map[string]string{"not seen /etc": "kubelet.d: named by the node's configuration, and not in what was given"},
		},
		"a drop-in of another kind": {
			func(root string) error {
				os.Mkdir(filepath.Join(root, "etc/kubelet.d"), 0o755)
				return os.WriteFile(filepath.Join(root, "etc/kubelet.d/a.conf"), []byte("apiVersion: v1\nkind: Pod\n"), 0o600)
			},
			map[string]string{"conflict /etc/kubelet.d/a.conf#kind": "the kubelet refuses this file: kind: is not KubeletConfiguration"},
		},
		"one without a version": {
			func(root string) error {
				os.Mkdir(filepath.Join(root, "etc/kubelet.d"), 0o755)
				return os.WriteFile(filepath.Join(root, "etc/kubelet.d/a.conf"), []byte("kind: KubeletConfiguration\n"), 0o600)
			},
			map[string]string{"conflict /etc/kubelet.d/a.conf#apiVersion": "the kubelet refuses this file: apiVersion: is not kubelet.config.k8s.io/v1beta1"},
		},
		"other files are nothing to it": {
			func(root string) error {
				os.Mkdir(filepath.Join(root, "etc/kubelet.d"), 0o755)
				return os.WriteFile(filepath.Join(root, "etc/kubelet.d/a.conf.bak"), []byte("junk: ["), 0o600)
			},
			map[string]string{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, "etc/default/kubelet", []byte(line), 0o600)
			put(t, root, "etc/kubernetes/kubelet.conf", []byte(kubeconfig(t, ecPair(t))), 0o600)
			if err := c.do(root); err != nil {
				t.Fatal(err)
			}
			n, _, err := layout.Read(root, layout.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, told(n)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzKubeletConfiguration: whatever the text is, what is read of it is a flag that
// a field sets, or a fault.
func FuzzKubeletConfiguration(f *testing.F) {
	f.Add([]byte("kind: KubeletConfiguration\nauthentication: {x509: {clientCAFile: a}}\nport: 0\n"))
	f.Add([]byte("authentication: 7\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		at := trust.Place{Path: "/c/config.yaml"}
		c, err := layout.ParseKubeletConfiguration(at, data)
		if err != nil {
			return
		}
		for flag, values := range c.Flags {
			if p := c.Settings[flag]; len(values) != 1 || values[0] == "" || p.Path != at.Path || p.Field == "" {
				t.Errorf("%s: %q at %s", flag, values, p)
			}
			if strings.HasSuffix(flag, "-file") && !filepath.IsAbs(values[0]) {
				t.Errorf("%s: %q is relative", flag, values)
			}
		}
	})
}
