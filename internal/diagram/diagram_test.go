package diagram_test

import (
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/diagram"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

func TestMain(m *testing.M) {
	code := m.Run()
	testpki.Clean()
	os.Exit(code)
}

func draw(t *testing.T, c *testpki.Cluster) (*diagram.Diagram, *check.Result) {
	t.Helper()
	g, r := c.Judge(check.Options{})
	known := report.NewInventory(g, testpki.At)
	var authorities []diagram.Authority
	for _, a := range known.Authorities {
		authorities = append(authorities, diagram.Authority{Name: a.Name, Subject: a.Subject, NotAfter: a.NotAfter})
	}
	d := diagram.New(g, r, known.Signers(), authorities, testpki.At)
	complete(t, d, r)
	return d, r
}

// complete checks what must be so of every diagram: each link is on one arrow,
// in its own state, and its ends are among those that the arrow names.
func complete(t *testing.T, d *diagram.Diagram, r *check.Result) {
	t.Helper()
	links, broken := 0, 0
	for i := range d.Arrows {
		links += d.Arrows[i].Links
		if !d.Arrows[i].OK() {
			broken += d.Arrows[i].Links
		}
	}
	if links != len(r.Links) || broken != d.Counts.Broken || links != d.Counts.Links {
		t.Errorf("%d links and %d broken are drawn, of %d and %d", links, broken, len(r.Links), d.Counts.Broken)
	}
	for i := range r.Links {
		l := &r.Links[i]
		callerNode, caller := trust.SplitID(l.Caller)
		calleeNode, callee := trust.SplitID(l.Callee)
		at := slices.IndexFunc(d.Arrows, func(a diagram.Arrow) bool {
			return a.Number == l.Number && a.OK() == l.OK() && isEnd(d, a.Caller, caller, a.Callers, callerNode) && isEnd(d, a.Callee, callee, a.Callees, calleeNode)
		})
		if at < 0 {
			t.Errorf("link %d %s → %s is on no arrow", l.Number, l.Caller, l.Callee)
		}
	}
}

func isEnd(d *diagram.Diagram, box int, component string, nodes []string, node string) bool {
	return (d.Boxes[box].Component == component || strings.HasPrefix(component, "user ")) && (node == "" || slices.Contains(nodes, node))
}

// lines are a diagram as a text.
func lines(d *diagram.Diagram) []string {
	var out []string
	for _, g := range d.Groups {
		out = append(out, strings.TrimSpace("group "+g.Title+" "+strings.Repeat("!", len(g.Findings))+" "+g.As))
	}
	half := func(h *diagram.Half) string {
		if h == nil {
			return "–"
		}
		text := string(h.State) + " " + h.Authority
		for _, f := range h.Findings {
			text += " " + d.Findings[f].ID
		}
		return text
	}
	for i := range d.Arrows {
		a := &d.Arrows[i]
		end := func(box int, nodes []string) string {
			return strings.TrimSuffix(d.Boxes[box].Title+" of "+diagram.NodesTitle(nodes), " of ")
		}
		out = append(out, fmt.Sprintf("%d %s → %s ×%d: %s | %s", a.Number, end(a.Caller, a.Callers), end(a.Callee, a.Callees), a.Links, half(a.Client), half(a.Server)))
	}
	return out
}

var healthyArrows = []string{
	"1 etcd of cp1 … cp3 (3) → etcd of cp1 … cp3 (3) ×6: ok etcd-ca | ok etcd-ca",
	"2 any client → etcd of cp1 … cp3 (3) ×3: – | ok etcd-ca",
	"3 kube-apiserver of cp1 … cp3 (3) → etcd of cp1 … cp3 (3) ×3: ok etcd-ca | ok etcd-ca",
	"4 any client → kube-apiserver of cp1 … cp3 (3) ×3: – | ok ca",
	"5 kube-controller-manager of cp1 … cp3 (3) → kube-apiserver of cp1 … cp3 (3) ×3: ok ca | ok ca",
	"6 kube-scheduler of cp1 … cp3 (3) → kube-apiserver of cp1 … cp3 (3) ×3: ok ca | ok ca",
	"8 kubelet of cp1 … cp3 (3) → kube-apiserver of cp1 … cp3 (3) ×3: ok ca | ok ca",
	"8 kubelet of w1 → kube-apiserver of cp1 … cp3 (3) ×3: ok ca | ok ca",
	"9 admin of cp1 … cp3 (3) → kube-apiserver of cp1 … cp3 (3) ×9: ok ca | ok ca",
	"9 super-admin of cp1 … cp3 (3) → kube-apiserver of cp1 … cp3 (3) ×9: ok ca | ok ca",
	"11 kube-apiserver of cp1 … cp3 (3) → kubelet of cp1 … cp3 (3) ×9: ok ca | unseen ",
	"11 kube-apiserver of cp1 … cp3 (3) → kubelet of w1 ×3: ok ca | unseen ",
	"12 kube-controller-manager of cp1 … cp3 (3) → kube-apiserver of cp1 … cp3 (3) ×9: ok service-account key | –",
	"12 kube-apiserver of cp1 … cp3 (3) → kube-apiserver of cp1 … cp3 (3) ×9: ok service-account key | –",
	"13 kube-apiserver of cp1 … cp3 (3) → extension apiserver ×3: ok front-proxy-ca | –",
	"15 etcdctl of cp1 … cp3 (3) → etcd of cp1 … cp3 (3) ×3: ok etcd-ca | ok etcd-ca",
	"17 pod → kube-apiserver of cp1 … cp3 (3) ×3: – | ok ca",
}

func TestNodesThatAreAlikeAreDrawnOnce(t *testing.T) {
	d, _ := draw(t, testpki.New(t, testpki.HA))
	want := append([]string{"group cp1 … cp3 (3)", "group w1"}, healthyArrows...)
	if diff := cmp.Diff(want, lines(d)); diff != "" {
		t.Errorf("drawn (-want +got):\n%s", diff)
	}
	if !d.Healthy || d.Counts.Nodes != 4 || d.Counts.Errors != 0 {
		t.Errorf("counts: %+v", d.Counts)
	}
}

func TestANodeThatIsBrokenLeavesItsGroup(t *testing.T) {
	c := testpki.New(t, testpki.HA)
	c.Reissue("cp2", "etcd/server", "etcd/ca", func(x *x509.Certificate) { x.NotAfter = testpki.Made.Add(time.Hour) })
	d, _ := draw(t, c)
	var own []string
	for _, l := range lines(d) {
		if !slices.Contains(healthyArrows, l) {
			own = append(own, l)
		}
	}
	// Beside what is broken, the three links of its etcd that the others have too
	// are counted where they are drawn.
	want := []string{
		"group cp1, cp3",
		"group cp2 ! cp1, cp3",
		"group w1",
		"2 any client → etcd of cp1, cp3 ×2: – | ok etcd-ca",
		"2 any client → etcd of cp2 ×1: – | broken etcd-ca cert-expired",
		"3 kube-apiserver of cp1, cp3 → etcd of cp1, cp3 ×2: ok etcd-ca | ok etcd-ca",
		"3 kube-apiserver of cp2 → etcd of cp2 ×1: ok etcd-ca | broken etcd-ca cert-expired",
		"15 etcdctl of cp1, cp3 → etcd of cp1, cp3 ×2: ok etcd-ca | ok etcd-ca",
		"15 etcdctl of cp2 → etcd of cp2 ×1: ok etcd-ca | broken etcd-ca cert-expired",
	}
	if diff := cmp.Diff(want, own); diff != "" {
		t.Errorf("drawn (-want +got):\n%s", diff)
	}
	for _, b := range d.Boxes {
		if b.Group == 1 && !slices.Contains([]string{"etcd", "etcdctl", "kube-apiserver"}, b.Component) {
			t.Errorf("%s of cp2 has no arrow of its own, and is drawn", b.Component)
		}
	}
}

// A warning breaks no link: the node stands apart all the same, and its link is
// marked.
func TestANodeThatIsWarnedOfLeavesItsGroup(t *testing.T) {
	far := testpki.Made.AddDate(20, 0, 0) // longer than its authority
	c := testpki.New(t, testpki.HA)
	c.Reissue("cp3", "apiserver-kubelet-client", "ca", func(x *x509.Certificate) { x.NotAfter = far })
	d, _ := draw(t, c)
	if at := slices.IndexFunc(d.Groups, func(g diagram.Group) bool { return g.Title == "cp3" && g.As == "cp1, cp2" && len(g.Findings) == 1 }); at < 0 {
		t.Errorf("groups: %+v", d.Groups)
	}
	at := slices.IndexFunc(d.Arrows, func(a diagram.Arrow) bool { return a.Client != nil && a.Client.Signs() == "!" })
	if at < 0 || d.Arrows[at].Number != 11 || !d.Arrows[at].Client.NotAfter.Equal(far) {
		t.Errorf("no arrow is marked: %v", lines(d))
	}
}

// A fault of a bundle breaks the server's half, and stands at the caller.
func TestTheFindingStandsAtTheHalfThatItBreaks(t *testing.T) {
	c := testpki.New(t, testpki.HA)
	c.SetConfCA("w1", "kubelet.conf", testpki.New(t, testpki.Single).Read("cp1", "pki/etcd/ca.crt"))
	d, r := draw(t, c)
	for i := range d.Arrows {
		a := &d.Arrows[i]
		if a.OK() {
			continue
		}
		if a.Number != 8 || d.Boxes[a.Caller].Group != 1 || !a.Server.Is(check.Broken) || a.Client.Is(check.Broken) || len(a.Server.Findings) == 0 || d.Findings[a.Server.Findings[0]].Node != "w1" {
			t.Errorf("broken: %+v of %v", lines(d)[i+len(d.Groups)], r.Findings)
		}
	}
	if d.Counts.Broken != 3 {
		t.Errorf("%d are broken", d.Counts.Broken)
	}
}

func TestASingleNodeThatNobodyNamedHasItsOwnName(t *testing.T) {
	d, _ := draw(t, testpki.New(t, testpki.Single))
	if len(d.Groups) != 1 || d.Groups[0].Title != "cp1" {
		t.Errorf("groups: %+v", d.Groups)
	}
}

// Many nodes that differ in everything are drawn with less detail, not without
// end.
func TestAPictureStaysReadable(t *testing.T) {
	kinds := []string{catalog.Kubelet, catalog.Etcd, catalog.Scheduler, catalog.ControllerManager, catalog.KubeProxy, "admin", "super-admin", catalog.Etcdctl, catalog.APIServer}
	g := &trust.Graph{Materials: map[trust.Place]*trust.Material{}}
	r := &check.Result{}
	signers := diagram.Signer{}
	for i := range 400 {
		n := trust.Node{Name: fmt.Sprintf("n%d", i)}
		for j, kind := range kinds {
			if i>>j&1 == 0 {
				continue
			}
			n.Components = append(n.Components, trust.Component{Node: n.Name, Name: kind})
			at := trust.Place{Node: n.Name, Path: "/" + kind}
			signers[at] = fmt.Sprintf("authority %d", i)
			l := &trust.Link{Number: 1 + j, Caller: n.Name + "/" + kind, Callee: "n511/kube-apiserver", Client: &trust.ClientHalf{Credential: &trust.Credential{Name: kind, Certificate: at}}}
			r.Links = append(r.Links, check.JudgedLink{Link: l, Halves: []check.Half{{Side: "client", State: []check.State{check.OK, check.Broken, check.Unseen}[i%3]}}})
		}
		g.Nodes = append(g.Nodes, n)
	}
	d := diagram.New(g, r, signers, nil, testpki.At)
	if len(d.Groups) > 12 || len(d.Arrows) > 110 || len(d.Arrows) < len(kinds) {
		t.Errorf("%d groups, %d arrows", len(d.Groups), len(d.Arrows))
	}
	complete(t, d, r)
}

func TestNodesTitleIsShort(t *testing.T) {
	var many []string
	for i := range 50 {
		many = append(many, fmt.Sprintf("w%d", i+1))
	}
	for _, test := range []struct {
		names []string
		want  string
	}{
		{nil, ""},
		{[]string{"cp1"}, "cp1"},
		{[]string{""}, "node"},
		{[]string{"cp2", "cp1"}, "cp1, cp2"},
		{many, "w1 … w50 (50)"},
		{slices.Concat(many[:6], many[7:]), "w1 … w6, w8 … w50 (49)"},
		{[]string{"a1", "a3", "a5", "a7"}, "a1, a3, a5 and 1 more (4)"},
		{[]string{"n08", "n09", "n10"}, "n08 … n10 (3)"},
		{[]string{"n8", "n9", "n10"}, "n8 … n10 (3)"},
		{[]string{"n8", "n09", "n10"}, "n8, n09, n10"},
		{[]string{"n99999999999", "m", "99"}, "99, m, n99999999999"},
		{[]string{"a", "b", "c", "d"}, "a, b, c and 1 more (4)"},
	} {
		if got := diagram.NodesTitle(test.names); got != test.want {
			t.Errorf("NodesTitle(%q) = %q, want %q", test.names, got, test.want)
		}
	}
}
