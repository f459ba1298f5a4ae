package main

import (
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

// byDesign are the findings of a healthy cluster of kubernetes-the-hard-way: in
// its present form etcd has no TLS on loopback, in its old one it has the
// cluster's authority.
var byDesign = map[string]string{testpki.HardwayOpenssl: "plain-http", testpki.HardwayCfssl: "authority-shared"}

func verifyHardway(t *testing.T, c *testpki.Cluster, form string, args ...string) (report.Verification, []string) {
	t.Helper()
	code := exitDone
	v := verifyAny(t, append([]string{c.Dir, "--at", testpki.At.Format(time.RFC3339)}, args...), &code)
	var got []string
	for _, f := range v.Findings {
		if f.ID != byDesign[form] && f.Severity != "info" {
			got = append(got, string(f.Severity)+" "+f.ID+" "+f.Node+":"+f.Path+" "+f.Field)
		}
	}
	return v, got
}

// TestHardwayIsHealthy: both forms are read from their units, every link is
// there, and nothing is said but what is so by design.
func TestHardwayIsHealthy(t *testing.T) {
	for form, links := range map[string][]int{testpki.HardwayOpenssl: {4, 5, 8, 9, 10, 11, 12, 17}, testpki.HardwayCfssl: {1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 17}} {
		t.Run(form, func(t *testing.T) {
			v, findings := verifyHardway(t, testpki.NewHardway(t, form), form)
			if len(findings) != 0 {
				t.Errorf("findings: %v", findings)
			}
			for _, n := range v.Nodes {
				if n.Layout != "hardway" {
					t.Errorf("%s is %s", n.Name, n.Layout)
				}
			}
			for _, number := range links {
				if !slices.ContainsFunc(v.Links, func(l report.VerifiedLink) bool { return l.Number == number && l.OK }) {
					t.Errorf("no good link %d", number)
				}
			}
		})
	}
}

// TestHardwayWithoutUnits: where the units were not given, the names of files tell
// most of the links, and that is said.
func TestHardwayWithoutUnits(t *testing.T) {
	for form, node := range map[string]string{testpki.HardwayOpenssl: "server", testpki.HardwayCfssl: "controller-0"} {
		t.Run(form, func(t *testing.T) {
			c := testpki.NewHardway(t, form)
			c.Remove(node, "/etc/systemd")
			v, findings := verifyHardway(t, c, form)
			if len(findings) != 0 {
				t.Errorf("findings: %v", findings)
			}
			said := slices.ContainsFunc(v.Findings, func(f check.Finding) bool {
				return f.ID == "not-seen" && f.Path == "/etc/systemd/system" && f.Node == node
			})
			for _, number := range []int{4, 5, 6, 8, 9, 12} {
				if !slices.ContainsFunc(v.Links, func(l report.VerifiedLink) bool { return l.Number == number && l.OK }) || !said {
					t.Errorf("no good link %d, or that is not said: %v", number, said)
				}
			}
			c.ReissueAt(node, map[string]string{"server": "/var/lib/kubernetes/kube-api-server.crt", "controller-0": "/var/lib/kubernetes/kubernetes.pem"}[node],
				"/var/lib/kubernetes/ca"+map[string]string{"server": ".crt", "controller-0": ".pem"}[node], "/var/lib/kubernetes/ca"+map[string]string{"server": ".key", "controller-0": "-key.pem"}[node],
				func(c *x509.Certificate) { c.NotAfter = testpki.Made.Add(time.Hour) })
			if _, findings = verifyHardway(t, c, form); len(findings) != 1 || !strings.HasPrefix(findings[0], "error cert-expired") {
				t.Errorf("findings: %v", findings)
			}
		})
	}
}

// TestHardwayBroken: one thing broken is one finding, at the file or flag where
// it is mended, and its good twin is none.
func TestHardwayBroken(t *testing.T) {
	const (
		units = "/etc/systemd/system/"
		lib   = "/var/lib/kubernetes/"
	)
	expired := func(c *x509.Certificate) { c.NotAfter = testpki.Made.Add(time.Hour) }
	for name, row := range map[string]struct {
		form string
		do   func(c *testpki.Cluster)
		want []string
	}{
		"the API server's certificate has expired": {testpki.HardwayOpenssl, func(c *testpki.Cluster) {
			c.ReissueAt("server", lib+"kube-api-server.crt", lib+"ca.crt", lib+"ca.key", expired)
		}, []string{"error cert-expired server:" + lib + "kube-api-server.crt "}},
		"the same in a PEM of cfssl": {testpki.HardwayCfssl, func(c *testpki.Cluster) {
			c.ReissueAt("controller-0", "/etc/etcd/kubernetes.pem", lib+"ca.pem", lib+"ca-key.pem", expired)
		}, []string{"error cert-expired controller-0:/etc/etcd/kubernetes.pem "}},
		"the key of another certificate": {testpki.HardwayOpenssl, func(c *testpki.Cluster) {
			c.NewKey("server", lib+"kube-api-server.key", "ECDSA-P256")
		}, []string{"error key-mismatch server:" + lib + "kube-api-server.key "}},
		"the authority's key of another": {testpki.HardwayCfssl, func(c *testpki.Cluster) {
			c.NewKey("controller-0", lib+"ca-key.pem", "ECDSA-P256")
		}, []string{"error ca-key-mismatch controller-0:" + lib + "ca-key.pem "}},
		"the authority made anew": {testpki.HardwayOpenssl, func(c *testpki.Cluster) {
			c.NewAuthority("server", lib+"ca.crt", lib+"ca.key", "CA")
		}, []string{"error authority-recreated server:" + lib + "ca.crt "}},
		"the worker's copy is of an authority before": {testpki.HardwayCfssl, func(c *testpki.Cluster) {
			other := testpki.NewHardway(t, testpki.HardwayCfssl)
			c.Write("worker-0", lib+"ca.pem", other.Read("worker-0", lib+"ca.pem"))
		}, []string{"error bundle-stale worker-0:" + lib + "ca.pem "}},
		"etcd's copy is of an authority before": {testpki.HardwayCfssl, func(c *testpki.Cluster) {
			other := testpki.NewHardway(t, testpki.HardwayCfssl)
			c.Write("controller-0", "/etc/etcd/ca.pem", other.Read("controller-0", "/etc/etcd/ca.pem"))
		}, []string{"error bundle-stale controller-0:/etc/etcd/ca.pem "}},
		"the API server's etcd authority is an old copy": {testpki.HardwayCfssl, func(c *testpki.Cluster) {
			other := testpki.NewHardway(t, testpki.HardwayCfssl)
			c.Write("controller-0", "/etc/old/ca.pem", other.Read("controller-0", "/etc/etcd/ca.pem"))
			c.Edit("controller-0", units+"kube-apiserver.service", "--etcd-cafile="+lib+"ca.pem", "--etcd-cafile=/etc/old/ca.pem")
		}, []string{"error bundle-stale controller-0:/etc/old/ca.pem "}},
		"clients are known by an old copy": {testpki.HardwayOpenssl, func(c *testpki.Cluster) {
			other := testpki.NewHardway(t, testpki.HardwayOpenssl)
			c.Write("server", "/etc/old/ca.crt", other.Read("server", lib+"ca.crt"))
			c.Edit("server", units+"kube-apiserver.service", "--client-ca-file="+lib+"ca.crt", "--client-ca-file=/etc/old/ca.crt")
		}, []string{"error bundle-stale server:/etc/old/ca.crt "}},
		"the authority's key on a worker": {testpki.HardwayCfssl, func(c *testpki.Cluster) {
			c.Copy("controller-0", lib+"ca-key.pem", "worker-0", lib+"ca-key.pem")
		}, []string{"warning ca-key-present worker-0:" + lib + "ca-key.pem "}},
		"an authority of etcd's own": {testpki.HardwayCfssl, func(c *testpki.Cluster) {
			ca := c.NewAuthority("controller-0", "/etc/etcd/ca.pem", "/etc/etcd/ca-key.pem", "etcd")
			c.SignPair("controller-0", "/etc/etcd/kubernetes.pem", "/etc/etcd/kubernetes-key.pem", ca, testpki.Named("etcd"), "10.240.0.10", "127.0.0.1")
			c.SignPair("controller-0", lib+"etcd-client.pem", lib+"etcd-client-key.pem", ca, testpki.Named("kube-apiserver"))
			c.Edit("controller-0", units+"kube-apiserver.service", "--etcd-cafile="+lib+"ca.pem", "--etcd-cafile=/etc/etcd/ca.pem")
			c.Edit("controller-0", units+"kube-apiserver.service", "--etcd-certfile="+lib+"kubernetes.pem", "--etcd-certfile="+lib+"etcd-client.pem")
			c.Edit("controller-0", units+"kube-apiserver.service", "--etcd-keyfile="+lib+"kubernetes-key.pem", "--etcd-keyfile="+lib+"etcd-client-key.pem")
		}, nil},
		"the API server's key may be read by all": {testpki.HardwayOpenssl, func(c *testpki.Cluster) {
			c.Chmod("server", lib+"kube-api-server.key", 0o644)
		}, []string{"error key-permissions server:" + lib + "kube-api-server.key "}},
		"the authority's key, which only a flag names": {testpki.HardwayCfssl, func(c *testpki.Cluster) {
			c.Chmod("controller-0", lib+"ca-key.pem", 0o644)
		}, []string{"error key-permissions controller-0:" + lib + "ca-key.pem "}},
		"a missing certificate that a flag names": {testpki.HardwayOpenssl, func(c *testpki.Cluster) {
			c.Remove("server", lib+"kube-api-server.crt")
		}, []string{"error file-missing server:" + lib + "kube-api-server.crt "}},
		"AlwaysAllow in a unit": {testpki.HardwayOpenssl, func(c *testpki.Cluster) {
			c.Edit("server", units+"kube-apiserver.service", "Node,RBAC", "AlwaysAllow")
		}, []string{"error authorization-open server:" + units + "kube-apiserver.service --authorization-mode"}},
		"AlwaysAllow in a drop-in": {testpki.HardwayOpenssl, func(c *testpki.Cluster) {
			command := string(c.Read("server", units+"kube-apiserver.service"))
			c.Write("server", units+"kube-apiserver.service.d/10-open.conf", []byte("[Service]\nExecStart=\n"+edit(command[indexOf(command, "ExecStart="):], "Node,RBAC", "AlwaysAllow")))
		}, []string{"error authorization-open server:" + units + "kube-apiserver.service.d/10-open.conf --authorization-mode"}},
		"etcd without a client authority": {testpki.HardwayCfssl, func(c *testpki.Cluster) {
			c.Edit("controller-0", units+"etcd.service", "--trusted-ca-file=/etc/etcd/ca.pem", "")
			c.Edit("controller-0", units+"etcd.service", "  --client-cert-auth", "")
		}, []string{"error client-auth-off controller-0:" + units + "etcd.service --trusted-ca-file"}},
		"etcd without TLS on an address of others": {testpki.HardwayCfssl, func(c *testpki.Cluster) {
			c.Edit("controller-0", units+"etcd.service", "--listen-client-urls https://10.240.0.10:2379", "--listen-client-urls http://10.240.0.10:2379")
		}, []string{"error plain-http controller-0:" + units + "etcd.service --listen-client-urls"}},
		"a kubelet with the name of another": {testpki.HardwayCfssl, func(c *testpki.Cluster) {
			ca := c.AuthorityAt("controller-0", lib+"ca.pem", lib+"ca-key.pem")
			c.NewConf("worker-0", "/var/lib/kubelet/kubeconfig", "https://203.0.113.7:6443", ca, testpki.Named("system:node:worker-1", "system:nodes"))
			c.Edit("worker-0", units+"kubelet.service", "--v=2", "--hostname-override=worker-0")
		}, []string{"error identity-wrong worker-0:/var/lib/kubelet/kubeconfig users[system:node:worker-1].user.client-certificate-data"}},
		"a controller-manager that dials what nobody serves": {testpki.HardwayOpenssl, func(c *testpki.Cluster) {
			c.Edit("server", lib+"kube-controller-manager.kubeconfig", "server.kubernetes.local", "old.kubernetes.local")
		}, []string{"error endpoint-mismatch server:" + lib + "kube-controller-manager.kubeconfig clusters[kubernetes-the-hard-way].cluster.server"}},
		"a certificate without the service's address": {testpki.HardwayOpenssl, func(c *testpki.Cluster) {
			c.ReissueAt("server", lib+"kube-api-server.crt", lib+"ca.crt", lib+"ca.key", func(c *x509.Certificate) { c.IPAddresses = c.IPAddresses[:1] })
		}, []string{"error san-missing server:" + lib + "kube-api-server.crt "}},
		"a signing key that no API server verifies": {testpki.HardwayOpenssl, func(c *testpki.Cluster) {
			c.NewKey("server", lib+"other.key", "ECDSA-P256")
			c.Edit("server", units+"kube-controller-manager.service", "service-accounts.key", "other.key")
		}, []string{"error sa-verify-key-missing server:" + lib + "service-accounts.crt "}},
		"flags in an environment file, with variables": {testpki.HardwayOpenssl, func(c *testpki.Cluster) {
			command := string(c.Read("server", units+"kube-apiserver.service"))
			c.Write("server", "/etc/default/kube-apiserver", []byte("DIR=/var/lib/kubernetes\nARGS='--tls-cert-file=/var/lib/kubernetes/kube-api-server.crt --tls-private-key-file=/var/lib/kubernetes/kube-api-server.key'\n"))
			command = edit(command, "--tls-cert-file=/var/lib/kubernetes/kube-api-server.crt", "$ARGS")
			command = edit(command, "--tls-private-key-file=/var/lib/kubernetes/kube-api-server.key", "")
			command = edit(command, "--client-ca-file=/var/lib/kubernetes/", "--client-ca-file=${DIR}/")
			c.Write("server", units+"kube-apiserver.service", []byte(edit(command, "[Service]\n", "[Service]\nEnvironmentFile=-/etc/default/kube-apiserver\n")))
		}, nil},
		"a kubeconfig with file paths relative to it": {testpki.HardwayCfssl, func(c *testpki.Cluster) {
			ca := c.AuthorityAt("controller-0", lib+"ca.pem", lib+"ca-key.pem")
			c.SignPair("worker-0", "/var/lib/kubelet/pki/client.pem", "/var/lib/kubelet/pki/client-key.pem", ca, testpki.Named("system:node:worker-0", "system:nodes"))
			c.Write("worker-0", "/var/lib/kubelet/kubeconfig", []byte(relativeKubeconfig))
		}, nil},
		"two anchors in the API server's bundle": {testpki.HardwayOpenssl, func(c *testpki.Cluster) {
			other := c.NewAuthority("server", "/tmp/ca.crt", "/tmp/ca.key", "CA")
			c.Write("server", lib+"clients.crt", append(c.Read("server", lib+"ca.crt"), trust.EncodeCertificates(other.Certificate)...))
			c.Edit("server", units+"kube-apiserver.service", "--client-ca-file="+lib+"ca.crt", "--client-ca-file="+lib+"clients.crt")
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := testpki.NewHardway(t, row.form)
			row.do(c)
			if _, got := verifyHardway(t, c, row.form); !slices.Equal(got, row.want) {
				t.Errorf("got  %q\nwant %q", got, row.want)
			}
		})
	}
}

const relativeKubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {certificate-authority: ../kubernetes/ca.pem, server: "https://203.0.113.7:6443"}}]
contexts: [{name: d, context: {cluster: c, user: u}}]
current-context: d
users: [{name: u, user: {client-certificate: pki/client.pem, client-key: pki/client-key.pem}}]
`
