package check_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

var allConfs = []string{"admin.conf", "super-admin.conf", "kubelet.conf", "controller-manager.conf", "scheduler.conf"}

// fileTwins are unusual forms of files.
var fileTwins = []twin{
	{name: "keys are PKCS#1, PKCS#8 and SEC1 with parameters before", change: func(t *testing.T, c *testpki.Cluster) {
		key := must(rsa.GenerateKey(rand.Reader, 2048))
		c.LeafKey("cp1", "apiserver", "ca", key)
		c.Write("cp1", "pki/apiserver.key", pem.EncodeToMemory(&pem.Block{Type: trust.RSAKeyType, Bytes: x509.MarshalPKCS1PrivateKey(key)}))
		ec := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
		c.LeafKey("cp1", "front-proxy-client", "front-proxy-ca", ec)
		parameters := pem.EncodeToMemory(&pem.Block{Type: trust.ECParametersType, Bytes: []byte{6, 5, 0x2b, 0x81, 4, 0, 0x22}})
		c.Write("cp1", "pki/front-proxy-client.key", append(parameters, pem.EncodeToMemory(&pem.Block{Type: trust.ECKeyType, Bytes: must(x509.MarshalECPrivateKey(ec))})...))
		_, edwards, _ := ed25519.GenerateKey(rand.Reader)
		c.LeafKey("cp1", "etcd/peer", "etcd/ca", edwards)
		token := must(rsa.GenerateKey(rand.Reader, 2048))
		c.Write("cp1", "pki/sa.key", pem.EncodeToMemory(&pem.Block{Type: trust.RSAKeyType, Bytes: x509.MarshalPKCS1PrivateKey(token)}))
		c.Write("cp1", "pki/sa.pub", pem.EncodeToMemory(&pem.Block{Type: trust.RSAPublicKeyType, Bytes: x509.MarshalPKCS1PublicKey(&token.PublicKey)}))
	}},
	{name: "sa.pub is a certificate", change: func(t *testing.T, c *testpki.Cluster) {
		key := must(issue.ParsePrivateKey(c.Read("cp1", "pki/sa.key")))
		x := &x509.Certificate{SerialNumber: big.NewInt(9), NotBefore: testpki.Made, NotAfter: testpki.Made.AddDate(9, 0, 0)}
		der := must(x509.CreateCertificate(rand.Reader, x, x, key.Public(), key))
		c.Write("cp1", "pki/sa.pub", pem.EncodeToMemory(&pem.Block{Type: trust.CertificateType, Bytes: der}))
	}},
	{name: "sa.pub is a certificate that expired, for nobody looks at its dates", change: func(t *testing.T, c *testpki.Cluster) {
		key := must(issue.ParsePrivateKey(c.Read("cp1", "pki/sa.key")))
		x := &x509.Certificate{SerialNumber: big.NewInt(9), NotBefore: testpki.Made.AddDate(-2, 0, 0), NotAfter: testpki.Made.AddDate(-1, 0, 0)}
		der := must(x509.CreateCertificate(rand.Reader, x, x, key.Public(), key))
		c.Write("cp1", "pki/sa.pub", pem.EncodeToMemory(&pem.Block{Type: trust.CertificateType, Bytes: der}))
	}},
	{name: "sa.pub is the private key itself, closed to others", change: func(t *testing.T, c *testpki.Cluster) {
		c.Copy("cp1", "pki/sa.key", "cp1", "pki/sa.pub")
		c.Chmod("cp1", "pki/sa.pub", 0o600)
	}},
	{name: "a bundle holds one certificate twice", change: func(t *testing.T, c *testpki.Cluster) {
		c.Write("cp1", "pki/front-proxy-ca.crt", append(c.Read("cp1", "pki/front-proxy-ca.crt"), c.Read("cp1", "pki/front-proxy-ca.crt")...))
		c.SetConfCA("cp1", "admin.conf", append(c.Read("cp1", "pki/ca.crt"), c.Read("cp1", "pki/ca.crt")...))
	}},
	{name: "empty lines and text stand between blocks, and none at the end", change: func(t *testing.T, c *testpki.Cluster) {
		text := c.Read("cp1", "pki/front-proxy-ca.crt")
		c.Write("cp1", "pki/front-proxy-ca.crt", append([]byte("\n\nBag Attributes\n    friendlyName: x\n\n"), []byte(strings.TrimSpace(string(text)))...))
		confData(c, "admin.conf", "certificate-authority-data", func(raw []byte) []byte { return append([]byte("\n\n# the authority\n"), raw...) })
	}},
	{name: "a byte order mark stands before a comment", change: func(t *testing.T, c *testpki.Cluster) {
		c.Write("cp1", "pki/apiserver.crt", append([]byte("\ufeff# apiserver\n"), c.Read("cp1", "pki/apiserver.crt")...))
	}},
	{name: "a leaf's file holds its authority too, root and all", change: func(t *testing.T, c *testpki.Cluster) {
		c.Write("cp1", "pki/apiserver.crt", append(c.Read("cp1", "pki/apiserver.crt"), c.Read("cp1", "pki/ca.crt")...))
		confData(c, "admin.conf", "client-certificate-data", func(raw []byte) []byte { return append(raw, c.Read("cp1", "pki/ca.crt")...) })
	}},
	{name: "a chain holds the root too", kind: testpki.Intermediate, change: func(t *testing.T, c *testpki.Cluster) {
		c.Write("cp1", "pki/apiserver.crt", append(c.Read("cp1", "pki/apiserver.crt"), c.Read("cp1", "pki/root-ca.crt")...))
	}},
	{name: "a leaf's file holds a certificate that has nothing to do with it", change: func(t *testing.T, c *testpki.Cluster) {
		c.Write("cp1", "pki/apiserver.crt", append(c.Read("cp1", "pki/apiserver.crt"), c.Read("cp1", "pki/etcd/peer.crt")...))
	}},
	{name: "a key's file holds a second key and the certificate", change: func(t *testing.T, c *testpki.Cluster) {
		c.Write("cp1", "pki/apiserver.key", append(append(c.Read("cp1", "pki/apiserver.key"), c.Read("cp1", "pki/etcd/peer.key")...), c.Read("cp1", "pki/apiserver.crt")...))
	}},
	{name: "one file holds certificate and key", change: func(t *testing.T, c *testpki.Cluster) {
		c.Write("cp1", "pki/both.pem", append(c.Read("cp1", "pki/apiserver.crt"), c.Read("cp1", "pki/apiserver.key")...))
		setFlag("kube-apiserver", "tls-cert-file", pki+"apiserver.crt", pki+"both.pem")(c)
		setFlag("kube-apiserver", "tls-private-key-file", pki+"apiserver.key", pki+"both.pem")(c)
	}},
	{name: "the certificates' folder is a link to another place", change: func(t *testing.T, c *testpki.Cluster) {
		os.MkdirAll(c.Path("cp1", "/srv"), 0o755)
		os.Rename(c.Path("cp1", "pki"), c.Path("cp1", "/srv/pki"))
		os.Symlink("/srv/pki", c.Path("cp1", "pki"))
	}},
	{name: "certificates are relative links, one over another", change: func(t *testing.T, c *testpki.Cluster) {
		os.Rename(c.Path("cp1", "pki/apiserver.crt"), c.Path("cp1", "pki/apiserver-2.crt"))
		os.Symlink("apiserver-2.crt", c.Path("cp1", "pki/apiserver-1.crt"))
		os.Symlink("../pki/apiserver-1.crt", c.Path("cp1", "pki/apiserver.crt"))
	}},
	{name: "a link leads above the root, and so to it", change: func(t *testing.T, c *testpki.Cluster) {
		os.Rename(c.Path("cp1", "pki/sa.pub"), c.Path("cp1", "/sa.pub"))
		os.Symlink("../../../../../../../sa.pub", c.Path("cp1", "pki/sa.pub"))
	}},
	{name: "admin.conf was taken away, and super-admin.conf", change: func(t *testing.T, c *testpki.Cluster) {
		c.Remove("cp1", "admin.conf")
		c.Remove("cp1", "super-admin.conf")
	}},
	{name: "folders are open to readers, keys to their owner alone", change: func(t *testing.T, c *testpki.Cluster) {
		c.Chmod("cp1", "pki", 0o755)
		c.Chmod("cp1", "pki/etcd", 0o775)
		c.Chmod("cp1", "pki/ca.key", 0o400)
	}},
	{name: "files that nobody names lie about", change: func(t *testing.T, c *testpki.Cluster) {
		c.Write("cp1", "pki/apiserver.crt.bak", []byte("junk"))
		c.Write("cp1", "pki/old-ca.crt", []byte("junk"))
		c.Write("cp1", "manifests/.kube-apiserver.yaml.swp", []byte("junk"))
		c.Write("cp1", "admin.conf.orig", []byte("junk"))
	}},
	{name: "an authority is signed with SHA-1 by itself", change: func(t *testing.T, c *testpki.Cluster) { c.Resign("cp1", "front-proxy-ca", sha1) }},
	{name: "an authority names no key usage", change: func(t *testing.T, c *testpki.Cluster) {
		c.Resign("cp1", "front-proxy-ca", func(x *x509.Certificate) { x.KeyUsage = 0 })
	}},
	{name: "an authority allows none below it, and has none", change: func(t *testing.T, c *testpki.Cluster) {
		c.Resign("cp1", "ca", func(x *x509.Certificate) { x.MaxPathLen, x.MaxPathLenZero = 0, true })
	}},
	{name: "an authority is constrained to what its leaves have", change: func(t *testing.T, c *testpki.Cluster) {
		c.Resign("cp1", "etcd/ca", func(x *x509.Certificate) {
			x.PermittedDNSDomainsCritical = true
			x.PermittedDNSDomains, x.ExcludedDNSDomains = []string{"cp1", "localhost"}, []string{"example.test"}
			x.PermittedIPRanges = []*net.IPNet{{IP: net.IPv4(10, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}, {IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}, {IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)}}
		})
	}},
	{name: "an RSA leaf may encipher keys and not sign, as the recipes for OpenSSL in Kubernetes' documents have it", change: func(t *testing.T, c *testpki.Cluster) {
		c.LeafKey("cp1", "apiserver", "ca", must(rsa.GenerateKey(rand.Reader, 2048)))
		c.Reissue("cp1", "apiserver", "ca", func(x *x509.Certificate) {
			x.KeyUsage = x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment
			x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		})
	}},
	{name: "a leaf ends with its authority", change: func(t *testing.T, c *testpki.Cluster) {
		c.Reissue("cp1", "apiserver", "ca", until(c.Authority("cp1", "ca").Certificate.NotAfter))
	}},
	{name: "a leaf is in its last second", at: days(40), change: func(t *testing.T, c *testpki.Cluster) {
		// Ten times shorter than the window of warnings: it lives an instant.
		c.Reissue("cp1", "front-proxy-client", "front-proxy-ca", span(days(40), days(41)))
	}},
	{name: "serials of two authorities are equal", change: func(t *testing.T, c *testpki.Cluster) {
		one := func(x *x509.Certificate) { x.SerialNumber = big.NewInt(2) }
		c.Reissue("cp1", "apiserver", "ca", one)
		c.Reissue("cp1", "etcd/server", "etcd/ca", one)
		c.Reissue("cp1", "front-proxy-client", "front-proxy-ca", one)
	}},
}

// rotationTwins are steps of a rotation that breaks nothing.
var rotationTwins = []twin{
	{name: "an authority was renewed with its key, and every copy is the older one", kind: testpki.HA, change: func(t *testing.T, c *testpki.Cluster) {
		everywhere(c, "ca", until(testpki.Made.AddDate(20, 0, 0)))
		everywhere(c, "etcd/ca", until(testpki.Made.AddDate(20, 0, 0)))
	}},
	{name: "an authority was renewed with its key, on one node alone", kind: testpki.HA, change: func(t *testing.T, c *testpki.Cluster) {
		c.Resign("cp2", "ca", until(testpki.Made.AddDate(20, 0, 0)))
		c.Resign("cp3", "front-proxy-ca", until(testpki.Made.AddDate(20, 0, 0)))
		c.Resign("cp1", "etcd/ca", until(testpki.Made.AddDate(20, 0, 0)))
	}},
	{name: "an expired authority of the same name stands beside the good one", change: func(t *testing.T, c *testpki.Cluster) {
		old := expiredAnchor(c, "kubernetes")
		c.SetConfCA("cp1", "scheduler.conf", append(old, c.Read("cp1", "pki/ca.crt")...))
	}},
	{name: "an expired authority of another name stands beside the good one", change: func(t *testing.T, c *testpki.Cluster) {
		old := expiredAnchor(c, "long ago")
		c.SetConfCA("cp1", "scheduler.conf", append(old, c.Read("cp1", "pki/ca.crt")...))
		c.Write("cp1", "pki/clients.crt", append(c.Read("cp1", "pki/ca.crt"), old...))
		setFlag("kube-apiserver", "client-ca-file", pki+"ca.crt", pki+"clients.crt")(c)
	}},
	{name: "an expired authority stands behind the good one in its own file", change: func(t *testing.T, c *testpki.Cluster) {
		signingFile(c, "cp1")
		c.Write("cp1", "pki/ca.crt", append(c.Read("cp1", "pki/ca.crt"), expiredAnchor(c, "kubernetes")...))
	}},
	{name: "an old authority that ends soon stands beside the new one", at: testpki.Made.AddDate(0, 0, 20), change: func(t *testing.T, c *testpki.Cluster) {
		cert, key := c.Read("cp1", "pki/ca.crt"), c.Read("cp1", "pki/ca.key")
		c.Recreate("cp1", "ca")
		old := trust.EncodeCertificates(c.Resign("cp1", "ca", until(days(25))).Certificate)
		c.Write("cp1", "pki/ca.crt", cert)
		c.Write("cp1", "pki/ca.key", key)
		c.SetConfCA("cp1", "scheduler.conf", append(old, cert...))
	}},
	{name: "an authority that begins tomorrow is trusted already", change: func(t *testing.T, c *testpki.Cluster) {
		cert, key := c.Read("cp1", "pki/ca.crt"), c.Read("cp1", "pki/ca.key")
		c.Recreate("cp1", "ca")
		next := trust.EncodeCertificates(c.Resign("cp1", "ca", from(testpki.At.AddDate(0, 0, 1))).Certificate)
		c.Write("cp1", "pki/ca.crt", cert)
		c.Write("cp1", "pki/ca.key", key)
		c.SetConfCA("cp1", "scheduler.conf", append(cert, next...))
	}},
	{name: "authorities are signed by each other too", change: func(t *testing.T, c *testpki.Cluster) {
		cert, key := c.Read("cp1", "pki/ca.crt"), c.Read("cp1", "pki/ca.key")
		fresh := c.Recreate("cp1", "ca")
		c.Write("cp1", "pki/ca.crt", cert)
		c.Write("cp1", "pki/ca.key", key)
		old := c.Authority("cp1", "ca")
		// The scheduler has a certificate of the new one, and shows the old one's word for it.
		cross := c.Sign(fresh.Certificate, old, nil)
		c.Write("cp1", "pki/new.crt", trust.EncodeCertificates(fresh.Certificate))
		c.Write("cp1", "pki/new.key", must(issue.EncodePrivateKey(fresh.Key)))
		c.ReissueConf("cp1", "scheduler.conf", "new", nil)
		confData(c, "scheduler.conf", "client-certificate-data", func(raw []byte) []byte { return append(raw, cross...) })
	}},
	{name: "a cross-signed authority stands in a bundle in the place of its root", change: func(t *testing.T, c *testpki.Cluster) {
		cross := c.Sign(c.Authority("cp1", "ca").Certificate, c.Authority("cp1", "etcd/ca"), nil)
		c.SetConfCA("cp1", "scheduler.conf", cross)
	}},
	{name: "the authority's own file holds the new one alone, and all bundles both", change: func(t *testing.T, c *testpki.Cluster) {
		for _, name := range []string{"ca", "etcd/ca"} {
			old := c.Read("cp1", "pki/"+name+".crt")
			fresh := c.Recreate("cp1", name)
			both := append(old, trust.EncodeCertificates(fresh.Certificate)...)
			c.Write("cp1", "pki/"+name+"-bundle.crt", both)
			if name == "ca" {
				for _, conf := range allConfs {
					c.SetConfCA("cp1", conf, both)
				}
			}
		}
		setFlag("kube-apiserver", "client-ca-file", pki+"ca.crt", pki+"ca-bundle.crt")(c)
		setFlag("kube-controller-manager", "root-ca-file", pki+"ca.crt", pki+"ca-bundle.crt")(c)
		setFlag("kube-apiserver", "etcd-cafile", pki+"etcd/ca.crt", pki+"etcd/ca-bundle.crt")(c)
		setFlag("etcd", "trusted-ca-file", pki+"etcd/ca.crt", pki+"etcd/ca-bundle.crt")(c)
		setFlag("etcd", "peer-trusted-ca-file", pki+"etcd/ca.crt", pki+"etcd/ca-bundle.crt")(c)
		kubelet(c, "authentication: {x509: {clientCAFile: /etc/kubernetes/pki/ca-bundle.crt}}")
		// kubeadm's probes know no other file.
		c.Remove("cp1", "pki/etcd/healthcheck-client.crt")
		c.Remove("cp1", "pki/etcd/healthcheck-client.key")
	}},
	{name: "three apiservers have issuers of tokens in another order", kind: testpki.HA, change: func(t *testing.T, c *testpki.Cluster) {
		const issuer = "    - --service-account-issuer=https://kubernetes.default.svc.cluster.local\n"
		other := "    - --service-account-issuer=https://issuer.example.test\n"
		c.Edit("cp1", "manifests/kube-apiserver.yaml", issuer, issuer+other)
		c.Edit("cp2", "manifests/kube-apiserver.yaml", issuer, other+issuer)
		c.Edit("cp3", "manifests/kube-apiserver.yaml", issuer, issuer+other)
	}},
	{name: "keys that verify tokens are in two files", kind: testpki.HA, change: func(t *testing.T, c *testpki.Cluster) {
		key := c.NewKey("cp2", "pki/sa.key", issue.ECDSAP256)
		c.Write("cp2", "pki/sa.pub", publicKey(key))
		for _, n := range []string{"cp1", "cp3"} {
			c.Write(n, "pki/sa-2.pub", publicKey(key))
			c.Edit(n, "manifests/kube-apiserver.yaml", "    - --service-account-key-file=/etc/kubernetes/pki/sa.pub\n",
				"    - --service-account-key-file=/etc/kubernetes/pki/sa.pub\n    - --service-account-key-file=/etc/kubernetes/pki/sa-2.pub\n")
		}
		c.Copy("cp1", "pki/sa.pub", "cp2", "pki/sa-1.pub")
		c.Edit("cp2", "manifests/kube-apiserver.yaml", "    - --service-account-key-file=/etc/kubernetes/pki/sa.pub\n",
			"    - --service-account-key-file=/etc/kubernetes/pki/sa.pub\n    - --service-account-key-file=/etc/kubernetes/pki/sa-1.pub\n")
	}},
}

// signingFile lets the controller-manager of a node sign with files of its own, so
// that ca.crt may be a bundle.
func signingFile(c *testpki.Cluster, node string) {
	c.Copy(node, "pki/ca.crt", node, "pki/ca-signing.crt")
	c.Copy(node, "pki/ca.key", node, "pki/ca-signing.key")
	for _, ext := range []string{"crt", "key"} {
		half := map[string]string{"crt": "cert", "key": "key"}[ext]
		c.Edit(node, "manifests/kube-controller-manager.yaml", "--cluster-signing-"+half+"-file=/etc/kubernetes/pki/ca."+ext, "--cluster-signing-"+half+"-file=/etc/kubernetes/pki/ca-signing."+ext)
	}
}
