package csr_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"pgregory.net/rapid"

	"github.com/kubepki/kubepki/internal/csr"
)

// pieces are what a fuzzer changes of a request. The signature is made last, so
// that it holds whatever is changed.
type pieces struct {
	subject    []byte // content of the Name
	attributes []byte // content of the attributes
	before     string
	after      string
	usages     string // separated by commas
	choice     uint16 // of key, signer and requester
}

var fuzzKeys = []func() crypto.Signer{keyP256, keyRSA, keyEd25519, keyP384}

// requesters are those who send the requests.
var requesters = []struct {
	username string
	groups   []string
}{
	{"system:bootstrap:abcdef", []string{"system:bootstrappers"}},
	{"system:node:w1", []string{"system:nodes"}},
	{"system:node:w2", []string{"system:nodes", "system:bootstrappers"}},
	{"system:node:cp1", []string{"system:nodes"}},
	{"alice", []string{"system:authenticated"}},
}

func (p pieces) key() crypto.Signer { return fuzzKeys[int(p.choice&3)]() }

func (p pieces) request() csr.Request {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(p.subject) })
		b.AddBytes(marshalKey(p.key().Public()))
		b.AddASN1(context(0).Constructed(), func(b *cryptobyte.Builder) { b.AddBytes(p.attributes) })
	})
	info := b.BytesOrPanic()
	algorithm, signature := shape{key: p.key()}.sign(info)
	var outer cryptobyte.Builder
	outer.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(info)
		b.AddBytes(algorithm)
		b.AddASN1BitString(signature)
	})
	signers := []string{csr.KubeAPIServerClientKubeletSigner, csr.KubeletServingSigner, csr.KubeAPIServerClientSigner, csr.LegacyUnknownSigner}
	who := requesters[int(p.choice>>4)%len(requesters)]
	r := csr.Request{SignerName: signers[p.choice>>2&3], Username: who.username, Groups: who.groups, State: csr.Pending,
		PEM: slices.Concat([]byte(p.before), encode(outer.BytesOrPanic()), []byte(p.after))}
	if p.usages != "" {
		r.Usages = strings.Split(p.usages, ",")
	}
	return r
}

// mayServe are the names and addresses that each node of [liars] may have.
var mayServe = map[string][]string{
	"w1":  {"w1", "w1.example.test", "192.0.2.11", "2001:db8::11"},
	"cp1": {"cp1", "192.0.2.1"},
}

// liars are nodes that list whatever would be of use to an attacker.
func liars() []csr.Node {
	nodes := cluster()
	claims := []string{"w1.", "*.example.test", "*", "a b", "localhost", "kubernetes", "kubernetes.default.svc", "web.default.svc.cluster.local", "cp2", "w2",
		"api.example.test", "127.0.0.1", "10.96.0.1", "169.254.169.254", "192.0.2.2", "192.0.2.12", "192.0.2.100", "fe80::1", "::", "w1\x00.evil"}
	nodes[2].Names = append(nodes[2].Names, claims...)
	nodes[2].Addresses = append(nodes[2].Addresses, claims...)
	return nodes
}

// piecesOf takes from a world what a fuzzer changes.
func piecesOf(w *world) pieces {
	p := pieces{usages: strings.Join(w.request.Usages, ",")}
	var subject, attributes cryptobyte.Builder
	w.shape.addSubject(&subject)
	w.shape.addAttributes(&attributes)
	p.subject, p.attributes = subject.BytesOrPanic(), attributes.BytesOrPanic()
	if w.request.SignerName == csr.KubeletServingSigner {
		p.choice |= 1 << 2
	}
	for i, q := range requesters {
		if q.username == w.request.Username {
			p.choice |= uint16(i) << 4
		}
	}
	if w.shape.key == keyRSA() {
		p.choice |= 1
	}
	return p
}

func seeds() []pieces {
	all := []pieces{piecesOf(bootstrap())}
	known := map[string]bool{}
	for _, r := range rows() {
		w := r.from()
		r.change(w)
		p := piecesOf(w)
		// Many rows change facts alone.
		if text := fmt.Sprint(p); !known[text] {
			known[text] = true
			all = append(all, p)
		}
	}
	for _, around := range [][2]string{{"\n", "\n\n"}, {"text\n", ""}, {"", "\x00"}, {"-----BEGIN A-----\n", "-----END A-----\n"}} {
		changed := all[0]
		changed.before, changed.after = around[0], around[1]
		all = append(all, changed)
	}
	return all
}

// Whatever is approved satisfies the policy when it is read again by openssl,
// and by crypto/x509.
func FuzzDecide(f *testing.F) {
	needOpenSSL(f)
	for _, p := range seeds() {
		f.Add(p.subject, p.attributes, p.before, p.after, p.usages, p.choice)
	}
	nodes := csr.NewInventory(liars()...)
	f.Fuzz(func(t *testing.T, subject, attributes []byte, before, after, usages string, choice uint16) {
		if len(subject)+len(attributes)+len(before)+len(after) > csr.MaxPEM {
			t.Skip("larger than what is looked at")
		}
		decideAndCheck(t, pieces{subject, attributes, before, after, usages, choice}, nodes)
	})
}

// Changes that are harmless alone must be so together.
func TestManyChangesAtOnce(t *testing.T) {
	needOpenSSL(t)
	nodes := csr.NewInventory(liars()...)
	all := slices.Concat(derRows(), subjectRows(), requestedRows(), usageRows(), requesterRows(), nameFormRows(), inClusterRows(), ownerRows())
	approved := 0
	rapid.Check(t, func(r *rapid.T) {
		w := rapid.SampledFrom([]func() *world{bootstrap, renewal, serving}).Draw(r, "world")()
		for range rapid.IntRange(1, 4).Draw(r, "changes") {
			change := rapid.SampledFrom(all).Draw(r, "change")
			if change.verdict == csr.Deny && rapid.Bool().Draw(r, "harmless rather") {
				continue
			}
			change.change(w)
		}
		if decideAndCheck(r, piecesOf(w), nodes) {
			approved++
		}
	})
	if approved == 0 {
		t.Error("nothing was approved, so that nothing was shown")
	}
}

// decideAndCheck tells whether pieces are approved, and checks them if so.
func decideAndCheck(t tester, p pieces, nodes *csr.Inventory) bool {
	r := p.request()
	endpoints := csr.Cluster{Endpoints: []string{"api.example.test:6443", "192.0.2.1", "192.0.2.100"}}
	got := csr.Decide(r, csr.Facts{Authorized: csr.Yes, Nodes: nodes, Cluster: endpoints, Landed: true}, csr.DefaultPolicy())
	if got.Verdict != csr.Approve {
		return false
	}
	der := sameInPEM(t, r.PEM)
	s := reparse(t, der)
	checkApproved(t, r, s, p.key())
	checkSameInGo(t, der, s)
	return true
}

var nodeUser = regexp.MustCompile(`^system:node:([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)$`)

// checkApproved is the policy said once more, of what openssl has found.
func checkApproved(t tester, r csr.Request, s seen, key crypto.Signer) {
	if !s.verified {
		t.Error("the signature does not verify")
	}
	node := ""
	var organizations []string
	for _, rdn := range s.rdns {
		if len(rdn) != 1 {
			t.Fatalf("an RDN has %d attributes", len(rdn))
		}
		kind, value, _ := strings.Cut(rdn[0], ":")
		name, form, _ := strings.Cut(kind, " ")
		if form != "PRINTABLESTRING" && form != "UTF8STRING" {
			t.Errorf("%s is a %s", name, form)
		}
		switch name {
		case "commonName":
			m := nodeUser.FindStringSubmatch(value)
			if node != "" || m == nil || len(m[1]) > 253 {
				t.Fatalf("the common name is %q", value)
			}
			node = m[1]
		case "organizationName":
			organizations = append(organizations, value)
		default:
			t.Errorf("the subject has %s", name)
		}
	}
	if node == "" || !slices.Equal(organizations, []string{"system:nodes"}) {
		t.Fatalf("the subject is %v", s.rdns)
	}
	checkUsages(t, r, key)
	switch r.SignerName {
	case csr.KubeAPIServerClientKubeletSigner:
		if len(s.attributes)+len(s.extensions)+len(s.dns)+len(s.ips)+s.others > 0 {
			t.Errorf("a client certificate asks for %v %v", s.attributes, s.extensions)
		}
		isNode := strings.HasPrefix(r.Username, "system:node:")
		if isNode && r.Username != "system:node:"+node || !isNode && (!slices.Contains(r.Groups, "system:bootstrappers") || mustNotRejoin(node)) {
			t.Errorf("%s may not ask for %s", r.Username, node)
		}
	case csr.KubeletServingSigner:
		if r.Username != "system:node:"+node {
			t.Errorf("%s may not ask to serve as %s", r.Username, node)
		}
		checkNames(t, s, node)
	default:
		t.Errorf("signer %s has no rule", r.SignerName)
	}
}

func mustNotRejoin(node string) bool {
	return slices.Contains([]string{"w1", "w2", "cp1", "cp2"}, node)
}

func checkUsages(t tester, r csr.Request, key crypto.Signer) {
	want := []string{"client auth", "digital signature"}
	if r.SignerName == csr.KubeletServingSigner {
		want = []string{"digital signature", "server auth"}
	}
	got := slices.Sorted(slices.Values(r.Usages))
	if slices.Equal(got, want) || key == keyRSA() && slices.Equal(got, slices.Sorted(slices.Values(append(want, "key encipherment")))) {
		return
	}
	t.Errorf("usages are %q", r.Usages)
}

func checkNames(t tester, s seen, node string) {
	if !slices.Equal(s.attributes, []string{"Extension Request"}) || !slices.Equal(s.extensions, []string{"X509v3 Subject Alternative Name"}) || s.others > 0 {
		t.Errorf("a serving certificate asks for %v, %v and %d names of other kinds", s.attributes, s.extensions, s.others)
	}
	if len(s.dns)+len(s.ips) == 0 {
		t.Error("a serving certificate has no names")
	}
	for _, name := range s.dns {
		if !slices.Contains(mayServe[node], strings.ToLower(name)) || net.ParseIP(name) != nil {
			t.Errorf("%s may not serve as %q", node, name)
		}
	}
	for _, ip := range s.ips {
		if !slices.ContainsFunc(mayServe[node], func(a string) bool { return net.ParseIP(a) != nil && net.ParseIP(a).Equal(net.IP(ip)) }) {
			t.Errorf("%s may not serve as %v", node, net.IP(ip))
		}
	}
}

// checkSameInGo wants crypto/x509, which reads the request when it is signed,
// to find what openssl finds.
func checkSameInGo(t tester, der []byte, s seen) {
	c, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CheckSignature(); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(c.Raw, der) || len(c.Subject.Names) != 2 || !strings.Contains(fmt.Sprint(s.rdns), ":"+c.Subject.CommonName+"]") {
		t.Errorf("the subject is %s to crypto/x509, and %v to openssl", c.Subject, s.rdns)
	}
	if !slices.Equal(c.DNSNames, s.dns) || len(c.IPAddresses) != len(s.ips) || len(c.EmailAddresses)+len(c.URIs) > 0 || len(c.Extensions) != len(s.extensions) {
		t.Errorf("crypto/x509 finds %v %v %v %v, openssl %v %v", c.DNSNames, c.IPAddresses, c.EmailAddresses, c.URIs, s.dns, s.ips)
	}
}

// The oracle sees what a decision that approves everything would let through.
func TestTheOracleSeesWhatIsWrong(t *testing.T) {
	needOpenSSL(t)
	w := serving()
	w.shape.names = []name{dns("w1"), {context(1), "a@example.test"}, otherName, ip("192.0.2.2")}
	w.shape.subject = append(w.shape.subject, append(text(oidCN, "system:node:w2"), text(oidOU, "a")...))
	w.shape.corruptSignature = true
	s := reparse(t, w.shape.der())
	if s.verified || len(s.rdns) != 3 || len(s.rdns[2]) != 2 || s.others < 2 || len(s.dns) != 1 || len(s.ips) != 1 {
		t.Errorf("openssl has found %+v", s)
	}
}
