package explain_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/explain"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

// judged is the graph of a cluster with what is found of it.
func judged(t *testing.T, c *testpki.Cluster) (*trust.Graph, *check.Result) {
	t.Helper()
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var nodes []trust.Node
	for _, e := range entries {
		if e.Name() == catalog.AuthoritiesDir || e.Name() == catalog.UsersDir {
			continue
		}
		node, _, err := layout.Read(c.Path(e.Name(), "/"), layout.Options{Name: e.Name()})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, node)
	}
	g := catalog.Wire(nodes)
	return g, check.Run(g, check.Options{At: testpki.At})
}

func leafOf(c *testpki.Cluster, node, conf string) *x509.Certificate {
	_, rest, _ := strings.Cut(string(c.Read(node, conf)), "client-certificate-data: ")
	data, _, _ := strings.Cut(rest, "\n")
	text, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		panic(err)
	}
	certs, err := trust.ParseCertificates(text)
	if err != nil {
		panic(err)
	}
	return certs[0]
}

func without(names ...string) testpki.Change {
	return func(c *x509.Certificate) {
		c.DNSNames = slices.DeleteFunc(slices.Clone(c.DNSNames), func(n string) bool { return slices.Contains(names, n) })
		c.IPAddresses = slices.DeleteFunc(slices.Clone(c.IPAddresses), func(a net.IP) bool { return slices.Contains(names, a.String()) })
	}
}

const (
	unknownByW1 = `Nov 30 16:51:53 w1 kubelet[812]: E1130 16:51:53.123456     812 reflector.go:227] "Failed to watch" err="failed to list *v1.Node: Get \"https://api.example.test:6443/api/v1/nodes\": ` +
		`tls: failed to verify certificate: x509: certificate signed by unknown authority (possibly because of \"x509: ECDSA verification failure\" while trying to verify candidate authority certificate \"kubernetes\")" logger="UnhandledError"`
	peerNames = `{"level":"warn","ts":"2026-11-30T16:51:53.1Z","caller":"embed/config_logging.go:194","msg":"rejected connection on peer endpoint","remote-addr":"10.0.0.13:41234","server-name":"","error":"tls: \"10.0.0.13\" does not match any of DNSNames [\"cp3\" \"localhost\"]"}`
)

// authenticating is what an API server says of a client certificate.
func authenticating(c *x509.Certificate, why string) string {
	return fmt.Sprintf(`E1130 16:51:53.123456       1 authentication.go:76] "Unable to authenticate the request" err="[x509: certificate signed by unknown authority, verifying certificate SN=%d, SKID=, AKID= failed: %s]"`, c.SerialNumber, why)
}

// A line of a cluster in which one or two things are broken leads to the one that
// it is about, on the node where it is; and in a healthy cluster to none.
func TestPinpoint(t *testing.T) {
	staleW1 := func(c *testpki.Cluster) { c.SetConfCA("w1", "kubelet.conf", oldAuthority(c)) }
	for name, x := range map[string]struct {
		do   func(*testpki.Cluster) string // breaks the cluster, and returns the line
		at   string                        // --component
		want string                        // "ID NODE:PATH"; empty: no finding
		says string                        // when there is none
	}{
		"a worker that trusts an older authority": {do: func(c *testpki.Cluster) string { staleW1(c); return unknownByW1 }, want: "bundle-stale w1:/etc/kubernetes/kubelet.conf"},
		"the same line of another node":           {do: func(c *testpki.Cluster) string { staleW1(c); return strings.Replace(unknownByW1, " w1 ", " cp1 ", 1) }, says: "no file"},
		"the same line, and nothing is broken":    {do: func(*testpki.Cluster) string { return unknownByW1 }, says: "no file of what was given explains it"},
		"the same line beside another fault": {do: func(c *testpki.Cluster) string {
			staleW1(c)
			c.SetConfCA("cp2", "scheduler.conf", oldAuthority(c))
			return unknownByW1
		}, want: "bundle-stale w1:/etc/kubernetes/kubelet.conf"},
		"one API server of three lacks the endpoint": {do: func(c *testpki.Cluster) string {
			c.Reissue("cp2", "apiserver", "ca", without("api.example.test"))
			certs, err := trust.ParseCertificates(c.Read("cp2", "pki/apiserver.crt"))
			if err != nil {
				panic(err)
			}
			return `Unable to connect to the server: tls: failed to verify certificate: ` + certs[0].VerifyHostname("api.example.test").Error()
		}, want: "san-missing cp2:/etc/kubernetes/pki/apiserver.crt"},
		"a name that no file knows": {do: func(*testpki.Cluster) string {
			return `Unable to connect to the server: tls: failed to verify certificate: x509: certificate is valid for kubernetes, not kube.company.example`
		}, says: "does not hold kube.company.example"},
		"a name that the file holds by now": {do: func(*testpki.Cluster) string {
			return `Unable to connect to the server: tls: failed to verify certificate: x509: certificate is valid for kubernetes, not api.example.test`
		}, says: "holds api.example.test now"},
		"a node's certificate that has expired": {do: func(c *testpki.Cluster) string {
			c.ReissueConf("cp2", "kubelet.conf", "ca", dated(-2*day, -day))
			return authenticating(leafOf(c, "cp2", "kubelet.conf"), "x509: certificate has expired or is not yet valid: current time 2026-11-30T16:51:53Z is after 2026-11-29T00:00:00Z")
		}, want: "cert-expired cp2:/etc/kubernetes/kubelet.conf"},
		"a certificate that is in no file": {do: func(*testpki.Cluster) string {
			return authenticating(&x509.Certificate{SerialNumber: testSerial}, "x509: certificate has expired or is not yet valid: current time 2026-11-30T16:51:53Z is after 2026-11-29T00:00:00Z")
		}, says: "no file of what was given holds the certificate with serial 075BCD15"},
		"a component that is somebody else": {do: func(c *testpki.Cluster) string {
			c.ReissueConf("cp1", "scheduler.conf", "ca", func(x *x509.Certificate) { x.Subject = pkix.Name{CommonName: "nobody"} })
			return `E1130 16:51:53.1 1 leaderelection.go:429] "Failed to update lock" err="leases.coordination.k8s.io \"kube-scheduler\" is forbidden: User \"nobody\" cannot get resource \"leases\""`
		}, at: "kube-scheduler", want: "identity-wrong cp1:/etc/kubernetes/scheduler.conf"},
		"a peer without its address": {do: func(c *testpki.Cluster) string {
			c.Reissue("cp3", "etcd/peer", "etcd/ca", without("10.0.0.13"))
			return peerNames
		}, want: "san-missing cp3:/etc/kubernetes/pki/etcd/peer.crt"},
		"a peer with its address": {do: func(*testpki.Cluster) string { return peerNames }, says: "no file of what was given explains it"},
		"a client of etcd, of the cluster's authority": {do: func(c *testpki.Cluster) string {
			c.Reissue("cp1", "apiserver-etcd-client", "ca", nil)
			return `{"level":"warn","ts":"2026-11-30T17:19:19.6Z","caller":"embed/config_logging.go:194","msg":"rejected connection on client endpoint","remote-addr":"127.0.0.1:35638","server-name":"","error":"tls: failed to verify certificate: x509: certificate signed by unknown authority"}`
		}, want: "authority-unknown cp1:/etc/kubernetes/pki/apiserver-etcd-client.crt"},
		"tokens of a key that one API server does not know": {do: func(c *testpki.Cluster) string {
			pub, err := issue.EncodePublicKey(c.NewKey("cp2", "pki/sa.key", issue.ECDSAP256).Public())
			if err != nil {
				panic(err)
			}
			c.Write("cp2", "pki/sa.pub", pub)
			return `E1130 17:19:18.1 1 authentication.go:76] "Unable to authenticate the request" err="[invalid bearer token, square/go-jose: error in cryptographic primitive]"`
		}, want: "sa-verify-key-missing cp2:/etc/kubernetes/pki/sa.pub"},
		"a file that is not there": {do: func(c *testpki.Cluster) string {
			c.Remove("cp1", "pki/front-proxy-client.crt")
			return `E1130 17:19:18.1 1 run.go:72] "command failed" err="open /etc/kubernetes/pki/front-proxy-client.crt: no such file or directory"`
		}, at: "kube-apiserver", want: "file-missing cp1:/etc/kubernetes/pki/front-proxy-client.crt"},
		"a pair that does not fit": {do: func(c *testpki.Cluster) string {
			c.NewKey("cp2", "pki/etcd/server.key", issue.ECDSAP256)
			return `{"level":"fatal","msg":"discovery failed","error":"tls: private key does not match public key"}`
		}, at: "etcd", want: "key-mismatch cp2:/etc/kubernetes/pki/etcd/server.key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testpki.New(t, testpki.HA)
			line := x.do(c)
			e := explain.Line(line, x.at)
			if e == nil {
				t.Fatalf("%s is not explained", line)
			}
			e.Pinpoint(judged(t, c))
			got := ""
			if f := e.Found.Findings; len(f) > 0 {
				got = f[0].ID + " " + f[0].Node + ":" + f[0].Path
			}
			if got != x.want || e.Found.Explained != (x.want != "") || !strings.Contains(e.Found.Says, x.says) {
				t.Errorf("%s\nis %s of the %s half of links %d: found %q: %s\nwant %q %q", line, e.Class, e.Half, e.Links, got, e.Found.Says, x.want, x.says)
			}
		})
	}
}

var testSerial = big.NewInt(123456789)

func oldAuthority(c *testpki.Cluster) []byte {
	kept := map[string][]byte{}
	for _, f := range []string{"pki/ca.crt", "pki/ca.key"} {
		kept[f] = c.Read("cp1", f)
	}
	old := trust.EncodeCertificates(c.Recreate("cp1", "ca").Certificate)
	for f, data := range kept {
		c.Write("cp1", f, data)
	}
	return old
}

// In a healthy cluster of any kind no line whatever leads to a finding.
func TestNothingIsFoundInHealthyClusters(t *testing.T) {
	var lines []*explain.Explanation // one of each class and component
	seen := map[string]bool{}
	for _, component := range []string{"", catalog.APIServer} {
		for _, text := range explain.Messages() {
			if e := explain.Line("open /etc/kubernetes/pki/ca.crt: "+strings.ReplaceAll(text, "*", "10.0.0.11"), component); !seen[e.Class+component] {
				seen[e.Class+component] = true
				lines = append(lines, e)
			}
		}
	}
	for _, k := range []testpki.Kind{testpki.Single, testpki.Bare, testpki.ExternalEtcd} {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			g, r := judged(t, testpki.New(t, k))
			for _, e := range lines {
				mine := *e // Pinpoint writes into it
				mine.Pinpoint(g, r)
				for _, f := range mine.Found.Findings {
					if f.Severity != check.Info {
						t.Errorf("%q of %q: %s %s", e.Message, e.Component, f.ID, f.Path)
					}
				}
			}
		})
	}
}

// What says the same is said once, with how often it was.
// TestWhatWasNotSeenIsNotCalledGood: a copy without the node's files tells nothing.
func TestWhatWasNotSeenIsNotCalledGood(t *testing.T) {
	for name, seen := range map[string]bool{"all files": true, "manifests alone": false} {
		t.Run(name, func(t *testing.T) {
			c := testpki.New(t, testpki.Single)
			if !seen {
				if err := os.RemoveAll(c.Path("cp1", "pki")); err != nil {
					t.Fatal(err)
				}
			}
			e := explain.Line(`dial tcp 10.0.0.11:2379: x509: certificate signed by unknown authority`, catalog.APIServer)
			g, r := judged(t, c)
			e.Pinpoint(g, r)
			unseen := slices.ContainsFunc(e.Found.Links, func(l explain.FoundLink) bool { return l.Unseen })
			if len(e.Found.Links) == 0 || unseen == seen || strings.Contains(e.Found.Says, "there is good") != seen || strings.Contains(e.Found.Says, "could not be judged") == seen {
				t.Errorf("%+v", e.Found)
			}
		})
	}
}

func TestManyLinesAreOneExplanation(t *testing.T) {
	line := unknownByW1 + "\n"
	all, others, err := explain.Lines(strings.NewReader(strings.Repeat(line, 500)+strings.Repeat("a line of nothing\n", 500)), "")
	if err != nil || len(all) != 1 || all[0].Count != 500 || others != 500 {
		t.Errorf("%d explanations, %d others, %v", len(all), others, err)
	}
}
