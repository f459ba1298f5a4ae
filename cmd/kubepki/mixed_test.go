package main

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/testpki"
)

// kubespray is a control plane as kubespray makes it: static pods by kubeadm, and
// etcd and the kubelet run by systemd, with files and environment files of their
// own (roles/etcd/templates/etcd.env.j2, etcd-host.service.j2,
// roles/kubernetes/node/templates/kubelet.env.v1beta1.j2).
func kubespray(t *testing.T) *testpki.Cluster {
	t.Helper()
	c := testpki.New(t, testpki.Single)
	for from, to := range map[string]string{"ca.crt": "ca.pem", "ca.key": "ca-key.pem", "server.crt": "member-cp1.pem", "server.key": "member-cp1-key.pem",
		"../apiserver-etcd-client.crt": "node-cp1.pem", "../apiserver-etcd-client.key": "node-cp1-key.pem"} {
		c.Write("cp1", "/etc/ssl/etcd/ssl/"+to, c.Read("cp1", "pki/etcd/"+from))
		c.Remove("cp1", "pki/etcd/"+from)
	}
	c.Remove("cp1", "pki/etcd")
	c.Remove("cp1", "manifests/etcd.yaml")
	for old, with := range map[string]string{
		"/etc/kubernetes/pki/etcd/ca.crt": "/etc/ssl/etcd/ssl/ca.pem", "/etc/kubernetes/pki/apiserver-etcd-client.crt": "/etc/ssl/etcd/ssl/node-cp1.pem",
		"/etc/kubernetes/pki/apiserver-etcd-client.key": "/etc/ssl/etcd/ssl/node-cp1-key.pem"} {
		c.Edit("cp1", "manifests/kube-apiserver.yaml", old, with)
	}
	c.Write("cp1", "/etc/systemd/system/etcd.service", []byte("[Service]\nType=notify\nUser=root\nEnvironmentFile=/etc/etcd.env\nExecStart=/usr/local/bin/etcd\nNotifyAccess=all\n"))
	c.Write("cp1", "/etc/etcd.env", []byte(`# Environment file for etcd
ETCD_DATA_DIR=/var/lib/etcd
ETCD_ADVERTISE_CLIENT_URLS=https://10.0.0.11:2379
ETCD_INITIAL_ADVERTISE_PEER_URLS=https://10.0.0.11:2380
ETCD_LISTEN_CLIENT_URLS=https://10.0.0.11:2379,https://127.0.0.1:2379
ETCD_LISTEN_PEER_URLS=https://10.0.0.11:2380
ETCD_NAME=etcd1

# TLS settings
ETCD_TRUSTED_CA_FILE=/etc/ssl/etcd/ssl/ca.pem
ETCD_CERT_FILE=/etc/ssl/etcd/ssl/member-cp1.pem
ETCD_KEY_FILE=/etc/ssl/etcd/ssl/member-cp1-key.pem
ETCD_CLIENT_CERT_AUTH=true
ETCD_PEER_TRUSTED_CA_FILE=/etc/ssl/etcd/ssl/ca.pem
ETCD_PEER_CERT_FILE=/etc/ssl/etcd/ssl/member-cp1.pem
ETCD_PEER_KEY_FILE=/etc/ssl/etcd/ssl/member-cp1-key.pem
ETCD_PEER_CLIENT_CERT_AUTH=True
`))
	c.Write("cp1", "/etc/systemd/system/kubelet.service", []byte("[Service]\nEnvironmentFile=-/etc/kubernetes/kubelet.env\nExecStart=/usr/local/bin/kubelet \\\n\t\t$KUBE_LOG_LEVEL \\\n\t\t$KUBELET_ARGS \\\n\t\t$KUBELET_CLOUDPROVIDER\nRestart=always\n"))
	c.Write("cp1", "/etc/kubernetes/kubelet.env", []byte("KUBE_LOG_LEVEL=\"--v=2\"\nKUBELET_ARGS=\"--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \\\n--config=/etc/kubernetes/kubelet-config.yaml \\\n--kubeconfig=/etc/kubernetes/kubelet.conf \\\n\"\n"))
	c.Write("cp1", "/etc/kubernetes/kubelet-config.yaml", []byte("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nauthentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}\nauthorization: {mode: Webhook}\nstaticPodPath: /etc/kubernetes/manifests\n"))
	return c
}

// TestKubeadmWithUnits: one node, read as one cluster, each fault at its place.
func TestKubeadmWithUnits(t *testing.T) {
	const ssl = "/etc/ssl/etcd/ssl/"
	for name, row := range map[string]struct {
		do   func(c *testpki.Cluster)
		want []string
	}{
		"all is well": {func(*testpki.Cluster) {}, nil},
		"etcd's certificate has expired": {func(c *testpki.Cluster) {
			c.ReissueAt("cp1", ssl+"member-cp1.pem", ssl+"ca.pem", ssl+"ca-key.pem", func(c *x509.Certificate) { c.NotAfter = testpki.Made.Add(time.Hour) })
		}, []string{"error cert-expired " + ssl + "member-cp1.pem "}},
		"etcd's authority was made anew": {func(c *testpki.Cluster) {
			c.NewAuthority("cp1", ssl+"ca.pem", ssl+"ca-key.pem", "etcd-ca")
		}, []string{"error authority-recreated " + ssl + "ca.pem "}},
		"etcd's key belongs to another certificate": {func(c *testpki.Cluster) {
			c.Copy("cp1", ssl+"node-cp1-key.pem", "cp1", ssl+"member-cp1-key.pem")
		}, []string{"error key-mismatch " + ssl + "member-cp1-key.pem "}},
		"etcd verifies no clients, by its environment file": {func(c *testpki.Cluster) {
			c.Edit("cp1", "/etc/etcd.env", "ETCD_TRUSTED_CA_FILE=/etc/ssl/etcd/ssl/ca.pem\n", "")
			c.Edit("cp1", "/etc/etcd.env", "ETCD_CLIENT_CERT_AUTH=true\n", "")
		}, []string{"error client-auth-off /etc/systemd/system/etcd.service --trusted-ca-file"}},
		"the kubelet's configuration opens it": {func(c *testpki.Cluster) {
			c.Edit("cp1", "/etc/kubernetes/kubelet-config.yaml", "Webhook", "AlwaysAllow")
		}, []string{"error authorization-open /etc/kubernetes/kubelet-config.yaml "}},
		"a missing environment file": {func(c *testpki.Cluster) {
			c.Remove("cp1", "/etc/etcd.env")
		}, []string{"info not-seen /etc/etcd.env "}},
	} {
		t.Run(name, func(t *testing.T) {
			c := kubespray(t)
			row.do(c)
			code := 0
			v := verifyAny(t, []string{"--root", c.Path("cp1", "/"), "--at", testpki.At.Format(time.RFC3339)}, &code)
			var got []string
			for _, f := range v.Findings {
				if f.Severity != "info" || f.ID == "not-seen" {
					if strings.HasSuffix(f.Path, ".yaml") {
						f.Field = "" // of the file's own form
					}
					got = append(got, string(f.Severity)+" "+f.ID+" "+f.Path+" "+f.Field)
				}
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("got %q, want %q", got, row.want)
			}
			if len(v.Nodes) != 1 || v.Nodes[0].Layout != "kubeadm" {
				t.Errorf("nodes: %+v", v.Nodes)
			}
		})
	}
}

// TestExternalEtcdOfUnits: an etcd node of units and a control plane of kubeadm
// are wired together.
func TestExternalEtcdOfUnits(t *testing.T) {
	c := kubespray(t)
	for _, file := range []string{"etc/ssl", "etc/etcd.env", "etc/systemd/system/etcd.service"} {
		to := filepath.Join(c.Dir, "etcd1", file)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(c.Path("cp1", "/"+file), to); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"ca.pem", "node-cp1.pem", "node-cp1-key.pem"} {
		c.Copy("etcd1", "/etc/ssl/etcd/ssl/"+name, "cp1", "/etc/ssl/etcd/ssl/"+name)
	}
	c.Edit("cp1", "manifests/kube-apiserver.yaml", "https://127.0.0.1:2379", "https://10.0.0.11:2379")
	code := 0
	v := verifyAny(t, []string{c.Dir, "--at", testpki.At.Format(time.RFC3339)}, &code)
	layouts := ""
	for _, n := range v.Nodes {
		layouts += n.Name + "=" + n.Layout + " "
	}
	if code != exitDone || strings.TrimSpace(layouts) != "cp1=kubeadm etcd1=hardway" {
		t.Errorf("exit code %d, nodes %s: %+v", code, layouts, v.Findings)
	}
	found := false
	for _, l := range v.Links {
		found = found || l.Number == 3 && l.OK && l.Caller == "cp1/kube-apiserver" && l.Callee == "etcd1/etcd"
	}
	if !found {
		t.Error("no good link 3 from cp1 to etcd1")
	}
}
