package layout_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// podWith is a manifest with one container, given as the YAML of its fields.
func podWith(podName string, container ...string) string {
	return "apiVersion: v1\nkind: Pod\nmetadata:\n  name: " + podName + "\nspec:\n  containers:\n  - name: main\n    " +
		strings.Join(container, "\n    ") + "\n"
}

func TestParseManifest(t *testing.T) {
	type flags = map[string][]string
	for name, c := range map[string]struct {
		text, component string
		flags           flags
	}{
		"kubeadm's form with comments behind values": {
			podWith("etcd", "command:", "- etcd", "- --cert-file=/etc/kubernetes/pki/etcd/server.crt     # 对外", "- --client-cert-auth=true", "- --name=n1"),
			"etcd", flags{"cert-file": {"/etc/kubernetes/pki/etcd/server.crt"}, "client-cert-auth": {"true"}, "name": {"n1"}},
		},
		"values in words of their own, flags without a value, and repeated flags": {
			podWith("x", "command: [/usr/local/bin/kube-apiserver]", "args: [--client-ca-file, /a, --service-account-key-file=/1, --service-account-key-file, /2, --allow-privileged, --tls-cert-file=/b]"),
			"kube-apiserver", flags{"client-ca-file": {"/a"}, "service-account-key-file": {"/1", "/2"}, "allow-privileged": {"true"}, "tls-cert-file": {"/b"}},
		},
		"one dash, as etcd allows": {
			podWith("x", "command: [etcd, -key-file, /k, -cert-file=/c, --]", "args: [--name=ignored]"),
			"etcd", flags{"key-file": {"/k"}, "cert-file": {"/c"}},
		},
		"underscores for dashes": {
			podWith("x", "command: [kube-scheduler, --tls_cert_file=/a]"), "kube-scheduler", flags{"tls-cert-file": {"/a"}},
		},
		"one binary for all": {
			podWith("x", "command: [/hyperkube, kube-controller-manager, --root-ca-file=/a]"), "kube-controller-manager", flags{"root-ca-file": {"/a"}},
		},
		"the image's own program, known by the Pod's name": {
			podWith("kube-scheduler", "args: [--kubeconfig=/a]"), "kube-scheduler", flags{"kubeconfig": {"/a"}},
		},
		"a shell": {
			podWith("x", `command: [/bin/sh, -ec, "set -x; exec /usr/local/bin/kube-apiserver --tls-cert-file=/a '--runtime-config=api/all=true' \\\n  --etcd-cafile \"/with space\" 1>>/var/log/a.log 2>&1 # --not=this"]`),
			"kube-apiserver", flags{"tls-cert-file": {"/a"}, "runtime-config": {"api/all=true"}, "etcd-cafile": {"/with space"}},
		},
		"a shell with a variable before the program": {
			podWith("x", `command: [sh, -c]`, `args: ["GOMAXPROCS=2 etcd --name=$(hostname -s) --data-dir=/d"]`),
			"etcd", flags{"name": {"$(hostname -s)"}, "data-dir": {"/d"}},
		},
		"the environment of etcd, which flags override": {
			podWith("etcd", "command: [etcd, --cert-file=/flag]", "env: [{name: ETCD_CERT_FILE, value: /env}, {name: ETCD_PEER_KEY_FILE, value: /peer}, {name: OTHER, value: x}, {name: ETCD_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]"),
			"etcd", flags{"cert-file": {"/flag"}, "peer-key-file": {"/peer"}},
		},
		"references to the environment": {
			podWith("x", "command: [kube-apiserver, '--advertise-address=$(HOST)', '--bind-address=$(UNKNOWN)']", "env: [{name: HOST, value: 10.0.0.1}]"),
			"kube-apiserver", flags{"advertise-address": {"10.0.0.1"}, "bind-address": {"$(UNKNOWN)"}},
		},
		"a sidecar before the component": {
			podWith("x", "command: [sleep, '1']", "args: [etcd]") + "  - name: b\n    command: [kube-scheduler]\n",
			"kube-scheduler", flags{},
		},
		"JSON": {
			`{"kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"a","command":["etcd","--name=n"]}]}}`, "etcd", flags{"name": {"n"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			at := trust.Place{Node: "cp1", Path: "/etc/kubernetes/manifests/x.yaml"}
			got, err := layout.ParseManifest(at, []byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(trust.Component{Node: "cp1", Name: c.component, Source: at, Flags: c.flags}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseManifestRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"another Pod":              {podWith("coredns", "command: [/coredns, -conf, /etc/kube-apiserver]"), layout.ErrNoComponent.Error()},
		"a Pod without containers": {"kind: Pod\n", layout.ErrNoComponent.Error()},
		"another kind":             {"kind: Deployment\n", "kind: is not Pod"},
		"an empty file":            {"", "kind: is not Pod"},
		"not YAML":                 {"a: [", "is not YAML"},
		"a wrong type":             {"kind: Pod\nspec: {containers: [{command: etcd}]}\n", "spec.containers.command: is not a list"},
		"more than a mebibyte":     {strings.Repeat("#", layout.MaxFile+1), "larger than 1 MiB"},
	} {
		if _, err := layout.ParseManifest(trust.Place{}, []byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	_, err := layout.ParseManifest(trust.Place{}, []byte(podWith("x", "command: [sleep]")))
	if !errors.Is(err, layout.ErrNoComponent) {
		t.Errorf("not ErrNoComponent: %v", err)
	}
}

// FuzzParseManifest writes what was read as a plain manifest, which must read
// the same again.
func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(podWith("etcd", "command: [etcd, --cert-file=/c, -key-file, /k, --x]", "env: [{name: ETCD_NAME, value: n}]")))
	f.Add([]byte(podWith("x", `command: [/bin/sh, -c, "a=b exec kube-apiserver --a='b c' \"--d=e\" \\\n --f 2>&1; x"]`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := layout.ParseManifest(trust.Place{Path: "/m"}, data)
		if err != nil {
			return
		}
		words := []string{c.Name}
		for _, flag := range slices.Sorted(maps.Keys(c.Flags)) {
			if strings.ContainsAny(flag, "=$") || strings.Contains(fmt.Sprint(c.Flags[flag]), "$(") {
				return
			}
			for _, value := range c.Flags[flag] {
				words = append(words, "--"+flag+"="+value)
			}
		}
		again, err := yaml.Marshal(map[string]any{"kind": "Pod", "spec": map[string]any{"containers": []any{map[string]any{"command": words}}}})
		if err != nil {
			t.Fatal(err)
		}
		c2, err := layout.ParseManifest(c.Source, again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, c2); diff != "" {
			t.Fatalf("read back otherwise: %s\n%s", diff, again)
		}
	})
}

func TestParseKubeletConfiguration(t *testing.T) {
	at := trust.Place{Path: "/var/lib/kubelet/config.yaml"}
	got, err := layout.ParseKubeletConfiguration(at, []byte(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}
authorization: {mode: Webhook}
rotateCertificates: true
serverTLSBootstrap: true
readOnlyPort: 10255
address: 10.0.0.21
port: 11250
tlsCertFile: /c
tlsPrivateKeyFile: /k
staticPodPath: /etc/kubernetes/manifests
`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"client-ca-file": {"/etc/kubernetes/pki/ca.crt"}, "anonymous-auth": {"false"},
		"authentication-token-webhook": {"true"}, "authorization-mode": {"Webhook"},
		"rotate-certificates": {"true"}, "server-tls-bootstrap": {"true"}, "read-only-port": {"10255"},
		"address": {"10.0.0.21"}, "port": {"11250"},
		"tls-cert-file": {"/c"}, "tls-private-key-file": {"/k"}, "pod-manifest-path": {"/etc/kubernetes/manifests"},
	}
	if diff := cmp.Diff(want, got.Flags); diff != "" || got.Name != "kubelet" || got.Source != at {
		t.Errorf("%s %s: %s", got.Name, got.Source, diff)
	}
	if got, err := layout.ParseKubeletConfiguration(at, []byte("kind: KubeletConfiguration\n")); err != nil || len(got.Flags) != 0 {
		t.Errorf("what is not set: %v, %v", got.Flags, err)
	}
	for text, want := range map[string]string{
		"kind: Pod":         "kind: is not KubeletConfiguration",
		"readOnlyPort: yes": "readOnlyPort: is not a number",
		"a: [":              "is not YAML",
	} {
		if _, err := layout.ParseKubeletConfiguration(at, []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
