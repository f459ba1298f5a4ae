package check_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

// fileMutations break what one file is, or what it holds.
var fileMutations = []mutation{
	{name: "a certificate is a FIFO", brk: func(c *testpki.Cluster) {
		c.Remove("cp1", "pki/apiserver.crt")
		syscall.Mkfifo(c.Path("cp1", "pki/apiserver.crt"), 0o644)
	}, id: "file-unreadable", path: pki + "apiserver.crt", says: "is a FIFO"},
	{name: "a kubeconfig is a FIFO", brk: func(c *testpki.Cluster) {
		c.Remove("cp1", "scheduler.conf")
		syscall.Mkfifo(c.Path("cp1", "scheduler.conf"), 0o600)
	}, id: "file-unreadable", path: "/etc/kubernetes/scheduler.conf", links: []int{6}},
	{name: "a key is huge", brk: func(c *testpki.Cluster) { c.Write("cp1", "pki/apiserver.key", bytes.Repeat([]byte("#\n"), 2<<20)) },
		id: "file-unreadable", path: pki + "apiserver.key", says: "larger than 1 MiB"},
	{name: "an authority is a folder", brk: func(c *testpki.Cluster) {
		c.Remove("cp1", "pki/front-proxy-ca.crt")
		os.Mkdir(c.Path("cp1", "pki/front-proxy-ca.crt"), 0o755)
	}, id: "file-unreadable", path: pki + "front-proxy-ca.crt", links: []int{13}},
	{name: "an authority is a dangling link", brk: func(c *testpki.Cluster) {
		c.Remove("cp1", "pki/etcd/ca.crt")
		os.Symlink("/etc/kubernetes/pki/etcd/gone.crt", c.Path("cp1", "pki/etcd/ca.crt"))
	}, id: "file-missing", path: pki + "etcd/ca.crt", says: "leads to /etc/kubernetes/pki/etcd/gone.crt"},
	{name: "a kubeconfig is a dangling link", brk: func(c *testpki.Cluster) {
		c.Remove("cp1", "kubelet.conf")
		os.Symlink("/root/gone.conf", c.Path("cp1", "kubelet.conf"))
	}, id: "file-missing", path: "/etc/kubernetes/kubelet.conf", links: []int{8}},
	{name: "two links lead to each other", brk: func(c *testpki.Cluster) {
		c.Remove("cp1", "pki/sa.pub")
		os.Symlink("sa.pem", c.Path("cp1", "pki/sa.pub"))
		os.Symlink("sa.pub", c.Path("cp1", "pki/sa.pem"))
	}, id: "file-unreadable", path: pki + "sa.pub", links: []int{12}, says: "loop"},
	{name: "the link to the kubelet's certificate leads nowhere", brk: func(c *testpki.Cluster) {
		currentLink(c)
		c.Remove("cp1", currentTarget)
	}, id: "file-missing", path: current, links: []int{8}},
	{name: "the kubelet's certificate stands without its key", brk: func(c *testpki.Cluster) {
		both := currentLink(c)
		cert, _ := pem.Decode(both)
		c.Write("cp1", currentTarget, pem.EncodeToMemory(cert))
	}, id: "key-malformed", path: current, links: []int{8}},
	{name: "both halves of a pair are missing", brk: func(c *testpki.Cluster) {
		c.Remove("cp1", "pki/apiserver-kubelet-client.crt")
		c.Remove("cp1", "pki/apiserver-kubelet-client.key")
	}, id: "file-missing", path: pki + "apiserver-kubelet-client.crt", links: []int{11}},
	{name: "all that etcd shows is missing but one key", brk: func(c *testpki.Cluster) { c.Remove("cp1", "pki/etcd/peer.crt") },
		id: "file-missing", path: pki + "etcd/peer.crt", links: []int{1}},
	{name: "a key is missing on one of three nodes", kind: testpki.HA, brk: func(c *testpki.Cluster) { c.Remove("cp3", "pki/apiserver.key") },
		id: "file-missing", node: "cp3", path: pki + "apiserver.key"},
	{name: "a worker's authority is missing", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		c.Copy("w1", "pki/ca.crt", "w1", "pki/other.crt")
		c.Write("w1", "pki/x.key", c.Read("cp1", "pki/apiserver.key"))
		c.Chmod("w1", "pki/x.key", 0o600)
		c.Remove("w1", "pki/ca.crt")
		os.Symlink("gone.crt", c.Path("w1", "pki/ca.crt"))
	}, id: "file-missing", node: "w1", path: pki + "ca.crt", links: []int{11}},

	{name: "a certificate holds NUL bytes", brk: func(c *testpki.Cluster) {
		text := c.Read("cp1", "pki/apiserver.crt")
		copy(text[100:], []byte{0, 0, 0})
		c.Write("cp1", "pki/apiserver.crt", text)
	}, id: "cert-malformed", path: pki + "apiserver.crt"},
	{name: "a certificate begins with a byte order mark, so that Go passes over it", brk: func(c *testpki.Cluster) {
		c.Write("cp1", "pki/apiserver.crt", append([]byte("\ufeff"), c.Read("cp1", "pki/apiserver.crt")...))
	}, id: "cert-malformed", path: pki + "apiserver.crt", says: "byte order mark"},
	{name: "an authority begins with a byte order mark", brk: func(c *testpki.Cluster) {
		c.Write("cp1", "pki/front-proxy-ca.crt", append([]byte("\ufeff"), c.Read("cp1", "pki/front-proxy-ca.crt")...))
	}, id: "cert-malformed", path: pki + "front-proxy-ca.crt", links: []int{13}},
	{name: "a key begins with a byte order mark", brk: func(c *testpki.Cluster) {
		c.Write("cp1", "pki/apiserver.key", append([]byte("\ufeff"), c.Read("cp1", "pki/apiserver.key")...))
	}, id: "key-malformed", path: pki + "apiserver.key"},
	{name: "a certificate is of OpenSSL's trusted kind", brk: func(c *testpki.Cluster) {
		block(c, "pki/apiserver.crt", func(b *pem.Block) { b.Type = "TRUSTED CERTIFICATE" })
	}, id: "cert-malformed", path: pki + "apiserver.crt", says: "TRUSTED CERTIFICATE"},
	{name: "an authority is of the old X509 kind", brk: func(c *testpki.Cluster) {
		block(c, "pki/etcd/ca.crt", func(b *pem.Block) { b.Type = "X509 CERTIFICATE" })
	}, id: "cert-malformed", path: pki + "etcd/ca.crt"},
	{name: "a request stands in the place of its certificate", brk: func(c *testpki.Cluster) {
		block(c, "pki/apiserver.crt", func(b *pem.Block) { b.Type = "CERTIFICATE REQUEST" })
	}, id: "cert-malformed", path: pki + "apiserver.crt", says: "CERTIFICATE REQUEST"},
	{name: "data stands after the DER of a certificate", brk: func(c *testpki.Cluster) {
		block(c, "pki/apiserver.crt", func(b *pem.Block) { b.Bytes = append(b.Bytes, 0) })
	}, id: "cert-malformed", path: pki + "apiserver.crt", says: "1 bytes after its DER"},
	{name: "data stands after the DER of a key", brk: func(c *testpki.Cluster) {
		block(c, "pki/apiserver.key", func(b *pem.Block) { b.Bytes = append(b.Bytes, 0, 0) })
	}, id: "key-malformed", path: pki + "apiserver.key"},
	{name: "data stands after the DER of an authority in a kubeconfig", brk: func(c *testpki.Cluster) {
		confData(c, "scheduler.conf", "certificate-authority-data", func(raw []byte) []byte {
			b, _ := pem.Decode(raw)
			b.Bytes = append(b.Bytes, 7)
			return pem.EncodeToMemory(b)
		})
	}, id: "cert-malformed", path: "/etc/kubernetes/scheduler.conf", field: "clusters[kubernetes].cluster.certificate-authority-data", links: []int{6}},
	{name: "a certificate was cut short", brk: func(c *testpki.Cluster) {
		text := c.Read("cp1", "pki/etcd/server.crt")
		c.Write("cp1", "pki/etcd/server.crt", text[:len(text)/2])
	}, id: "cert-malformed", path: pki + "etcd/server.crt", says: "has no end"},
	{name: "a certificate is empty", brk: func(c *testpki.Cluster) { c.Write("cp1", "pki/apiserver.crt", nil) },
		id: "cert-malformed", path: pki + "apiserver.crt"},
	{name: "a key is empty", brk: func(c *testpki.Cluster) { c.Write("cp1", "pki/apiserver.key", nil) },
		id: "key-malformed", path: pki + "apiserver.key"},
	{name: "sa.pub is empty", brk: func(c *testpki.Cluster) { c.Write("cp1", "pki/sa.pub", nil) },
		id: "key-malformed", path: pki + "sa.pub", links: []int{12}},
	{name: "sa.key is junk", brk: func(c *testpki.Cluster) { c.Write("cp1", "pki/sa.key", []byte("junk")) },
		id: "key-malformed", path: pki + "sa.key", links: []int{12}},
	{name: "the cluster's authority is junk", brk: func(c *testpki.Cluster) { c.Write("cp1", "pki/ca.crt", []byte("junk\n")) },
		id: "cert-malformed", path: pki + "ca.crt"},
	{name: "an authority's key is junk", brk: func(c *testpki.Cluster) { c.Write("cp1", "pki/ca.key", []byte("junk\n")) },
		id: "key-malformed", path: pki + "ca.key"},
	{name: "an authority's file holds comments alone", brk: func(c *testpki.Cluster) { c.Write("cp1", "pki/front-proxy-ca.crt", []byte("# none yet\n\n")) },
		id: "bundle-empty", path: pki + "front-proxy-ca.crt", links: []int{13}},
	{name: "a key is encrypted", brk: func(c *testpki.Cluster) {
		block(c, "pki/apiserver.key", func(b *pem.Block) { b.Type = "ENCRYPTED PRIVATE KEY" })
	}, id: "key-malformed", path: pki + "apiserver.key", says: "encrypted"},
	{name: "a key's file holds its certificate", brk: func(c *testpki.Cluster) { c.Copy("cp1", "pki/apiserver.crt", "cp1", "pki/apiserver.key") },
		id: "key-malformed", path: pki + "apiserver.key"},
	{name: "a key's file holds its public half", brk: func(c *testpki.Cluster) {
		key := must(issue.ParsePrivateKey(c.Read("cp1", "pki/apiserver.key")))
		c.Write("cp1", "pki/apiserver.key", publicKey(key))
	}, id: "key-malformed", path: pki + "apiserver.key"},
	{name: "a private key stands in an authority's certificate file", brk: func(c *testpki.Cluster) {
		c.Write("cp1", "pki/front-proxy-ca.crt", append(c.Read("cp1", "pki/front-proxy-ca.crt"), c.Read("cp1", "pki/front-proxy-ca.key")...))
		c.Chmod("cp1", "pki/front-proxy-ca.crt", 0o600)
	}, id: "cert-malformed", path: pki + "front-proxy-ca.crt"},
	{name: "a kubeconfig's certificate is no PEM", brk: func(c *testpki.Cluster) {
		confData(c, "admin.conf", "client-certificate-data", func([]byte) []byte { return []byte("junk") })
	}, id: "cert-malformed", path: "/etc/kubernetes/admin.conf", field: "users[kubernetes-admin].user.client-certificate-data", links: []int{9}},
	{name: "a kubeconfig's key is no PEM", brk: func(c *testpki.Cluster) {
		confData(c, "admin.conf", "client-key-data", func([]byte) []byte { return []byte("junk") })
	}, id: "key-malformed", path: "/etc/kubernetes/admin.conf", field: "users[kubernetes-admin].user.client-key-data", links: []int{9}},

	// Kubeconfigs.
	{name: "a kubeconfig is empty", brk: func(c *testpki.Cluster) { c.Write("cp1", "scheduler.conf", nil) },
		id: "kubeconfig-broken", path: "/etc/kubernetes/scheduler.conf", field: "current-context", links: []int{6}},
	{name: "a kubeconfig has no current context", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "scheduler.conf", "current-context: system:kube-scheduler@kubernetes\n", "")
	}, id: "kubeconfig-broken", path: "/etc/kubernetes/scheduler.conf", field: "current-context", links: []int{6}},
	{name: "a kubeconfig's current context dangles", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "scheduler.conf", "current-context: system:kube-scheduler@kubernetes\n", "current-context: other\n")
	}, id: "kubeconfig-broken", path: "/etc/kubernetes/scheduler.conf", field: "current-context", links: []int{6}},
	{name: "a kubeconfig's cluster dangles", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "scheduler.conf", "    cluster: kubernetes\n", "    cluster: other\n")
	}, id: "kubeconfig-broken", path: "/etc/kubernetes/scheduler.conf", field: "contexts[system:kube-scheduler@kubernetes].context.cluster", links: []int{6}},
	{name: "a kubeconfig has an authority as data and as file", brk: func(c *testpki.Cluster) {
		confLine(c, "scheduler.conf", "    server: https://10.0.0.11:6443\n", "    certificate-authority: /etc/kubernetes/pki/ca.crt\n")
	}, id: "kubeconfig-broken", path: "/etc/kubernetes/scheduler.conf", field: "clusters[kubernetes].cluster.certificate-authority", links: []int{6}},
	{name: "a kubeconfig has a certificate as data and as file", brk: func(c *testpki.Cluster) {
		confLine(c, "scheduler.conf", "  user:\n", "    client-certificate: /etc/kubernetes/pki/apiserver-kubelet-client.crt\n")
	}, id: "kubeconfig-broken", path: "/etc/kubernetes/scheduler.conf", field: "users[system:kube-scheduler].user.client-certificate", links: []int{6}},
	{name: "a kubeconfig's certificate is no base64", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "scheduler.conf", "client-certificate-data: L", "client-certificate-data: !L")
	}, id: "kubeconfig-broken", path: "/etc/kubernetes/scheduler.conf", links: []int{6}},
	{name: "a kubeconfig's authority is no base64", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "scheduler.conf", "certificate-authority-data: L", "certificate-authority-data: '*L")
		c.Edit("cp1", "scheduler.conf", "    server: https", "    x: '\n    server: https")
	}, id: "kubeconfig-broken", path: "/etc/kubernetes/scheduler.conf", links: []int{6}},
	{name: "a kubeconfig has a certificate and no key", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "scheduler.conf", "    client-key-data: "+confField(c, "scheduler.conf", "client-key-data: ")+"\n", "")
	}, id: "kubeconfig-broken", path: "/etc/kubernetes/scheduler.conf", field: "users[system:kube-scheduler].user.client-key", links: []int{6}},
	{name: "a kubeconfig names a file that is not there", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "scheduler.conf", "certificate-authority-data: "+confField(c, "scheduler.conf", "certificate-authority-data: "), "certificate-authority: pki/gone.crt")
	}, id: "file-missing", path: pki + "gone.crt", links: []int{6}},
	{name: "a kubeconfig verifies nothing, and holds an authority too", brk: func(c *testpki.Cluster) {
		confLine(c, "scheduler.conf", "    server: https://10.0.0.11:6443\n", "    insecure-skip-tls-verify: true\n")
	}, id: "verify-off", path: "/etc/kubernetes/scheduler.conf", field: "clusters[kubernetes].cluster.insecure-skip-tls-verify"},

	// Permissions.
	{name: "others may write a key", brk: func(c *testpki.Cluster) { c.Chmod("cp1", "pki/apiserver.key", 0o602) },
		id: "key-permissions", path: pki + "apiserver.key"},
	{name: "a group may write a kubeconfig", brk: func(c *testpki.Cluster) { c.Chmod("cp1", "scheduler.conf", 0o620) },
		id: "key-permissions", path: "/etc/kubernetes/scheduler.conf", severity: check.Warning},
	{name: "others may write into the folder of kubeconfigs", brk: func(c *testpki.Cluster) { c.Chmod("cp1", ".", 0o757) },
		id: "key-permissions", path: "/etc/kubernetes"},
	{name: "a private key stands where everybody reads public ones", brk: func(c *testpki.Cluster) {
		c.Copy("cp1", "pki/sa.key", "cp1", "pki/sa.pub")
		c.Chmod("cp1", "pki/sa.pub", 0o644)
	},
		id: "key-permissions", path: pki + "sa.pub"},
	{name: "the kubelet's own key is open to others", brk: func(c *testpki.Cluster) {
		currentLink(c)
		c.Chmod("cp1", currentTarget, 0o644)
	}, id: "key-permissions", path: current},
	{name: "a worker's kubeconfig is open to others", kind: testpki.HA, brk: func(c *testpki.Cluster) { c.Chmod("w1", "kubelet.conf", 0o644) },
		id: "key-permissions", node: "w1", path: "/etc/kubernetes/kubelet.conf"},
	{name: "every key of a node was copied open to others", brk: func(c *testpki.Cluster) {
		filepath.WalkDir(c.Path("cp1", "."), func(path string, d fs.DirEntry, err error) error {
			if strings.HasSuffix(path, ".key") || strings.HasSuffix(path, ".conf") {
				os.Chmod(path, 0o644)
			}
			return err
		})
	}, id: "key-permissions", path: "/etc/kubernetes/admin.conf", says: "16 files", wide: true},

	// Keys.
	{name: "a leaf's RSA key has a small exponent", brk: func(c *testpki.Cluster) { c.LeafKey("cp1", "apiserver", "ca", smallExponent()) },
		id: "key-weak", path: pki + "apiserver.crt", says: "exponent 3"},
	{name: "the key of tokens is weak", brk: func(c *testpki.Cluster) {
		key := must(rsa.GenerateKey(rand.Reader, 1024))
		c.Write("cp1", "pki/sa.key", must(issue.EncodePrivateKey(key)))
		c.Write("cp1", "pki/sa.pub", publicKey(key))
	}, id: "key-weak", path: pki + "sa.key", says: "1024 bits"},
	{name: "an authority's key is weak", brk: func(c *testpki.Cluster) {
		rsaAuthority(c, "front-proxy-ca", must(rsa.GenerateKey(rand.Reader, 1024)), "front-proxy-client")
	}, id: "key-weak", path: pki + "front-proxy-ca.crt"},
	{name: "a leaf is signed with MD5", brk: func(c *testpki.Cluster) {
		key := must(rsa.GenerateKey(rand.Reader, 2048))
		rsaAuthority(c, "front-proxy-ca", key, "front-proxy-client")
		c.Write("cp1", "pki/front-proxy-client.crt", withMD5(certificates(c, "cp1", "pki/front-proxy-client.crt")[0], key))
	}, id: "key-weak", path: pki + "front-proxy-client.crt", links: []int{13}, says: "MD5"},
	{name: "a leaf is signed with SHA-1", brk: func(c *testpki.Cluster) { c.Reissue("cp1", "etcd/healthcheck-client", "etcd/ca", sha1) },
		id: "key-weak", path: pki + "etcd/healthcheck-client.crt", links: []int{15}, says: "SHA1"},
	{name: "a kubeconfig's certificate is signed with SHA-1", brk: func(c *testpki.Cluster) { c.ReissueConf("cp1", "admin.conf", "ca", sha1) },
		id: "key-weak", path: "/etc/kubernetes/admin.conf", links: []int{9}},
	{name: "the key of another certificate comes first in a key's file", brk: func(c *testpki.Cluster) {
		c.Write("cp1", "pki/apiserver.key", append(c.Read("cp1", "pki/etcd/server.key"), c.Read("cp1", "pki/apiserver.key")...))
	}, id: "key-mismatch", path: pki + "apiserver.key"},
	{name: "a kubelet's link holds another key", brk: func(c *testpki.Cluster) {
		both := currentLink(c)
		cert, _ := pem.Decode(both)
		c.NewKey("cp1", "/x.key", issue.ECDSAP256)
		c.Write("cp1", currentTarget, append(pem.EncodeToMemory(cert), c.Read("cp1", "/x.key")...))
		c.Remove("cp1", "/x.key")
	}, id: "key-mismatch", path: current, links: []int{8}},
	{name: "two certificates are swapped", brk: func(c *testpki.Cluster) { swap(c, "pki/apiserver.crt", "pki/front-proxy-client.crt") },
		id: "key-mismatch", path: pki + "apiserver.crt", says: "swapped"},
	{name: "two keys are swapped", brk: func(c *testpki.Cluster) { swap(c, "pki/etcd/server.key", "pki/etcd/peer.key") },
		id: "key-mismatch", path: pki + "etcd/peer.key", says: "swapped"},
	{name: "the service-account key of another node came with its public half", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		key := c.NewKey("cp3", "pki/sa.key", issue.ECDSAP256)
		c.Write("cp3", "pki/sa.pub", append(publicKey(key), c.Read("cp1", "pki/sa.pub")...))
		c.Write("cp1", "pki/sa.pub", append(publicKey(key), c.Read("cp1", "pki/sa.pub")...))
	}, id: "sa-verify-key-missing", node: "cp2", path: pki + "sa.pub", links: []int{12}},
	{name: "the key of tokens is of a kind that Kubernetes does not sign with", brk: func(c *testpki.Cluster) {
		c.Write("cp1", "pki/sa.pub", publicKey(c.NewKey("cp1", "pki/sa.key", issue.Ed25519)))
	}, id: "key-malformed", path: pki + "sa.key", says: "Ed25519"},
	{name: "a worker's kubeconfig is missing", kind: testpki.HA, brk: func(c *testpki.Cluster) { c.Remove("w1", "kubelet.conf") },
		id: "file-missing", node: "w1", path: "/etc/kubernetes/kubelet.conf", links: []int{8}},
	{name: "a worker's authority is missing", kind: testpki.HA, brk: func(c *testpki.Cluster) { c.Remove("w1", "pki/ca.crt") },
		id: "file-missing", node: "w1", path: pki + "ca.crt", links: []int{11}},
	{name: "an authority's key is another authority's", brk: func(c *testpki.Cluster) { c.Copy("cp1", "pki/etcd/ca.key", "cp1", "pki/front-proxy-ca.key") },
		id: "ca-key-mismatch", path: pki + "front-proxy-ca.key"},
}

const (
	current       = "/var/lib/kubelet/pki/kubelet-client-current.pem"
	currentTarget = "/var/lib/kubelet/pki/kubelet-client-2026-06-01-00-00-00.pem"
)

// currentLink lets cp1's kubelet.conf name a link to a dated file with
// certificate and key, as the kubelet makes it: absolute, below the root.
func currentLink(c *testpki.Cluster) []byte {
	var both []byte
	for _, field := range []string{"client-certificate", "client-key"} {
		confData(c, "kubelet.conf", field+"-data", func(raw []byte) []byte {
			both = append(both, raw...)
			return raw
		})
		c.Edit("cp1", "kubelet.conf", field+"-data: "+confField(c, "kubelet.conf", field+"-data: "), field+": "+current)
	}
	c.Write("cp1", currentTarget, both)
	os.Symlink(currentTarget, c.Path("cp1", current))
	return both
}

// firstOf is the first certificate of a PEM text.
func firstOf(text []byte) []byte {
	first, _, _ := strings.Cut(string(text), "-----END "+trust.CertificateType+"-----")
	return []byte(first + "-----END " + trust.CertificateType + "-----\n")
}
