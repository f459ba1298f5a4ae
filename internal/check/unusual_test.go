package check_test

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/testpki"
)

// twin changes a healthy cluster in a way that no component minds.
type twin struct {
	name   string
	kind   testpki.Kind // empty: Single
	change func(t *testing.T, c *testpki.Cluster)
	at     time.Time
}

// TestUnusualButHealthyStaysSilent: each row changes a cluster in a way that no
// component minds.
func TestUnusualButHealthyStaysSilent(t *testing.T) {
	rows := []twin{
		{name: "lines end with CRLF", kind: testpki.Single, change: func(_ *testing.T, c *testpki.Cluster) {
			for _, f := range []string{"pki/ca.crt", "pki/apiserver.crt", "pki/apiserver.key", "pki/sa.pub"} {
				c.Write("cp1", f, bytes.ReplaceAll(c.Read("cp1", f), []byte("\n"), []byte("\r\n")))
			}
		}},
		{name: "text stands before the blocks", kind: testpki.Single, change: func(_ *testing.T, c *testpki.Cluster) {
			for _, f := range []string{"pki/ca.crt", "pki/apiserver.crt", "pki/apiserver.key"} {
				c.Write("cp1", f, append([]byte("# made in May\nsubject=CN = x\n"), c.Read("cp1", f)...))
			}
		}},
		{name: "a key is in PKCS#8", kind: testpki.Single, change: func(t *testing.T, c *testpki.Cluster) {
			key, err := issue.ParsePrivateKey(c.Read("cp1", "pki/apiserver.key"))
			if err != nil {
				t.Fatal(err)
			}
			der, err := x509.MarshalPKCS8PrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			c.Write("cp1", "pki/apiserver.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		}},
		{name: "sa.pub is a bundle of two keys", kind: testpki.Single, change: func(t *testing.T, c *testpki.Cluster) {
			pub, err := issue.EncodePublicKey(c.NewKey("cp1", "x.key", issue.ECDSAP256).Public())
			if err != nil {
				t.Fatal(err)
			}
			c.Remove("cp1", "x.key")
			c.Write("cp1", "pki/sa.pub", append(pub, c.Read("cp1", "pki/sa.pub")...))
		}},
		{name: "clients are verified with an old and a new authority during a rotation", kind: testpki.Single, change: func(_ *testing.T, c *testpki.Cluster) {
			c.Write("cp1", "pki/clients.crt", append(oldAuthority(c, "ca"), c.Read("cp1", "pki/ca.crt")...))
			c.Edit("cp1", "manifests/kube-apiserver.yaml", "--client-ca-file=/etc/kubernetes/pki/ca.crt", "--client-ca-file=/etc/kubernetes/pki/clients.crt")
		}},
		{name: "flags are arguments, values stand apart, one is repeated", kind: testpki.Single, change: func(_ *testing.T, c *testpki.Cluster) {
			c.Edit("cp1", "manifests/kube-apiserver.yaml", "    - --tls-cert-file=/etc/kubernetes/pki/apiserver.crt\n", "    - --tls-cert-file=/nowhere.crt\n    - --tls-cert-file\n    - /etc/kubernetes/pki/apiserver.crt # the serving pair\n")
			c.Edit("cp1", "manifests/kube-apiserver.yaml", "  - command:\n    - kube-apiserver\n", "  - command:\n    - kube-apiserver\n    args:\n")
		}},
		{name: "a kubeconfig names files", kind: testpki.Single, change: func(t *testing.T, c *testpki.Cluster) {
			for field, file := range map[string]string{"client-certificate": "admin.crt", "client-key": "admin.key"} {
				value := confField(c, "admin.conf", field+"-data: ")
				data, err := base64.StdEncoding.DecodeString(value)
				if err != nil {
					t.Fatal(err)
				}
				c.Write("cp1", "pki/"+file, data)
				c.Edit("cp1", "admin.conf", field+"-data: "+value, field+": pki/"+file)
			}
			c.Edit("cp1", "admin.conf", "certificate-authority-data: "+confField(c, "admin.conf", "certificate-authority-data: "), "certificate-authority: /etc/kubernetes/pki/ca.crt")
		}},
		{name: "a kubelet's certificate is a link to a dated file", kind: testpki.Single, change: func(t *testing.T, c *testpki.Cluster) {
			var both []byte
			for _, field := range []string{"client-certificate", "client-key"} {
				value := confField(c, "kubelet.conf", field+"-data: ")
				data, err := base64.StdEncoding.DecodeString(value)
				if err != nil {
					t.Fatal(err)
				}
				both = append(both, data...)
				c.Edit("cp1", "kubelet.conf", field+"-data: "+value, field+": /var/lib/kubelet/pki/kubelet-client-current.pem")
			}
			c.Write("cp1", "/var/lib/kubelet/pki/kubelet-client-2026-06-01-00-00-00.pem", both)
			// Absolute, as the kubelet makes it: it leads below the root.
			if err := os.Symlink("/var/lib/kubelet/pki/kubelet-client-2026-06-01-00-00-00.pem", c.Path("cp1", "/var/lib/kubelet/pki/kubelet-client-current.pem")); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "a certificate has upper-case names, more names and both usages", kind: testpki.Single, change: func(_ *testing.T, c *testpki.Cluster) {
			c.Reissue("cp1", "apiserver", "ca", func(x *x509.Certificate) {
				for i, n := range x.DNSNames {
					x.DNSNames[i] = strings.ToUpper(n)
				}
				x.DNSNames = append(x.DNSNames, "lb.example.test", "*.example.test")
				x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
			})
		}},
		{name: "a certificate has no extended usages, and so all", kind: testpki.Single, change: func(_ *testing.T, c *testpki.Cluster) {
			c.Reissue("cp1", "apiserver-kubelet-client", "ca", func(x *x509.Certificate) { x.ExtKeyUsage = nil })
		}},
		{name: "keys are read-only", kind: testpki.Single, change: func(_ *testing.T, c *testpki.Cluster) { c.Chmod("cp1", "pki/sa.key", 0o400) }},
		{name: "an authority was renewed with its key, kubeconfigs hold the older certificate", kind: testpki.Single, change: func(_ *testing.T, c *testpki.Cluster) {
			c.Resign("cp1", "ca", func(x *x509.Certificate) { x.NotAfter = testpki.Made.AddDate(20, 0, 0) })
		}},
		{name: "the controller-manager has no authority's key, because the cluster signs elsewhere", kind: testpki.Bare, change: func(_ *testing.T, c *testpki.Cluster) {
			c.Remove("cp1", "pki/ca.key")
			c.Remove("cp1", "pki/etcd/ca.key")
			c.Remove("cp1", "pki/front-proxy-ca.key")
		}},
		{name: "a control plane serves tokens with a key that all verify", kind: testpki.HA, change: func(t *testing.T, c *testpki.Cluster) {
			pub, err := issue.EncodePublicKey(c.NewKey("cp2", "pki/sa.key", issue.ECDSAP256).Public())
			if err != nil {
				t.Fatal(err)
			}
			both := append(pub, c.Read("cp1", "pki/sa.pub")...)
			for _, n := range []string{"cp1", "cp2", "cp3"} {
				c.Write(n, "pki/sa.pub", both)
			}
		}},
		{name: "admins are masters, and the apiserver towards kubelets, as older kubeadm made them", kind: testpki.Single, change: func(_ *testing.T, c *testpki.Cluster) {
			c.ReissueConf("cp1", "admin.conf", "ca", named("kubernetes-admin", "system:masters"))
			c.Reissue("cp1", "apiserver-kubelet-client", "ca", named("kube-apiserver-kubelet-client", "system:masters"))
		}},
	}
	for _, r := range slices.Concat(rows, fileTwins, rotationTwins, nameTwins, configurationTwins) {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			c := testpki.New(t, cmp.Or(r.kind, testpki.Single))
			r.change(t, c)
			result := c.Verify(check.Options{At: r.at})
			if got := weighty(result); len(got) > 0 {
				t.Errorf("want silence, got:\n%s", describe(got))
			}
			explained(t, result)
		})
	}
}
