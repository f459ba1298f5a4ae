package report_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/inspect"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// graph builds a trust graph by hand.
type graph struct {
	t *testing.T
	g *trust.Graph
}

func (b *graph) key() crypto.Signer {
	b.t.Helper()
	k, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		b.t.Fatal(err)
	}
	return k
}

func (b *graph) certificate(cn string, authority bool, end time.Time, by *issue.Authority) issue.Authority {
	b.t.Helper()
	key := b.key()
	template := issue.Template{Subject: pkix.Name{CommonName: cn}, Authority: authority, NotBefore: at.AddDate(-1, 0, 0), NotAfter: end}
	var c *x509.Certificate
	var err error
	if by == nil {
		c, err = issue.SelfSign(template, key)
	} else {
		c, err = issue.Sign(template, key.Public(), *by)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return issue.Authority{Certificate: c, Key: key}
}

func (b *graph) put(node, path string, m trust.Material) trust.Place {
	m.Place = trust.Place{Node: node, Path: path}
	b.g.Materials[m.Place] = &m
	return m.Place
}

func (b *graph) authority(node, name string, a issue.Authority, key bool) {
	at := b.put(node, "/pki/"+name+".crt", trust.Material{State: trust.Present, Certificates: []*x509.Certificate{a.Certificate}})
	keyAt := trust.Place{Node: node, Path: "/pki/" + name + ".key"}
	if key {
		b.put(node, keyAt.Path, trust.Material{State: trust.Present, HasPrivateKey: true})
	}
	b.g.Authorities = append(b.g.Authorities, trust.Authority{Name: name, Node: node, Certificate: at, Key: keyAt})
}

func (b *graph) credential(node, name string, m trust.Material) *trust.Credential {
	c := &trust.Credential{Name: name, Node: node, Certificate: b.put(node, "/pki/"+name+".crt", m)}
	b.g.Credentials = append(b.g.Credentials, c)
	return c
}

func present(c ...*x509.Certificate) trust.Material {
	return trust.Material{State: trust.Present, Certificates: c}
}

// sampleGraph has every case: an authority on two nodes, a foreign one of the
// same name, an intermediate, an authority known from a bundle alone, a
// self-signed, an orphaned and a missing certificate.
func sampleGraph(t *testing.T) *trust.Graph {
	b := &graph{t: t, g: &trust.Graph{
		Nodes:     []trust.Node{{Name: "cp1", Layout: "kubeadm"}, {Name: "cp2", Layout: "kubeadm", NotSeen: []trust.NotSeen{{Place: trust.Place{Node: "cp2", Path: "/etc"}, Reason: "gone"}}}},
		Materials: map[trust.Place]*trust.Material{},
	}}
	year := at.AddDate(1, 0, 0)
	root := b.certificate("root", true, year, nil)
	ca := b.certificate("kubernetes", true, year, &root)
	foreign := b.certificate("kubernetes", true, year, nil)
	elsewhere := b.certificate("elsewhere", true, year, nil)
	lost := b.certificate("lost", true, year, nil)
	b.authority("cp1", catalog.ClusterCA, ca, true)
	b.authority("cp1", catalog.RootCA, root, false)
	b.authority("cp2", catalog.ClusterCA, foreign, true)
	b.authority("cp2", catalog.RootCA, root, true)
	sign := func(cn string, end time.Time, by issue.Authority) *x509.Certificate {
		return b.certificate(cn, false, end, &by).Certificate
	}
	apiserver := b.credential("cp1", "apiserver", present(sign("kube-apiserver", at.Add(3*time.Hour), ca), ca.Certificate))
	scheduler := b.credential("cp1", "scheduler.conf", present(sign("scheduler", at.AddDate(0, 0, -2), ca)))
	b.credential("cp2", "apiserver", present(sign("kube-apiserver", year, foreign)))
	b.credential("cp2", "jane.conf", present(sign("jane\x1b[31m", year, elsewhere)))
	b.put("cp2", "/bundle.crt", present(lost.Certificate, elsewhere.Certificate))
	b.credential("cp2", "kubelet-server", present(b.certificate("self", false, year, nil).Certificate))
	orphan := b.certificate("orphanage", true, year, nil)
	b.credential("cp2", "orphan", present(sign("orphan", year, orphan)))
	b.credential("cp2", "etcd-server", trust.Material{State: trust.Missing, Reason: "does not exist"})
	saKey := b.put("cp1", "/pki/sa.key", trust.Material{State: trust.Present, Keys: []crypto.PublicKey{b.key().Public()}})
	b.g.Links = []trust.Link{
		{Number: 4, Caller: "any client", Callee: "cp1/kube-apiserver", Server: &trust.ServerHalf{Credential: apiserver}},
		{Number: 6, Caller: "cp1/kube-scheduler", Callee: "cp1/kube-apiserver", Server: &trust.ServerHalf{Credential: apiserver}, Client: &trust.ClientHalf{Credential: scheduler}},
		{Number: 6, Caller: "cp1/kube-scheduler", Callee: "cp2/kube-apiserver", Client: &trust.ClientHalf{Credential: scheduler}},
		{Number: 12, Caller: "cp1/kube-apiserver", Callee: "cp1/kube-apiserver", Signing: &trust.SigningHalf{Key: saKey}},
	}
	return b.g
}

func TestTreeShowsAuthoritiesCredentialsAndUsers(t *testing.T) {
	var b bytes.Buffer
	if err := report.NewInventory(sampleGraph(t), at).Tree(&b, report.Palette{}); err != nil {
		t.Fatal(err)
	}
	want := `AUTHORITY AND CREDENTIALS   SUBJECT                                       EXPIRES                      USED BY
root-ca                     CN=root                                       2027-06-01 (365d)            key on cp2
└── ca                      CN=kubernetes                                 2027-06-01 (365d)            key on cp1
    ├── cp1/apiserver       CN=kube-apiserver                             2026-06-01 (3h)              kube-apiserver serves
    └── cp1/scheduler.conf  CN=scheduler                                  2026-05-30 (expired 2d ago)  kube-scheduler → kube-apiserver
CN=elsewhere                CN=elsewhere                                  2027-06-01 (365d)            key elsewhere
└── cp2/jane.conf           CN=jane?[31m                                  2027-06-01 (365d)
ca of cp2                   CN=kubernetes                                 2027-06-01 (365d)            key on cp2
└── cp2/apiserver           CN=kube-apiserver                             2027-06-01 (365d)
sa                          ECDSA-P256 key, signs service-account tokens  –                            kube-apiserver; key on cp1
other
├── cp2/kubelet-server      CN=self (self-signed)                         2027-06-01 (365d)
└── cp2/orphan              CN=orphan (unknown authority CN=orphanage)    2027-06-01 (365d)
not seen
└── cp2/etcd-server         /pki/etcd-server.crt does not exist           –
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
}

func TestInventoryIsTheDocumentedForm(t *testing.T) {
	var b bytes.Buffer
	if err := report.Document(&b, "json", report.NewInventory(sampleGraph(t), at)); err != nil {
		t.Fatal(err)
	}
	var v struct {
		APIVersion, Kind, At string
		Nodes                []struct{ Name string }
		Authorities          []struct {
			Name, Authority string
			Places          []struct{ Node, Path, Key string }
			IsAuthority     bool
		}
		Credentials []struct {
			Name, Node, Path, Problem, Subject, NotAfter, KeyAlgorithm, Authority string
			UsedBy                                                                []report.Use
		}
		SigningKeys []struct{ Node, Path, KeyAlgorithm string }
		NotSeen     []struct{ Node, Path, Reason string }
	}
	if err := json.Unmarshal(b.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	if v.APIVersion != "kubepki.dev/v1alpha1" || v.Kind != "Inventory" || v.At != "2026-06-01T12:00:00Z" || len(v.Nodes) != 2 || len(v.NotSeen) != 1 || len(v.SigningKeys) != 1 {
		t.Errorf("head = %+v", v)
	}
	var names []string
	for _, a := range v.Authorities {
		names = append(names, fmt.Sprintf("%s<%s %d", a.Name, a.Authority, len(a.Places)))
	}
	if diff := cmp.Diff([]string{"root-ca< 2", "ca<root-ca 1", "CN=elsewhere< 1", "ca of cp2< 1"}, names); diff != "" {
		t.Error(diff)
	}
	names = nil
	for _, c := range v.Credentials {
		names = append(names, c.Node+"/"+c.Name+"<"+c.Authority+" "+c.Problem)
	}
	if diff := cmp.Diff([]string{"cp1/apiserver<ca ", "cp1/scheduler.conf<ca ", "cp2/apiserver<ca of cp2 ", "cp2/etcd-server< does not exist", "cp2/kubelet-server< ", "cp2/jane.conf<CN=elsewhere ", "cp2/orphan< "}, names); diff != "" {
		t.Error(diff)
	}
	want := []report.Use{
		{Link: 6, Component: "cp1/kube-scheduler", Side: "client", Peer: "cp1/kube-apiserver"},
		{Link: 6, Component: "cp1/kube-scheduler", Side: "client", Peer: "cp2/kube-apiserver"},
	}
	if diff := cmp.Diff(want, v.Credentials[1].UsedBy); diff != "" {
		t.Error(diff)
	}
	if n := len(report.NewInventory(sampleGraph(t), at).Certificates()); n != 10 {
		t.Errorf("%d certificates, want 4 authorities and 6 credentials", n)
	}
}

func TestRowsLeaveOutTheNodeOfASingleOne(t *testing.T) {
	g := sampleGraph(t)
	var b bytes.Buffer
	if err := report.NewInventory(g, at).Rows(&b, false, report.Palette{}); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(b.String(), "NODE  NAME ") || strings.Count(b.String(), "\n") != 1+5+7 {
		t.Errorf("rows:\n%s", b.String())
	}
	single := &trust.Graph{Nodes: []trust.Node{{Layout: "service"}}}
	b.Reset()
	if err := report.NewInventory(single, at).Rows(&b, true, report.Palette{}); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != "NAME  SUBJECT  AUTHORITY  EXPIRES  LEFT  KEY  PATH  ISSUER  SERIAL  USAGES  NAMES\n" {
		t.Errorf("rows: %q", got)
	}
}

func TestLeftSpeaksInWords(t *testing.T) {
	for _, test := range []struct {
		from, to time.Duration
		want     string
	}{
		{-time.Hour, 364*24*time.Hour + time.Hour, "364d"},
		{-time.Hour, 47 * time.Hour, "47h"},
		{-time.Hour, 119 * time.Minute, "119m"},
		{-time.Hour, 30 * time.Second, "30s"},
		{-time.Hour, -72 * time.Hour, "expired 3d ago"},
		{5 * time.Hour, 50 * time.Hour, "starts in 5h"},
	} {
		if got := report.Left(at.Add(test.from), at.Add(test.to), at); got != test.want {
			t.Errorf("Left(%s, %s) = %q, want %q", test.from, test.to, got, test.want)
		}
	}
}

func TestPlainTakesAwayWhatMovesTheCursor(t *testing.T) {
	if got := report.Plain("a\x1b[2Jb\r\n\u202ec\u200bd\u009be"); got != "a?[2Jb???c?d?e" {
		t.Errorf("Plain = %q", got)
	}
}

func TestFileTextShowsNoControlCharacters(t *testing.T) {
	d := &inspect.Description{Format: inspect.Kubeconfig, Parts: []inspect.Part{
		{Kind: inspect.KindContext, Context: &inspect.Context{Name: "a\x1b]0;x\x07", Server: "https://\r", Shows: []string{"\x1b"}}},
		{Kind: inspect.KindOther, Field: "\x1b", Note: "\x1b", Problem: "\x1b"},
		{Kind: inspect.KindToken, Token: &inspect.Token{Subject: "\x1b", Issuer: "\n", KeyID: "\x1b", Audiences: []string{"\x1b"}, BoundTo: []inspect.Reference{{Kind: "Pod", Name: "\x1b"}}}},
		{Kind: inspect.KindObject, Object: &inspect.Object{Kind: "\x1b", Name: "\x1b", Type: "\x1b"}},
		{Kind: inspect.KindComponent, Component: &inspect.Component{Name: "\x1b", Flags: []inspect.Flag{{Name: "\x1b", Values: []string{"\x1b"}}}}},
	}}
	var b bytes.Buffer
	if err := report.NewFile("f\x1b", d, at).Text(&b, report.Palette{}); err != nil {
		t.Fatal(err)
	}
	if i := strings.IndexFunc(b.String(), func(r rune) bool { return r < 0x20 && r != '\n' }); i >= 0 {
		t.Errorf("a control character at %d of %q", i, b.String())
	}
}
