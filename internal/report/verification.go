package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/trust"
)

// Verification is the answer of `kubepki verify` for one cluster.
type Verification struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Name       string         `json:"name,omitempty"` // folder, when several clusters are verified
	At         time.Time      `json:"at"`
	Healthy    bool           `json:"healthy"`
	Nodes      []VerifiedNode `json:"nodes"`
	// API is what was looked at in the cluster's API; absent when it was not.
	API      *VerifiedAPI    `json:"api,omitempty"`
	Links    []VerifiedLink  `json:"links"`
	Findings []check.Finding `json:"findings"`
	// Observations are what was seen of the running components; absent when
	// they were not looked at.
	Observations []Observed `json:"observations,omitempty"`
}

// VerifiedNode is one node that was read.
type VerifiedNode struct {
	Name   string `json:"name"`
	Layout string `json:"layout,omitempty"`
}

// VerifiedLink is one link with its halves.
type VerifiedLink struct {
	Number   int            `json:"number"`
	Caller   string         `json:"caller"`
	Callee   string         `json:"callee"`
	OK       bool           `json:"ok"`
	Halves   []VerifiedHalf `json:"halves"`
	Findings []string       `json:"findings"`
}

// VerifiedHalf is one half of a link: client is the caller's credential judged
// by the callee, server the callee's judged by the caller.
type VerifiedHalf struct {
	Side  string      `json:"side"`
	State check.State `json:"state"`
	Proof check.Proof `json:"proof"`
}

// layoutUsers is layout.LayoutUsers: this package knows no disk.
const layoutUsers = "users"

// NewVerification puts a result into its public form.
func NewVerification(g *trust.Graph, r *check.Result, at time.Time) Verification {
	v := Verification{
		APIVersion: APIVersion, Kind: "Verification", At: at.UTC().Truncate(time.Second), Healthy: r.Healthy(),
		Nodes: []VerifiedNode{}, Links: []VerifiedLink{}, Findings: append([]check.Finding{}, r.Findings...),
	}
	for i := range g.Observations {
		v.Observations = append(v.Observations, newObserved(&g.Observations[i]))
	}
	for _, n := range g.Nodes {
		if n.Layout == layoutUsers || n.Objects != nil {
			continue // a folder beside the nodes
		}
		v.Nodes = append(v.Nodes, VerifiedNode{Name: n.Name, Layout: n.Layout})
	}
	v.API = newVerifiedAPI(g.Objects())
	for i := range r.Links {
		l := &r.Links[i]
		out := VerifiedLink{Number: l.Number, Caller: l.Caller, Callee: l.Callee, OK: l.OK(), Halves: []VerifiedHalf{}, Findings: append([]string{}, l.Findings...)}
		for _, h := range l.Halves {
			out.Halves = append(out.Halves, VerifiedHalf{Side: h.Side, State: h.State, Proof: h.Proof})
		}
		v.Links = append(v.Links, out)
	}
	return v
}

// Text prints a verification for people: the links, then the findings, then
// one line that sums up.
func (v *Verification) Text(w io.Writer, p Palette) error {
	if v.Name != "" {
		fmt.Fprintf(w, "%s\n\n", p.Bold(v.Name))
	}
	if err := Table(w, []string{"#", "CALLER", "CALLEE", "CALLER'S CREDENTIAL", "CALLEE'S CREDENTIAL", "FINDINGS"}, v.rows(p)); err != nil {
		return err
	}
	if len(v.Observations) > 0 {
		fmt.Fprintln(w)
		if err := Table(w, []string{"SERVER", "ADDRESS", "TLS", "SERIAL", "LEFT", "CALLERS"}, v.observedRows(p)); err != nil {
			return err
		}
	}
	if v.API != nil {
		v.API.text(w)
	}
	for i := range v.Findings {
		v.finding(w, &v.Findings[i], p)
	}
	_, err := fmt.Fprintf(w, "\n%s\n", v.summary(p))
	return err
}

// rows joins the links that differ only in which nodes they join, so that three
// control planes are as readable as one.
func (v *Verification) rows(p Palette) [][]string {
	type joined struct {
		cells            []string
		callers, callees []string
	}
	var all []*joined
	index := map[string]*joined{}
	for _, l := range v.Links {
		halves := map[string]string{"client": "–", "server": "–"}
		for _, h := range l.Halves {
			halves[h.Side] = halfText(h, p)
		}
		callerNode, caller := trust.SplitID(l.Caller)
		calleeNode, callee := trust.SplitID(l.Callee)
		cells := []string{strconv.Itoa(l.Number), caller, callee, halves["client"], halves["server"], strings.Join(l.Findings, ", ")}
		key := strings.Join(cells, "\x00")
		j := index[key]
		if j == nil {
			j = &joined{cells: cells}
			index[key] = j
			all = append(all, j)
		}
		j.callers, j.callees = addNode(j.callers, callerNode), addNode(j.callees, calleeNode)
	}
	var rows [][]string
	for _, j := range all {
		v.sortNodes(j.callers)
		v.sortNodes(j.callees)
		j.cells[1], j.cells[2] = Plain(OnNodes(j.cells[1], j.callers)), Plain(OnNodes(j.cells[2], j.callees))
		rows = append(rows, j.cells)
	}
	return rows
}

// sortNodes puts nodes into the order in which they were given.
func (v *Verification) sortNodes(names []string) {
	index := func(name string) int {
		return slices.IndexFunc(v.Nodes, func(n VerifiedNode) bool { return n.Name == name })
	}
	slices.SortFunc(names, func(a, b string) int { return index(a) - index(b) })
}

func addNode(nodes []string, n string) []string {
	if n == "" || slices.Contains(nodes, n) {
		return nodes
	}
	return append(nodes, n)
}

// OnNodes says what is the same on several nodes in few words: "etcd of cp1, cp2",
// the component alone without nodes.
func OnNodes(component string, nodes []string) string {
	const shown = 4
	switch {
	case len(nodes) == 0:
		return component
	case len(nodes) > shown:
		return fmt.Sprintf("%s of %s and %d more", component, strings.Join(nodes[:shown-1], ", "), len(nodes)-shown+1)
	}
	return component + " of " + strings.Join(nodes, ", ")
}

func halfText(h VerifiedHalf, p Palette) string {
	switch h.State {
	case check.Broken:
		return p.Red("broken")
	case check.Unseen:
		return "unseen"
	}
	return p.Green("ok") + " (" + string(h.Proof) + ")"
}

func (v *Verification) finding(w io.Writer, f *check.Finding, p Palette) {
	fmt.Fprintf(w, "\n%s %s%s\n", p.severity(f.Severity), p.Bold(f.ID), linksText(f.Links))
	fmt.Fprintf(w, "  cause: %s\n", Plain(f.Cause))
	where := f.Path
	if len(v.Nodes) > 1 && f.Node != "" {
		where = f.Node + ":" + where
	}
	if f.Field != "" {
		where = strings.TrimSpace(where + " (" + f.Field + ")")
	}
	if where != "" {
		fmt.Fprintf(w, "  where: %s\n", Plain(where))
	}
	others(w, f.Paths, f.Path)
	fixText(w, f)
	if len(f.References) > 0 {
		fmt.Fprintf(w, "  see:   %s\n", Plain(strings.Join(f.References, ", ")))
	}
	for i, c := range f.Consequences {
		label := "  hence:"
		if i > 0 {
			label = "        "
		}
		fmt.Fprintf(w, "%s %s %s\n", label, c.ID, Plain(c.Path))
	}
}

// fixText shows a fix on a line of its own that can be copied, and what to know of
// it below, as sh's comment.
func fixText(w io.Writer, f *check.Finding) {
	if f.Fix == "" {
		return
	}
	fmt.Fprintf(w, "  fix:   %s\n", Plain(f.Fix))
	if f.FixNote != "" {
		fmt.Fprintf(w, "         # %s\n", Plain(f.FixNote))
	}
}

func linksText(links []int) string {
	if len(links) == 0 {
		return ""
	}
	texts := make([]string, len(links))
	for i, n := range links {
		texts[i] = strconv.Itoa(n)
	}
	return " (link " + strings.Join(texts, ", ") + ")"
}

func (v *Verification) summary(p Palette) string {
	count := func(s check.Severity) int {
		n := 0
		for _, f := range v.Findings {
			if f.Severity == s {
				n++
			}
		}
		return n
	}
	broken := slices.DeleteFunc(slices.Clone(v.Links), func(l VerifiedLink) bool { return l.OK })
	verdict := p.Green("healthy")
	seen, all := v.seen()
	if seen == 0 {
		verdict = "nothing was seen that could be judged"
	}
	if !v.Healthy {
		verdict = p.Red("not healthy")
	}
	unseen := ""
	if seen < all {
		unseen = fmt.Sprintf(", %d of %d halves not seen", all-seen, all)
	}
	if len(v.Observations) > 0 {
		unseen += fmt.Sprintf(", %d of %d proved live", v.live(), all)
	}
	return fmt.Sprintf("%s at %s: %d links, %d broken%s; %d errors, %d warnings, %d infos",
		verdict, v.At.Format(time.RFC3339), len(v.Links), len(broken), unseen, count(check.Error), count(check.Warning), count(check.Info))
}

// seen counts the halves that could be judged.
func (v *Verification) seen() (seen, all int) {
	for _, l := range v.Links {
		for _, h := range l.Halves {
			all++
			if h.State != check.Unseen {
				seen++
			}
		}
	}
	return seen, all
}

// live counts the halves that were seen to work.
func (v *Verification) live() (n int) {
	for _, l := range v.Links {
		for _, h := range l.Halves {
			if h.Proof == check.ByLive && h.State == check.OK {
				n++
			}
		}
	}
	return n
}

// Printer prints the verifications of one or several clusters as one answer,
// each as soon as it is there, so that memory stays bounded.
type Printer struct {
	W       io.Writer
	Format  string // table, json or yaml
	Several bool   // as one VerificationList
	Palette Palette
	printed int
}

// Print prints one verification.
func (p *Printer) Print(v *Verification) error {
	defer func() { p.printed++ }()
	switch {
	case p.Format == "table":
		if p.printed > 0 {
			fmt.Fprintln(p.W)
		}
		return v.Text(p.W, p.Palette)
	case !p.Several:
		return Document(p.W, p.Format, v)
	case p.Format == "json":
		return p.item(v)
	}
	return p.yamlItem(v)
}

func (p *Printer) item(v *Verification) error {
	lead := ",\n"
	if p.printed == 0 {
		lead = listHead()
	}
	data, err := json.MarshalIndent(v, "    ", "  ")
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	_, err = fmt.Fprintf(p.W, "%s    %s", lead, data)
	return err
}

func listHead() string {
	return fmt.Sprintf("{\n  \"apiVersion\": %q,\n  \"kind\": \"VerificationList\",\n  \"items\": [\n", APIVersion)
}

func (p *Printer) yamlItem(v *Verification) error {
	if p.printed == 0 {
		fmt.Fprintf(p.W, "apiVersion: %s\nitems:\n", APIVersion)
	}
	var b strings.Builder
	if err := Document(&b, "yaml", v); err != nil {
		return err
	}
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	_, err := fmt.Fprintf(p.W, "- %s\n", strings.Join(lines, "\n  "))
	return err
}

// Close ends the answer.
func (p *Printer) Close() error {
	if !p.Several {
		return nil
	}
	var err error
	switch p.Format {
	case "json":
		if p.printed == 0 {
			fmt.Fprint(p.W, listHead())
		}
		_, err = fmt.Fprint(p.W, "\n  ]\n}\n")
	case "yaml":
		if p.printed == 0 {
			fmt.Fprintf(p.W, "apiVersion: %s\nitems: []\n", APIVersion)
		}
		_, err = fmt.Fprint(p.W, "kind: VerificationList\n")
	}
	return err
}
