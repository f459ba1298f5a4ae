package check_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/proof"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

// tree is the nodes of a distribution's cluster on disk, made as its source makes
// them: names, subjects, usages, chains, modes.
type tree struct {
	t   *testing.T
	dir string
	// cas are the authorities by name, each with the chain that its file holds.
	cas   map[string]*authority
	modes fs.FileMode // of private files
}

type authority struct {
	cert  *x509.Certificate
	key   crypto.Signer
	chain []*x509.Certificate // the whole file, the authority itself first
}

func newTree(t *testing.T) *tree {
	t.Helper()
	return &tree{t: t, dir: t.TempDir(), cas: map[string]*authority{}, modes: 0o600}
}

func (x *tree) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

func (x *tree) path(node, name string) string { return filepath.Join(x.dir, node, name) }

func (x *tree) write(node, name string, data []byte, mode fs.FileMode) {
	x.t.Helper()
	at := x.path(node, name)
	x.must(os.MkdirAll(filepath.Dir(at), 0o755))
	x.must(os.WriteFile(at, data, mode))
	x.must(os.Chmod(at, mode))
}

func (x *tree) read(node, name string) []byte {
	x.t.Helper()
	data, err := os.ReadFile(x.path(node, name))
	x.must(err)
	return data
}

func (x *tree) remove(node, name string) { x.t.Helper(); x.must(os.RemoveAll(x.path(node, name))) }

func (x *tree) edit(node, name, old, new string) {
	x.t.Helper()
	text := string(x.read(node, name))
	if !strings.Contains(text, old) {
		x.t.Fatalf("%s of %s holds no %q", name, node, old)
	}
	info, err := os.Stat(x.path(node, name))
	x.must(err)
	x.write(node, name, []byte(strings.ReplaceAll(text, old, new)), info.Mode().Perm())
}

func (x *tree) newKey() crypto.Signer {
	key, err := issue.GenerateKey(issue.ECDSAP256)
	x.must(err)
	return key
}

func (x *tree) sign(c *x509.Certificate, public crypto.PublicKey, parent *x509.Certificate, key crypto.Signer) *x509.Certificate {
	x.t.Helper()
	if c.SerialNumber == nil {
		serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
		x.must(err)
		c.SerialNumber = serial
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, public, key)
	x.must(err)
	signed, err := x509.ParseCertificate(der)
	x.must(err)
	return signed
}

const caUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign

// ca makes an authority: signed by itself, or by a parent, whose chain its file
// then holds too.
func (x *tree) ca(name, commonName string, usage x509.KeyUsage, parent *authority) *authority {
	x.t.Helper()
	a := &authority{key: x.newKey()}
	c := &x509.Certificate{Subject: pkix.Name{CommonName: commonName}, NotBefore: testpki.Made, NotAfter: testpki.Made.AddDate(10, 0, 0),
		KeyUsage: usage, BasicConstraintsValid: true, IsCA: true}
	if parent == nil {
		c.SerialNumber = big.NewInt(0) // as dynamiclistener makes them
		a.cert = x.sign(c, a.key.Public(), c, a.key)
		a.chain = []*x509.Certificate{a.cert}
	} else {
		a.cert = x.sign(c, a.key.Public(), parent.cert, parent.key)
		a.chain = append([]*x509.Certificate{a.cert}, parent.chain...)
	}
	x.cas[name] = a
	return a
}

// leaf says what a certificate is for.
type leaf struct {
	cn     string
	o      []string
	names  []string // DNS names and addresses
	usages []x509.ExtKeyUsage
	life   time.Duration // 0: a year
	plain  bool          // no usages, no chain: as openssl x509 -req makes it
}

var (
	servers = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	clients = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	both    = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
)

func (x *tree) issue(ca string, l leaf) (certificate, key []byte) {
	x.t.Helper()
	a, private := x.cas[ca], x.newKey()
	c := &x509.Certificate{Subject: pkix.Name{CommonName: l.cn, Organization: l.o}, NotBefore: testpki.Made, NotAfter: testpki.Made.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: l.usages, BasicConstraintsValid: true}
	if l.life != 0 {
		c.NotAfter = testpki.Made.Add(l.life)
	}
	if l.plain {
		c.KeyUsage, c.BasicConstraintsValid = 0, false
	}
	addNames(c, l.names)
	signed := x.sign(c, private.Public(), a.cert, a.key)
	text, err := issue.EncodePrivateKey(private)
	x.must(err)
	if l.plain {
		return trust.EncodeCertificates(signed), text
	}
	return trust.EncodeCertificates(append([]*x509.Certificate{signed}, a.chain...)...), text
}

func addNames(c *x509.Certificate, names []string) {
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, n)
		}
	}
}

// pair issues a certificate with its key, in files named by what they have in common.
func (x *tree) pair(node, stem, ca string, l leaf) {
	x.t.Helper()
	certificate, key := x.issue(ca, l)
	x.write(node, stem+".crt", certificate, 0o644)
	x.write(node, stem+".key", key, x.modes)
}

// reissue signs the first certificate of a file anew with the same key.
func (x *tree) reissue(node, file, ca string, change func(*x509.Certificate)) {
	x.t.Helper()
	x.write(node, file, x.resigned(x.read(node, file), ca, change), 0o644)
}

func (x *tree) resigned(data []byte, ca string, change func(*x509.Certificate)) []byte {
	x.t.Helper()
	certs, err := trust.ParseCertificates(data)
	x.must(err)
	old := certs[0]
	c := &x509.Certificate{Subject: old.Subject, DNSNames: old.DNSNames, IPAddresses: old.IPAddresses, NotBefore: old.NotBefore, NotAfter: old.NotAfter,
		KeyUsage: old.KeyUsage, ExtKeyUsage: old.ExtKeyUsage, BasicConstraintsValid: old.BasicConstraintsValid}
	change(c)
	a := x.cas[ca]
	return trust.EncodeCertificates(append([]*x509.Certificate{x.sign(c, old.PublicKey, a.cert, a.key)}, certs[1:]...)...)
}

func (x *tree) putCA(node, stem, name string) {
	x.t.Helper()
	a := x.cas[name]
	key, err := issue.EncodePrivateKey(a.key)
	x.must(err)
	x.write(node, stem+".crt", trust.EncodeCertificates(a.chain...), 0o644)
	x.write(node, stem+".key", key, x.modes)
}

// kubeconfig writes one that names files, as k3s does.
func (x *tree) kubeconfig(node, file, server, ca, pair string) {
	x.t.Helper()
	x.write(node, file, fmt.Appendf(nil, `apiVersion: v1
clusters:
- cluster:
    server: %s
    certificate-authority: %s
  name: local
contexts:
- context:
    cluster: local
    namespace: default
    user: user
  name: Default
current-context: Default
kind: Config
preferences: {}
users:
- name: user
  user:
    client-certificate: %s.crt
    client-key: %s.key
`, server, ca, pair, pair), x.modes)
}

// embedded writes one that holds what it names.
func (x *tree) embedded(node, file, server string, ca, certificate, key []byte) {
	x.t.Helper()
	b64 := base64.StdEncoding.EncodeToString
	x.write(node, file, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: local
  cluster:
    server: %s
    certificate-authority-data: %s
contexts:
- name: Default
  context:
    cluster: local
    user: user
current-context: Default
users:
- name: user
  user:
    client-certificate-data: %s
    client-key-data: %s
`, server, b64(ca), b64(certificate), b64(key)), x.modes)
}

// verify reads all nodes and judges them, with true handshakes.
func (x *tree) verify(want string) *check.Result {
	x.t.Helper()
	entries, err := os.ReadDir(x.dir)
	x.must(err)
	var nodes []trust.Node
	keys := proof.Keys{}
	for _, e := range entries {
		name := e.Name()
		if len(entries) == 1 {
			name = ""
		}
		n, ring, err := layout.Read(filepath.Join(x.dir, e.Name()), layout.Options{Name: name})
		x.must(err)
		if n.Layout != want {
			x.t.Fatalf("%s is of layout %s, want %s", e.Name(), n.Layout, want)
		}
		nodes = append(nodes, n)
		maps.Copy(keys, ring)
	}
	g := catalog.Wire(nodes)
	r := check.Run(g, check.Options{At: testpki.At})
	contradictions, err := proof.Prove(g, r.Links, keys, testpki.At)
	x.must(err)
	for _, c := range contradictions {
		l := r.Links[c.Link]
		x.t.Errorf("link %d %s → %s: judged good, but the handshake fails: %v", l.Number, l.Caller, l.Callee, c.Err)
	}
	return r
}

// faults are the findings at warning and above, one line each.
func faults(r *check.Result) []string {
	var out []string
	for _, f := range r.Findings {
		if f.Severity.AtLeast(check.Warning) {
			out = append(out, fmt.Sprintf("%s %s:%s#%s: %s | fix: %s", f.ID, f.Node, f.Path, f.Field, f.Cause, f.Fix))
		}
	}
	return out
}

// proved are the numbers of the links both of whose halves were proved by a
// handshake or a signature.
func proved(r *check.Result) []int {
	var out []int
	for _, l := range r.Links {
		whole := len(l.Halves) > 0
		for _, h := range l.Halves {
			whole = whole && h.State == check.OK && (h.Proof == check.ByHandshake || h.Proof == check.BySignature)
		}
		if whole && !slices.Contains(out, l.Number) {
			out = append(out, l.Number)
		}
	}
	return out
}

// distroMutation breaks one thing of a distribution's cluster.
type distroMutation struct {
	name  string
	brk   func(x *tree)
	id    string
	node  string // where several are read
	path  string
	field string
	fix   string // a part of it
}

func runMutations(t *testing.T, layoutName string, build func(*testing.T) *tree, all []distroMutation) {
	t.Helper()
	for _, m := range all {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			x := build(t)
			m.brk(x)
			r := x.verify(layoutName)
			got := faults(r)
			if len(got) != 1 {
				t.Fatalf("want exactly %s at %s, got %d:\n%s", m.id, m.path, len(got), strings.Join(got, "\n"))
			}
			f := r.Findings[0]
			if f.ID != m.id || f.Path != m.path || f.Node != m.node || m.field != "" && f.Field != m.field || !strings.Contains(f.Fix+f.FixNote, m.fix) {
				t.Errorf("want %s %s:%s#%s with %q in its fix, got\n%s", m.id, m.node, m.path, m.field, m.fix, got[0])
			}
			if strings.Contains(f.Fix, "kubepki init") || strings.Contains(f.Fix, "/etc/kubernetes") {
				t.Errorf("the mend is kubeadm's: %s", f.Fix)
			}
		})
	}
}
