package picture_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/diagram"
	"github.com/kubepki/kubepki/internal/graphviz"
	"github.com/kubepki/kubepki/internal/picture"
	"github.com/kubepki/kubepki/internal/trust"
)

var update = flag.Bool("update", false, "write the golden files anew")

var at = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// sample is a cluster of three control planes, one of which has a broken etcd,
// with a name of the test's choice wherever a file says one.
func sample(name string) *diagram.Diagram {
	ok := func(by string) *diagram.Half {
		return &diagram.Half{State: check.OK, Proofs: []check.Proof{check.ByHandshake}, Credential: name, Authority: by, NotBefore: at.AddDate(-1, 0, 0), NotAfter: at.AddDate(0, 1, 0), First: trust.Place{Node: name, Path: "/etc/kubernetes/" + name}}
	}
	broken := ok("ca")
	broken.State, broken.Findings = check.Broken, []int{0}
	warned := ok("ca")
	warned.Findings = []int{1}
	return &diagram.Diagram{
		At: at,
		Groups: []diagram.Group{
			{Nodes: []string{name + "1", name + "3"}, Title: name + "1, " + name + "3"},
			{Nodes: []string{name + "2"}, Title: name + "2", As: name + "1, " + name + "3", Findings: []int{0}},
			{Nodes: []string{"w"}, Title: "w", As: name},
		},
		Boxes: []diagram.Box{
			{Group: -1, Component: name, Title: name},
			{Group: 0, Component: "kube-apiserver", Title: "kube-apiserver"}, {Group: 0, Component: "etcd", Title: "etcd"},
			{Group: 1, Component: "kube-apiserver", Title: "kube-apiserver"}, {Group: 1, Component: "etcd", Title: "etcd"},
			{Group: 2, Note: true},
		},
		Arrows: []diagram.Arrow{
			{Number: 1, Caller: 2, Callee: 2, Links: 6, Callers: []string{"a", "b"}, Callees: []string{"a", "b"}, Client: ok("etcd-ca"), Server: ok("etcd-ca")},
			{Number: 3, Caller: 1, Callee: 2, Links: 2, Callers: []string{"a", "b"}, Callees: []string{"a", "b"}, Client: ok("etcd-ca"), Server: ok("etcd-ca")},
			{Number: 3, Caller: 3, Callee: 4, Links: 1, Callers: []string{name}, Callees: []string{name}, Client: warned, Server: broken},
			{Number: 4, Caller: 0, Callee: 1, Links: 2, Callees: []string{"a", "b"}, Server: &diagram.Half{State: check.Unseen, Proofs: []check.Proof{check.NoProof}}},
		},
		Authorities: []diagram.Authority{{Name: "ca", Subject: "CN=" + name, NotAfter: at.AddDate(9, 0, 0)}, {Name: "etcd-ca"}},
		Findings: []check.Finding{
			{ID: "cert-expired", Severity: check.Error, Links: []int{3}, Node: name, Path: "/" + name, Paths: []string{"/" + name}, Field: name, Cause: name + " ended", Fix: name, Consequences: []check.Consequence{{ID: "refused", Node: name, Path: name}}},
			{ID: "cert-expiring", Severity: check.Warning, Cause: name + " ends soon"},
			{ID: "not-seen", Severity: check.Info, Cause: name},
		},
		Counts: diagram.Counts{Nodes: 4, Links: 11, Broken: 1, Halves: 20, Unseen: 2, Errors: 1, Warnings: 1, Infos: 1},
	}
}

// forms are all that is drawn.
var forms = map[string]func(ctx context.Context, w io.Writer, d *diagram.Diagram) error{
	"svg":     picture.SVG,
	"dot":     func(_ context.Context, w io.Writer, d *diagram.Diagram) error { return picture.DOT(w, d) },
	"mermaid": func(_ context.Context, w io.Writer, d *diagram.Diagram) error { return picture.Mermaid(w, d) },
	"html": func(ctx context.Context, w io.Writer, d *diagram.Diagram) error {
		p := picture.NewPage(w)
		if err := p.Add(ctx, d); err != nil {
			return err
		}
		return p.Close()
	},
}

func drawn(t *testing.T, form string, d *diagram.Diagram) string {
	t.Helper()
	var b bytes.Buffer
	if err := forms[form](t.Context(), &b, d); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestThePictureIsTheSameEachTime(t *testing.T) {
	for form := range forms {
		got := drawn(t, form, sample("cp"))
		file := filepath.Join("testdata", "sample."+form)
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s: -update writes it anew (-want +got):\n%s", form, diff)
		}
		if again := drawn(t, form, sample("cp")); again != got {
			t.Errorf("%s: a second time it is another", form)
		}
	}
}

// hostile are names that mean something to what they are written in.
var hostile = []string{
	`<script>alert(1)</script>`,
	`"><img src=x onerror=alert(1)>`,
	`' onload='alert(1)`,
	`]]></style><script>alert(1)</script>`,
	`--><svg onload=alert(1)>`,
	"\u202egnp.exe\u202c\u200b",
	"a\x00b\x1b[31m\r\nc\tend\nx --> y",
	`back\slash\n\N\"quote" &lt;&#60;`,
	"\"]; click box0 \"javascript:alert(1)\" %% end",
	"`# Markdown` **b** _i_ 1. x",
	"\xff\xfe\ufffe\uffff not UTF-8",
	strings.Repeat("W<&", 3500), // 10 kB
	strings.Repeat("証明書", 200),
	"{{.}} ${x} %s %d",
}

// No name becomes an element, an attribute or a line of its own, and none
// makes a picture of ten thousand pixels.
func TestHostileNamesAreTexts(t *testing.T) {
	for i, name := range hostile {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			plain, evil := sample("cp"), sample(name)
			xmlElements(t, drawn(t, "svg", plain), drawn(t, "svg", evil))
			htmlElements(t, drawn(t, "html", evil))
			dotLabels(t, drawn(t, "dot", evil))
			mermaidLines(t, drawn(t, "mermaid", plain), drawn(t, "mermaid", evil))
			for form := range forms {
				if n := len(drawn(t, form, evil)); n > 64<<10 {
					t.Errorf("%s: %d bytes", form, n)
				}
			}
		})
	}
}

// elements counts what a strict reader of XML finds, but for what the length of
// texts makes more.
func elements(t *testing.T, svg string) map[string]int {
	t.Helper()
	found := map[string]int{}
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := d.Token()
		if err == io.EOF {
			return found
		}
		if err != nil {
			t.Fatalf("not XML: %v", err)
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if start.Name.Local != "text" {
			found[start.Name.Local]++
		}
		for _, a := range start.Attr {
			if strings.HasPrefix(strings.ToLower(a.Name.Local), "on") || a.Name.Local == "href" || a.Name.Local == "style" {
				t.Errorf("<%s> has an attribute %s", start.Name.Local, a.Name.Local)
			}
			if w, err := strconv.ParseFloat(a.Value, 64); err == nil && (start.Name.Local == "svg" || a.Name.Local == "x") && (w > 3500 || w < 0 || math.IsNaN(w)) {
				t.Errorf("<%s> %s is %s", start.Name.Local, a.Name.Local, a.Value)
			}
		}
	}
}

func xmlElements(t *testing.T, plain, evil string) {
	t.Helper()
	if diff := cmp.Diff(elements(t, plain), elements(t, evil)); diff != "" {
		t.Errorf("elements of the SVG (-plain +hostile):\n%s", diff)
	}
}

func htmlElements(t *testing.T, page string) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	scripts := 0
	known := strings.Fields("html head meta title style body main section h1 h2 h3 p a figure svg desc rect g text path polygon circle figcaption b ul li article dl dt dd code pre fieldset legend label input div table thead tbody tr th td span br small script")
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		if !slices.Contains(known, n.Data) {
			t.Errorf("an element <%s>", n.Data)
		}
		if n.Data == "script" {
			scripts++
		}
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") || a.Key == "src" || a.Key == "style" || a.Key == "href" && !strings.HasPrefix(a.Val, "#") {
				t.Errorf("<%s> has an attribute %s=%q", n.Data, a.Key, a.Val)
			}
		}
	}
	if scripts != 1 {
		t.Errorf("%d scripts", scripts)
	}
	if strings.ContainsAny(page, "\u202e\u200b\x1b\x00") {
		t.Error("what is not to be seen is in it")
	}
}

// dotLabels lets Graphviz itself read the text: what was a label is one.
func dotLabels(t *testing.T, dot string) {
	t.Helper()
	text, err := graphviz.Layout(t.Context(), dot, "json0")
	if err != nil {
		t.Fatalf("Graphviz does not read it: %v\n%s", err, dot)
	}
	var read struct {
		Objects []struct{ Name string }
		Edges   []struct{ Pos string }
	}
	if err := json.Unmarshal([]byte(text), &read); err != nil {
		t.Fatal(err)
	}
	if len(read.Objects) != 3+6+4 || len(read.Edges) != 8 {
		t.Errorf("Graphviz reads %d objects and %d lines of:\n%s", len(read.Objects), len(read.Edges), dot)
	}
}

// label is a text of Mermaid, which has nothing in it that ends it.
var label = regexp.MustCompile(`\["[^"\[\]<>]*(<br/>[^"\[\]<>]*)?"\]`)

func mermaidLines(t *testing.T, plain, evil string) {
	t.Helper()
	bare := func(text string) []string {
		lines := strings.Split(label.ReplaceAllString(text, "[]"), "\n")
		return lines[1:] // the first is a comment
	}
	if diff := cmp.Diff(bare(plain), bare(evil)); diff != "" {
		t.Errorf("lines of the flowchart (-plain +hostile):\n%s", diff)
	}
	if first, _, _ := strings.Cut(evil, "\n"); !strings.HasPrefix(first, "%% ") || strings.Contains(first[3:], "%%") {
		t.Errorf("the comment is %q", first)
	}
}

// A thousand findings at one arrow are no text of a thousand lines.
func TestManyFindingsAreCounted(t *testing.T) {
	d := sample("cp")
	for range 1000 {
		d.Arrows[2].Server.Findings = append(d.Arrows[2].Server.Findings, len(d.Findings))
		d.Groups[1].Findings = append(d.Groups[1].Findings, len(d.Findings))
		d.Findings = append(d.Findings, check.Finding{ID: "cert-expired", Severity: check.Error, Cause: strings.Repeat("x", 1000)})
	}
	for form, most := range map[string]int{"svg": 48 << 10, "dot": 48 << 10, "mermaid": 1 << 10} {
		if text := drawn(t, form, d); len(text) > most || form != "mermaid" && !strings.Contains(text, "and 996 more findings") {
			t.Errorf("%s: %d bytes", form, len(text))
		}
	}
}

func TestSeveralClustersAreOnePage(t *testing.T) {
	var b bytes.Buffer
	p := picture.NewPage(&b)
	for i := range 3 {
		d := sample("cp")
		d.Name = fmt.Sprintf("cluster-%d", i)
		if err := p.Add(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	htmlElements(t, b.String())
	ids := map[string]bool{}
	root, _ := html.Parse(&b)
	var hrefs []string
	for n := range root.Descendants() {
		for _, a := range n.Attr {
			switch a.Key {
			case "id":
				if ids[a.Val] {
					t.Errorf("two elements are called %s", a.Val)
				}
				ids[a.Val] = true
			case "href":
				hrefs = append(hrefs, strings.TrimPrefix(a.Val, "#"))
			}
		}
	}
	for _, h := range hrefs {
		if !ids[h] {
			t.Errorf("a reference to %s leads nowhere", h)
		}
	}
	if len(hrefs) < 3*(2+4*2) {
		t.Errorf("%d references", len(hrefs))
	}
}

func TestAPageWithoutClustersIsEmpty(t *testing.T) {
	var b bytes.Buffer
	if err := picture.NewPage(&b).Close(); err != nil || b.Len() > 0 {
		t.Errorf("%q, %v", b.String(), err)
	}
}

// What is broken is said in words, not by colour alone.
func TestWhoDoesNotSeeColoursIsTold(t *testing.T) {
	svg := drawn(t, "svg", sample("cp"))
	for _, want := range []string{
		`aria-label="link 3: kube-apiserver of cp → etcd of cp; caller shows: cp, ok (handshake), by ca, ends 2026-07-01 (30d), first cp:/etc/kubernetes/cp; callee shows: cp, broken, by ca, ends 2026-07-01 (30d), first cp:/etc/kubernetes/cp; error cert-expired: cp ended; warning cert-expiring: cp ends soon"`,
		`class="sign bad"`, `>✗</text>`, `>?</text>`, `>!</text>`, `stroke-dasharray:8 5`, `role="graphics-document document"`,
	} {
		if !strings.Contains(svg, want) {
			t.Errorf("the SVG has not %s", want)
		}
	}
	if n := strings.Count(svg, `tabindex="0"`); n != 4 {
		t.Errorf("%d links can be focused, of 4", n)
	}
}

var variable = regexp.MustCompile(`--(\w+):(#[0-9a-f]+)`)

// Colours have the contrast of WCAG 2.2: lines 3:1 (1.4.11), texts 4.5:1 (1.4.3).
func TestColoursHaveContrast(t *testing.T) {
	_, style, _ := strings.Cut(drawn(t, "svg", sample("cp")), "<style>")
	blocks := strings.SplitAfterN(style, "}", 4)
	light := map[string]string{}
	for _, m := range variable.FindAllStringSubmatch(blocks[0], -1) {
		light[m[1]] = m[2]
	}
	faces := []map[string]string{light}
	for _, block := range blocks[1:3] {
		face := map[string]string{}
		for k, v := range light {
			face[k] = v
		}
		for _, m := range variable.FindAllStringSubmatch(block, -1) {
			face[m[1]] = m[2]
		}
		if face["ink"] != light["ink"] {
			faces = append(faces, face)
		}
	}
	if len(faces) < 2 {
		t.Fatal("there is no dark face")
	}
	for _, face := range faces {
		for name, colour := range face {
			for _, ground := range []string{"bg", "group", "box"} {
				least := 3.0
				switch name {
				case "bg", "group", "box", "rule", "on", "badbg":
					continue
				case "ink", "soft", "bad":
					least = 4.5
				}
				if got := contrast(t, colour, face[ground]); got < least {
					t.Errorf("%s %s on %s %s: %.2f", name, colour, ground, face[ground], got)
				}
			}
		}
		if got := contrast(t, face["on"], face["bad"]); got < 4.5 {
			t.Errorf("a number on red: %.2f", got)
		}
	}
}

func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	luminance := func(hex string) float64 {
		hex = strings.TrimPrefix(hex, "#")
		if len(hex) == 3 {
			hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
		}
		sum := 0.0
		for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
			n, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
			if err != nil {
				t.Fatal(err)
			}
			c := float64(n) / 255
			if c <= 0.04045 {
				c /= 12.92
			} else {
				c = math.Pow((c+0.055)/1.055, 2.4)
			}
			sum += weight * c
		}
		return sum
	}
	x, y := luminance(a), luminance(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}
