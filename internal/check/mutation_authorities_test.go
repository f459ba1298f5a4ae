package check_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

// authorityMutations break dates, authorities, chains, usages and names.
var authorityMutations = []mutation{
	// Dates.
	{name: "a leaf begins in five minutes", brk: func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver", "ca", from(testpki.At.Add(5*time.Minute))) },
		id: "cert-not-yet-valid", path: pki + "apiserver.crt", says: "clock"},
	{name: "an authority begins in an hour", brk: func(c *testpki.Cluster) { c.Resign("cp1", "front-proxy-ca", from(testpki.At.Add(time.Hour))) },
		id: "cert-not-yet-valid", path: pki + "front-proxy-ca.crt", links: []int{13}},
	{name: "a leaf outlives its authority by a second", brk: func(c *testpki.Cluster) {
		c.Reissue("cp1", "front-proxy-client", "front-proxy-ca", until(c.Authority("cp1", "front-proxy-ca").Certificate.NotAfter.Add(time.Second)))
	}, id: "cert-outlives-ca", path: pki + "front-proxy-client.crt"},
	{name: "a kubeconfig's certificate outlives its authority", brk: func(c *testpki.Cluster) { c.ReissueConf("cp1", "admin.conf", "ca", until(days(4000))) },
		id: "cert-outlives-ca", path: "/etc/kubernetes/admin.conf", field: "users[kubernetes-admin].user.client-certificate-data"},
	{name: "an authority of three nodes has expired", kind: testpki.HA, at: days(3), brk: func(c *testpki.Cluster) {
		everywhere(c, "front-proxy-ca", until(days(2)))
	}, id: "cert-expired", path: pki + "front-proxy-ca.crt", links: []int{13}},
	{name: "etcd's authority of three nodes has expired", kind: testpki.HA, at: days(3), brk: func(c *testpki.Cluster) {
		everywhere(c, "etcd/ca", until(days(2)))
	}, id: "cert-expired", path: pki + "etcd/ca.crt", links: []int{1, 2, 3, 15}},
	{name: "the cluster's authority has expired", at: days(3), brk: func(c *testpki.Cluster) {
		a := c.Resign("cp1", "ca", until(days(2)))
		for _, conf := range []string{"admin.conf", "super-admin.conf", "kubelet.conf", "controller-manager.conf", "scheduler.conf"} {
			c.SetConfCA("cp1", conf, trust.EncodeCertificates(a.Certificate))
		}
	}, id: "cert-expired", path: pki + "ca.crt"},
	{name: "one node's leaf has expired", kind: testpki.HA, at: days(3), brk: func(c *testpki.Cluster) { c.Reissue("cp2", "etcd/peer", "etcd/ca", until(days(2))) },
		id: "cert-expired", node: "cp2", path: pki + "etcd/peer.crt", links: []int{1}},
	{name: "a worker's certificate has expired", kind: testpki.HA, at: days(3), brk: func(c *testpki.Cluster) {
		withAuthority(c, "w1", func() { c.ReissueConf("w1", "kubelet.conf", "ca", until(days(2))) })
	}, id: "cert-expired", node: "w1", path: "/etc/kubernetes/kubelet.conf", links: []int{8}},
	{name: "a shown intermediate has expired", kind: testpki.Intermediate, at: days(3), brk: func(c *testpki.Cluster) {
		shownIntermediate(c, until(days(2)))
	}, id: "cert-expired", path: pki + "apiserver.crt", says: `certificate "kubernetes" expired`},
	{name: "an authority expires soon", at: days(3640), brk: func(c *testpki.Cluster) {
		renewEverything(c, "cp1", days(3640), days(7000))
		c.Resign("cp1", "front-proxy-ca", func(x *x509.Certificate) { x.NotAfter = days(3660) })
		c.Reissue("cp1", "front-proxy-client", "front-proxy-ca", span(days(3640).Add(-time.Hour), days(3660)))
	}, id: "cert-expiring", path: pki + "front-proxy-ca.crt"},
	{name: "a kubeconfig holds only the expired certificate of an authority of another name", brk: func(c *testpki.Cluster) {
		c.SetConfCA("cp1", "scheduler.conf", expiredAnchor(c, "long ago"))
	}, id: "bundle-expired", path: "/etc/kubernetes/scheduler.conf", field: "clusters[kubernetes].cluster.certificate-authority-data", links: []int{6}},

	// Authorities.
	{name: "a root allows no authority below it", kind: testpki.Intermediate, brk: func(c *testpki.Cluster) {
		resignRoot(c, func(x *x509.Certificate) { x.MaxPathLen, x.MaxPathLenZero = 0, true })
	}, id: "ca-invalid", path: pki + "root-ca.crt", says: "path length"},
	{name: "a shown intermediate is no authority", kind: testpki.Intermediate, brk: func(c *testpki.Cluster) {
		shownIntermediate(c, func(x *x509.Certificate) { x.IsCA = false })
	}, id: "ca-invalid", path: pki + "apiserver.crt", says: "CA:TRUE"},
	{name: "a shown intermediate may not sign", kind: testpki.Intermediate, brk: func(c *testpki.Cluster) {
		shownIntermediate(c, func(x *x509.Certificate) { x.KeyUsage = x509.KeyUsageCRLSign })
	}, id: "ca-invalid", path: pki + "apiserver.crt", says: "keyCertSign"},
	{name: "clients are verified with a leaf", brk: setFlag("kube-apiserver", "client-ca-file", pki+"ca.crt", pki+"apiserver-kubelet-client.crt"),
		id: "flag-conflict", path: apiserverManifest, field: "--client-ca-file", links: []int{5, 6, 8, 9}},
	{name: "etcd's clients are verified with its own serving certificate", brk: setFlag("etcd", "trusted-ca-file", pki+"etcd/ca.crt", pki+"etcd/server.crt"),
		id: "flag-conflict", path: etcdManifest, field: "--trusted-ca-file", links: []int{3, 15}},
	{name: "an authority may sign code alone", brk: func(c *testpki.Cluster) { c.Resign("cp1", "front-proxy-ca", usages(x509.ExtKeyUsageCodeSigning)) },
		id: "usage-missing", path: pki + "front-proxy-ca.crt", links: []int{13}},
	{name: "an authority excludes a name", brk: func(c *testpki.Cluster) {
		c.Resign("cp1", "etcd/ca", func(x *x509.Certificate) {
			x.ExcludedDNSDomains = []string{"localhost"}
			x.PermittedDNSDomainsCritical = true
		})
	}, id: "constraint-violated", path: pki + "etcd/ca.crt", links: []int{1, 2, 3, 15}},
	{name: "an authority excludes addresses", brk: func(c *testpki.Cluster) {
		c.Resign("cp1", "etcd/ca", func(x *x509.Certificate) {
			x.ExcludedIPRanges = []*net.IPNet{{IP: net.IPv4(10, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}}
		})
	}, id: "constraint-violated", path: pki + "etcd/ca.crt", links: []int{1, 2, 3, 15}},
	{name: "a leaf has a name more than its authority may give", brk: func(c *testpki.Cluster) {
		c.Resign("cp1", "etcd/ca", func(x *x509.Certificate) { x.ExcludedDNSDomains = []string{"forbidden.test"} })
		c.Reissue("cp1", "etcd/server", "etcd/ca", func(x *x509.Certificate) { x.DNSNames = append(x.DNSNames, "etcd.forbidden.test") })
	}, id: "constraint-violated", path: pki + "etcd/server.crt", links: []int{2, 3, 15}},
	{name: "a root is constrained to other names", kind: testpki.Intermediate, brk: func(c *testpki.Cluster) {
		resignRoot(c, func(x *x509.Certificate) { x.PermittedDNSDomains = []string{"example.test"} })
	}, id: "constraint-violated", path: pki + "apiserver.crt", says: "kubernetes-root-ca"},
	{name: "a cross-signed intermediate lets clients be front proxies", brk: func(c *testpki.Cluster) {
		cross := c.Sign(c.Authority("cp1", "ca").Certificate, c.Authority("cp1", "front-proxy-ca"), nil)
		confData(c, "scheduler.conf", "client-certificate-data", func(raw []byte) []byte { return append(raw, cross...) })
	}, id: "authority-shared", path: pki + "front-proxy-ca.crt"},
	{name: "etcd admits the cluster's clients beside its own", brk: func(c *testpki.Cluster) {
		c.Write("cp1", "pki/etcd/both.crt", append(c.Read("cp1", "pki/etcd/ca.crt"), c.Read("cp1", "pki/ca.crt")...))
		setFlag("etcd", "trusted-ca-file", pki+"etcd/ca.crt", pki+"etcd/both.crt")(c)
	}, id: "authority-shared", path: pki + "etcd/both.crt", severity: check.Warning},
	{name: "the apiserver admits etcd's clients beside its own", brk: func(c *testpki.Cluster) {
		c.Write("cp1", "pki/both.crt", append(c.Read("cp1", "pki/ca.crt"), c.Read("cp1", "pki/etcd/ca.crt")...))
		setFlag("kube-apiserver", "client-ca-file", pki+"ca.crt", pki+"both.crt")(c)
	}, id: "authority-shared", path: pki + "both.crt", severity: check.Warning},
	{name: "the apiserver admits the front proxy as a client", brk: func(c *testpki.Cluster) {
		c.Write("cp1", "pki/both.crt", append(c.Read("cp1", "pki/ca.crt"), c.Read("cp1", "pki/front-proxy-ca.crt")...))
		setFlag("kube-apiserver", "client-ca-file", pki+"ca.crt", pki+"both.crt")(c)
	}, id: "authority-shared", path: pki + "both.crt"},
	{name: "front proxies are verified with the cluster's authority", brk: func(c *testpki.Cluster) {
		setFlag("kube-apiserver", "requestheader-client-ca-file", pki+"front-proxy-ca.crt", pki+"ca.crt")(c)
		c.Reissue("cp1", "front-proxy-client", "ca", nil)
	}, id: "authority-shared", path: pki + "ca.crt"},
	{name: "front proxies are verified with the cluster's authority by flag", brk: setFlag("kube-apiserver", "requestheader-client-ca-file", pki+"front-proxy-ca.crt", pki+"ca.crt"),
		id: "authority-shared", path: pki + "ca.crt"},
	{name: "the chain's root stands in the place of its intermediate", kind: testpki.Intermediate, brk: func(c *testpki.Cluster) {
		c.Write("cp1", "pki/apiserver.crt", append(firstOf(c.Read("cp1", "pki/apiserver.crt")), c.Read("cp1", "pki/root-ca.crt")...))
	}, id: "chain-incomplete", path: pki + "apiserver.crt"},

	{name: "an authority was renewed with its key and another name", brk: func(c *testpki.Cluster) { c.Rename("cp1", "front-proxy-ca", "front-proxy") },
		id: "authority-unknown", path: pki + "front-proxy-ca.crt", links: []int{13}, says: "the name"},
	{name: "etcd's authority was renewed with its key and another name", brk: func(c *testpki.Cluster) { c.Rename("cp1", "etcd/ca", "etcd") },
		id: "authority-unknown", path: pki + "etcd/ca.crt", links: []int{1, 2, 3, 15}, says: "the name"},

	// Usages and identities.
	{name: "a leaf may sign code", brk: func(c *testpki.Cluster) {
		c.Reissue("cp1", "apiserver", "ca", usages(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageCodeSigning))
	}, id: "usage-excess", path: pki + "apiserver.crt"},
	{name: "a leaf may sign others by its key usage alone", brk: func(c *testpki.Cluster) {
		c.Reissue("cp1", "apiserver", "ca", func(x *x509.Certificate) { x.KeyUsage |= x509.KeyUsageCertSign })
	}, id: "usage-excess", path: pki + "apiserver.crt"},
	{name: "a kubeconfig's certificate may sign others", brk: func(c *testpki.Cluster) {
		c.ReissueConf("cp1", "admin.conf", "ca", func(x *x509.Certificate) { x.IsCA = true })
	}, id: "usage-excess", path: "/etc/kubernetes/admin.conf"},
	{name: "a peer's certificate is for clients alone", brk: func(c *testpki.Cluster) { c.Reissue("cp1", "etcd/peer", "etcd/ca", usages(x509.ExtKeyUsageClientAuth)) },
		id: "usage-missing", path: pki + "etcd/peer.crt", links: []int{1}},
	{name: "serials of one authority meet on two nodes", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		one := func(x *x509.Certificate) { x.SerialNumber = big.NewInt(0x0a0b) }
		c.Reissue("cp1", "apiserver", "ca", one)
		c.Reissue("cp2", "apiserver", "ca", one)
	}, id: "serial-duplicate", node: "cp2", path: pki + "apiserver.crt", says: "0A0B"},
	{name: "serials of a kubeconfig and a file meet", brk: func(c *testpki.Cluster) {
		one := func(x *x509.Certificate) { x.SerialNumber = big.NewInt(1) }
		c.Reissue("cp1", "apiserver", "ca", one)
		c.ReissueConf("cp1", "scheduler.conf", "ca", one)
	}, id: "serial-duplicate", path: "/etc/kubernetes/scheduler.conf", says: "serial 01"},
	{name: "a kubelet is a master too", brk: func(c *testpki.Cluster) {
		c.ReissueConf("cp1", "kubelet.conf", "ca", named("system:node:cp1", "system:nodes", "system:masters"))
	}, id: "identity-privileged", path: "/etc/kubernetes/kubelet.conf"},
	{name: "super-admin is no master", brk: func(c *testpki.Cluster) {
		c.ReissueConf("cp1", "super-admin.conf", "ca", named("kubernetes-super-admin"))
	},
		id: "identity-wrong", path: "/etc/kubernetes/super-admin.conf", links: []int{9}},
	{name: "the node's name is in capitals", brk: func(c *testpki.Cluster) {
		c.ReissueConf("cp1", "kubelet.conf", "ca", named("system:node:CP1", "system:nodes"))
	}, id: "identity-wrong", path: "/etc/kubernetes/kubelet.conf", links: []int{8}},
	{name: "a node has an empty name", brk: func(c *testpki.Cluster) {
		c.ReissueConf("cp1", "kubelet.conf", "ca", named("system:node:", "system:nodes"))
	},
		id: "identity-wrong", path: "/etc/kubernetes/kubelet.conf", links: []int{8}},
	{name: "the controller-manager is the scheduler", brk: func(c *testpki.Cluster) {
		c.ReissueConf("cp1", "controller-manager.conf", "ca", named("system:kube-scheduler"))
	}, id: "identity-wrong", path: "/etc/kubernetes/controller-manager.conf", links: []int{5}},
	{name: "an apiserver has names in its CN alone", brk: func(c *testpki.Cluster) {
		c.Reissue("cp1", "apiserver", "ca", func(x *x509.Certificate) { x.DNSNames, x.IPAddresses = nil, nil })
	}, id: "san-missing", path: pki + "apiserver.crt"},
	{name: "a peer has no names", brk: func(c *testpki.Cluster) {
		c.Reissue("cp1", "etcd/peer", "etcd/ca", func(x *x509.Certificate) { x.DNSNames, x.IPAddresses = nil, nil })
	}, id: "san-missing", path: pki + "etcd/peer.crt", links: []int{1}},
	{name: "etcd's serving certificate holds the address as a DNS name", brk: func(c *testpki.Cluster) {
		c.Reissue("cp1", "etcd/server", "etcd/ca", func(x *x509.Certificate) {
			without("10.0.0.11")(x)
			x.DNSNames = append(x.DNSNames, "10.0.0.11")
		})
	}, id: "san-missing", path: pki + "etcd/server.crt"},
	{name: "an apiserver certificate is of another control plane", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		c.Copy("cp1", "pki/apiserver.crt", "cp2", "pki/apiserver.crt")
		c.Copy("cp1", "pki/apiserver.key", "cp2", "pki/apiserver.key")
	}, id: "san-missing", node: "cp2", path: pki + "apiserver.crt"},
	{name: "both pairs of two roles are swapped", brk: func(c *testpki.Cluster) {
		swap(c, "pki/apiserver.crt", "pki/front-proxy-client.crt")
		swap(c, "pki/apiserver.key", "pki/front-proxy-client.key")
	}, id: "authority-unknown", path: pki + "apiserver.crt", says: "swapped"},
	{name: "etcd's and the cluster's authorities are swapped, keys and all", brk: func(c *testpki.Cluster) {
		swap(c, "pki/ca.crt", "pki/etcd/ca.crt")
		swap(c, "pki/ca.key", "pki/etcd/ca.key")
	}, id: "authority-unknown", path: pki + "ca.crt", says: "swapped", wide: true},
	{name: "etcd's and the cluster's authorities are swapped, without their keys", brk: func(c *testpki.Cluster) {
		swap(c, "pki/ca.crt", "pki/etcd/ca.crt")
	}, id: "ca-key-mismatch", path: pki + "ca.crt", says: "swapped", wide: true},
	{name: "kubeconfigs of two components are swapped", brk: func(c *testpki.Cluster) { swap(c, "scheduler.conf", "controller-manager.conf") },
		id: "identity-wrong", path: "/etc/kubernetes/controller-manager.conf", links: []int{5, 6}, says: "swapped"},
	{name: "a leaf on P-224 stands in a kubeconfig", brk: func(c *testpki.Cluster) {
		key := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
		c.LeafKey("cp1", "apiserver-kubelet-client", "ca", key)
	}, id: "key-weak", path: pki + "apiserver-kubelet-client.crt", links: []int{11}},
}

func span(a, b time.Time) testpki.Change {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = a, b }
}

// everywhere signs an authority of three control planes anew, with its key.
func everywhere(c *testpki.Cluster, name string, change testpki.Change) {
	c.Resign("cp1", name, change)
	for _, n := range []string{"cp2", "cp3"} {
		c.Copy("cp1", "pki/"+name+".crt", n, "pki/"+name+".crt")
	}
}

// withAuthority lends a worker the key of the cluster's authority.
func withAuthority(c *testpki.Cluster, node string, do func()) {
	c.Copy("cp1", "pki/ca.key", node, "pki/ca.key")
	do()
	c.Remove(node, "pki/ca.key")
}

// resignRoot signs the root of three intermediates anew, wherever it stands.
func resignRoot(c *testpki.Cluster, change testpki.Change) {
	old := string(c.Read("cp1", "pki/root-ca.crt"))
	a := rootAuthority(c)
	fresh := c.Sign(a.Certificate, a, func(x *x509.Certificate) {
		x.MaxPathLen = -1
		change(x)
	})
	c.Write("cp1", "pki/root-ca.crt", fresh)
	for _, conf := range []string{"admin.conf", "super-admin.conf", "kubelet.conf", "controller-manager.conf", "scheduler.conf"} {
		if ca := c.ConfCA("cp1", conf); string(ca) == old {
			c.SetConfCA("cp1", conf, fresh)
		}
	}
}

// rootAuthority is the root of three intermediates: its key is on no node.
func rootAuthority(c *testpki.Cluster) issue.Authority {
	key := must(os.ReadFile(filepath.Join(c.Dir, catalog.AuthoritiesDir, "root-ca.key")))
	return issue.Authority{Certificate: certificates(c, "cp1", "pki/root-ca.crt")[0], Key: must(issue.ParsePrivateKey(key))}
}

// shownIntermediate signs the intermediate that apiserver.crt shows anew.
func shownIntermediate(c *testpki.Cluster, change testpki.Change) {
	fresh := c.Sign(certificates(c, "cp1", "pki/apiserver.crt")[1], rootAuthority(c), change)
	c.Write("cp1", "pki/apiserver.crt", append(firstOf(c.Read("cp1", "pki/apiserver.crt")), fresh...))
}

// expiredAnchor is an authority that ended before the cluster was made.
func expiredAnchor(c *testpki.Cluster, name string) []byte {
	cert, key := c.Read("cp1", "pki/ca.crt"), c.Read("cp1", "pki/ca.key")
	c.Recreate("cp1", "ca")
	c.Rename("cp1", "ca", name)
	a := c.Resign("cp1", "ca", span(testpki.Made.AddDate(-9, 0, 0), testpki.Made.AddDate(-1, 0, 0)))
	c.Write("cp1", "pki/ca.crt", cert)
	c.Write("cp1", "pki/ca.key", key)
	return trust.EncodeCertificates(a.Certificate)
}

// renewEverything gives all of a node's credentials other dates.
func renewEverything(c *testpki.Cluster, node string, start, end time.Time) {
	ca := span(start.Add(-time.Hour), end)
	for name, leaves := range map[string][]string{
		"ca": {"apiserver", "apiserver-kubelet-client"}, "front-proxy-ca": {"front-proxy-client"},
		"etcd/ca": {"etcd/server", "etcd/peer", "etcd/healthcheck-client", "apiserver-etcd-client"},
	} {
		a := c.Resign(node, name, ca)
		for _, leaf := range leaves {
			c.Reissue(node, leaf, name, ca)
		}
		for _, conf := range []string{"admin.conf", "super-admin.conf", "kubelet.conf", "controller-manager.conf", "scheduler.conf"} {
			if name == "ca" {
				c.ReissueConf(node, conf, name, ca)
				c.SetConfCA(node, conf, trust.EncodeCertificates(a.Certificate))
			}
		}
	}
}
