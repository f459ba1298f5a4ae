package check_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/testpki"
)

// asShell lets the command of a manifest run below a shell.
func asShell(c *testpki.Cluster, component, form string) {
	text := string(c.Read("cp1", "manifests/"+component+".yaml"))
	before, rest, _ := strings.Cut(text, "  - command:\n")
	var words []string
	for {
		line, more, _ := strings.Cut(rest, "\n")
		word, ok := strings.CutPrefix(line, "    - ")
		if !ok {
			break
		}
		words, rest = append(words, word), more
	}
	c.Write("cp1", "manifests/"+component+".yaml", []byte(before+strings.ReplaceAll(form, "WORDS", strings.Join(words, " "))+rest))
}

// configurationTwins are unusual forms of flags and configuration.
var configurationTwins = []twin{
	{name: "a component runs below a shell, in quotes", change: func(_ *testing.T, c *testpki.Cluster) {
		asShell(c, "kube-controller-manager", "  - command:\n    - /bin/sh\n    - -c\n    - 'exec WORDS 2>&1 | tee -a /var/log/kcm.log'\n")
		asShell(c, "etcd", "  - command: [\"/bin/sh\", \"-ec\", \"umask 077; exec /usr/local/bin/WORDS\"]\n")
	}},
	{name: "etcd has a configuration file that is not read", change: func(_ *testing.T, c *testpki.Cluster) {
		c.Write("cp1", "manifests/etcd.yaml", []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: etcd}\nspec: {containers: [{name: etcd, command: [etcd, --config-file=/etc/etcd.yaml]}]}\n"))
	}},
	{name: "flags are quoted in YAML, with one dash, with underscores", change: func(_ *testing.T, c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-apiserver.yaml", "    - --client-ca-file=/etc/kubernetes/pki/ca.crt\n", "    - '--client_ca_file=/etc/kubernetes/pki/ca.crt' # who may come\n")
		c.Edit("cp1", "manifests/etcd.yaml", "    - --client-cert-auth=true\n", "    - \"-client-cert-auth\"\n")
	}},
	{name: "a boolean flag is true in another form", change: func(_ *testing.T, c *testpki.Cluster) {
		setFlag("etcd", "client-cert-auth", "true", "1")(c)
		setFlag("etcd", "peer-client-cert-auth", "true", "TRUE")(c)
	}},
	{name: "etcd names an authority and so verifies, whatever its flag says", change: func(_ *testing.T, c *testpki.Cluster) {
		setFlag("etcd", "client-cert-auth", "true", "false")(c)
		dropFlag(c, "etcd", "peer-client-cert-auth", "true")
	}},
	{name: "the front proxy has several allowed names, by two flags", change: func(_ *testing.T, c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-apiserver.yaml", "    - --requestheader-allowed-names=front-proxy-client\n", "    - --requestheader-allowed-names=aggregator,front-proxy-client\n    - --requestheader-allowed-names=another\n")
	}},
	{name: "the controller-manager signs by four pairs of flags", change: func(_ *testing.T, c *testpki.Cluster) {
		dropFlag(c, "kube-controller-manager", "cluster-signing-cert-file", pki+"ca.crt")
		var flags string
		for _, s := range []string{"kubelet-serving", "kubelet-client", "kube-apiserver-client", "legacy-unknown"} {
			flags += "    - --cluster-signing-" + s + "-cert-file=/etc/kubernetes/pki/ca.crt\n    - --cluster-signing-" + s + "-key-file=/etc/kubernetes/pki/ca.key\n"
		}
		c.Edit("cp1", "manifests/kube-controller-manager.yaml", "    - --cluster-signing-key-file=/etc/kubernetes/pki/ca.key\n", flags)
	}},
	{name: "the kubelet's configuration says all that kubeadm's says", change: func(_ *testing.T, c *testpki.Cluster) {
		kubelet(c, "authentication: {anonymous: {enabled: false}, webhook: {enabled: true, cacheTTL: 0s}, x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}\nauthorization: {mode: Webhook}\nreadOnlyPort: 0\nrotateCertificates: true\nstaticPodPath: /etc/kubernetes/manifests")
	}},
	{name: "anonymous users may ask for health, as kubeadm leaves it", change: func(_ *testing.T, c *testpki.Cluster) { addFlag(c, "--anonymous-auth=true") }},
	{name: "a component file of another program stands among the manifests", change: func(_ *testing.T, c *testpki.Cluster) {
		c.Write("cp1", "manifests/haproxy.yaml", []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: haproxy}\nspec: {containers: [{name: haproxy, image: haproxy}]}\n"))
	}},
	{name: "several control planes dial etcd's members everywhere", kind: testpki.HA, change: func(_ *testing.T, c *testpki.Cluster) {
		for _, n := range []string{"cp1", "cp2", "cp3"} {
			c.Edit(n, "manifests/kube-apiserver.yaml", "--etcd-servers=https://127.0.0.1:2379", "--etcd-servers=https://10.0.0.11:2379,https://10.0.0.12:2379,https://10.0.0.13:2379")
		}
	}},
	{name: "an address is known only when the Pod runs", change: func(_ *testing.T, c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-apiserver.yaml", "--advertise-address=10.0.0.11", "--advertise-address=$(HOST_IP)")
		c.Edit("cp1", "manifests/kube-apiserver.yaml", "  - command:\n", "  - env:\n    - name: HOST_IP\n      valueFrom: {fieldRef: {fieldPath: status.hostIP}}\n    command:\n")
	}},
	{name: "one address of a list is known only when the Pod runs", change: func(_ *testing.T, c *testpki.Cluster) {
		c.Edit("cp1", "manifests/etcd.yaml", "--listen-client-urls=https://127.0.0.1:2379,https://10.0.0.11:2379", "--listen-client-urls=https://127.0.0.1:2379,https://$(HOST_IP):2379")
		c.Edit("cp1", "manifests/etcd.yaml", "  - command:\n", "  - env:\n    - name: HOST_IP\n      valueFrom: {fieldRef: {fieldPath: status.hostIP}}\n    command:\n")
	}},
	{name: "a node was given under another name than its kubelet's flag says", kind: testpki.HA, change: func(_ *testing.T, c *testpki.Cluster) {
		os.Rename(filepath.Join(c.Dir, "w1"), filepath.Join(c.Dir, "backup-of-w1"))
		c.Write("backup-of-w1", "/var/lib/kubelet/kubeadm-flags.env", []byte("KUBELET_KUBEADM_ARGS=\"--hostname-override=w1\"\n"))
	}},
	{name: "another authority than that of clients signs for servers", change: func(_ *testing.T, c *testpki.Cluster) {
		c.Copy("cp1", "pki/ca.crt", "cp1", "pki/servers.crt")
		c.Rekey("cp1", "servers", c.NewKey("cp1", "pki/servers.key", issue.ECDSAP256))
		c.Rename("cp1", "servers", "servers")
		c.Reissue("cp1", "apiserver", "servers", nil)
		c.Remove("cp1", "pki/servers.key")
		for _, conf := range allConfs {
			c.SetConfCA("cp1", conf, c.Read("cp1", "pki/servers.crt"))
		}
		setFlag("kube-controller-manager", "root-ca-file", pki+"ca.crt", pki+"servers.crt")(c)
	}},
}
