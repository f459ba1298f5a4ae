package main

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/recovery"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// sayState says in two lines what time has done to the cluster, and since when.
func (r *recovered) sayState(s streams) {
	all := len(r.state.Credentials) + r.state.Alive
	first, last := time.Time{}, time.Time{}
	note := func(c time.Time) {
		if c.Before(r.clock.Now) {
			if first.IsZero() || c.Before(first) {
				first = c
			}
			if c.After(last) {
				last = c
			}
		}
	}
	for _, cred := range r.state.Credentials {
		note(r.nodes.Graph.Material(cred.Certificate).Leaf().NotAfter)
	}
	var authorities []string
	for _, a := range r.state.Authorities {
		note(a.Dead.NotAfter)
		if !slices.Contains(authorities, a.Name) {
			authorities = append(authorities, a.Name)
		}
	}
	text := fmt.Sprintf("%d of %d certificates and kubeconfigs are over", len(r.state.Credentials), all)
	if len(authorities) > 0 {
		text += ", and the authorities " + strings.Join(authorities, ", ") + " are over themselves"
	} else {
		text += "; of the authorities none is"
	}
	if n := len(r.state.Copies); n > 0 {
		text += fmt.Sprintf("; an authority's old certificate stands in %s more", counted(n, "place"))
	}
	if !first.IsZero() {
		text += fmt.Sprintf("; since %s", first.UTC().Format(time.DateOnly))
		if last.Sub(first) > 24*time.Hour {
			text += " to " + last.UTC().Format(time.DateOnly)
		}
	}
	fmt.Fprintf(s.err, "state: %s\n", report.Plain(text))
	clock := "nothing tells whether the clock is right"
	switch l := r.clock.Last(); {
	case r.doubt != nil:
		clock = r.doubt.String()
	case l != nil:
		clock = fmt.Sprintf("it is %s; newest of the cluster: %s", r.clock.Now.UTC().Format(time.RFC3339), l)
	}
	fmt.Fprintf(s.err, "clock: %s\n", report.Plain(clock))
}

// print shows state and plan on stderr.
func (r *recovered) print(s streams) error {
	r.sayState(s)
	fmt.Fprintf(s.err, "plan:  %s\n", report.Plain(r.summary()))
	var rows [][]string
	for _, a := range r.plan.Authorities {
		how := "as " + a.Files[0].Name + " of another node has it"
		if a.Item != nil {
			how = "kept"
		}
		rows = append(rows, []string{report.Plain(authorityID(a)), "over", how, a.Dead.NotAfter.UTC().Format(time.DateOnly), "→ " + a.New.NotAfter.UTC().Format(time.DateOnly)})
	}
	for _, i := range r.renewal.Items {
		key := "new " + string(i.Algorithm)
		if i.Reused() {
			key = "kept"
		}
		rows = append(rows, []string{report.Plain(i.ID()), r.why(i.Old), key, oldEnd(i.Item), "→ " + i.Made.Chain[0].NotAfter.UTC().Format(time.DateOnly)})
	}
	if len(rows) > 0 {
		if err := report.Table(s.err, []string{"CREDENTIAL", "WHY", "KEY", "EXPIRES", ""}, rows); err != nil {
			return err
		}
	}
	for _, f := range r.copies {
		fmt.Fprintf(s.err, "%s: the authority's new certificate in the place of the old one\n", report.Plain(placeName(f.Place)))
	}
	for _, c := range r.carried {
		fmt.Fprintf(s.err, "%s: %s, to be carried there\n", report.Plain(c.Node), report.Plain(strings.Join(c.Files, ", ")))
	}
	for _, i := range r.plan.Items {
		for _, w := range i.Warnings {
			fmt.Fprintf(s.err, "kubepki: warning: %s: %s\n", report.Plain(i.ID()), report.Plain(w))
		}
	}
	for _, w := range r.renewal.Warnings {
		fmt.Fprintf(s.err, "kubepki: warning: %s\n", report.Plain(w))
	}
	r.printLeft(s)
	return nil
}

func authorityID(a recovery.Certified) string {
	if node := a.Files[0].Node; node != "" {
		return node + "/" + a.Name
	}
	return a.Name
}

// endOf is when a certificate ends, in UTC; no time where there is none.
func endOf(c *x509.Certificate) time.Time {
	if c == nil {
		return time.Time{}
	}
	return c.NotAfter.UTC()
}

// notGiven names certificates of the nodes that nobody has seen, for they may be over too.
func notGiven(g *trust.Graph) []string {
	var out []string
	for _, cred := range g.Credentials {
		if m := g.Material(cred.Certificate); m != nil && m.State == trust.NotGiven {
			out = append(out, fmt.Sprintf("%s is not in what was given: whether it is over was not seen", placeName(cred.Certificate)))
		}
	}
	return out
}

// why says what is wrong with a certificate's time.
func (r *recovered) why(old *x509.Certificate) string {
	switch {
	case old == nil:
		return "missing"
	case r.clock.Now.After(old.NotAfter):
		return "over"
	case r.clock.Now.Before(old.NotBefore):
		return "not begun"
	case r.all:
		return "asked for"
	}
	return "its chain is over"
}

// summary says in one line what is done.
func (r *recovered) summary() string {
	var parts []string
	if n := len(r.plan.Authorities); n > 0 {
		parts = append(parts, fmt.Sprintf("%s certified again with their names and keys", counted(n, "authority certificate")))
	}
	if n := len(r.plan.Items); n > 0 {
		parts = append(parts, fmt.Sprintf("%s made anew", counted(n, "credential")))
	}
	if n := len(r.renewal.Files); n > 0 {
		parts = append(parts, counted(n, "file")+" written on "+counted(len(r.touched()), "node"))
	}
	if n := len(r.carried); n > 0 {
		parts = append(parts, "files to be carried to "+counted(n, "node"))
	}
	if n := len(r.plan.Left); n > 0 {
		parts = append(parts, counted(n, "credential")+" left")
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

// touched are the nodes of which files are written.
func (r *recovered) touched() []string {
	var nodes []string
	for _, f := range r.renewal.Files {
		if !slices.Contains(nodes, f.Place.Node) {
			nodes = append(nodes, f.Place.Node)
		}
	}
	return nodes
}

// printLeft says what cannot be made anew here, and how it is done elsewhere: once for
// all that are left for one reason.
func (r *recovered) printLeft(s streams) {
	for _, l := range r.plan.Left {
		fmt.Fprintf(s.err, "left: %s: %s\n", report.Plain(l.ID()), report.Plain(reasonOf(l.Reason)))
	}
	var said []string
	for _, l := range r.plan.Left {
		for _, h := range hints(l.Reason) {
			if !slices.Contains(said, h) {
				said = append(said, h)
				fmt.Fprintf(s.err, "hint: %s\n", report.Plain(h))
			}
		}
	}
	r.sayLost(s)
	if external := r.external(); len(external) > 0 {
		fmt.Fprintf(s.err, "hint: where the key is kept elsewhere, requests for those who have it: kubepki renew %s --csr-only%s\n", report.Plain(strings.Join(external, " ")), report.Plain(r.rootFlags()))
	}
}

// sayLost tells what there is to do where an authority itself cannot come back.
func (r *recovered) sayLost(s streams) {
	for _, l := range r.plan.Left {
		if r.isAuthority(l) && !strings.Contains(reasonOf(l.Reason), "keeps it itself") {
			fmt.Fprintln(s.err, "hint: an authority that is over comes back by its key alone: by --ca-key where that is kept elsewhere; where it is lost or weak, docs/recover.md tells how another takes its place while nothing runs")
			r.sayReplaced(s)
			return
		}
	}
}

func (r *recovered) isAuthority(l recovery.Left) bool {
	return slices.ContainsFunc(r.plan.Graph.Authorities, func(a trust.Authority) bool { return a.Certificate == l.Place })
}

// reasonOf is a reason without the name that is said before it.
func reasonOf(err error) string {
	var refusal *renew.Refusal
	if errors.As(err, &refusal) {
		return refusal.Reason
	}
	return err.Error()
}

// external are the leaves that are left for want of their authority's key alone.
func (r *recovered) external() []string {
	var ids []string
	for _, l := range r.plan.Left {
		if !r.isAuthority(l) && strings.Contains(reasonOf(l.Reason), "is not at hand") {
			ids = append(ids, l.ID())
		}
	}
	return ids
}

func (r *recovered) rootFlags() string {
	var text strings.Builder
	for _, n := range r.nodes.Nodes {
		if dir, ok := r.nodes.Dirs[n.Name]; ok && dir != "/" && n.Layout != catalog.LayoutUsers {
			fmt.Fprintf(&text, " --root %s", shellWord(strings.TrimPrefix(n.Name+"="+dir, "=")))
		}
	}
	return text.String()
}

// recoveryDocument is the answer in machine output.
type recoveryDocument struct {
	APIVersion  string           `json:"apiVersion"`
	Kind        string           `json:"kind"`
	DryRun      bool             `json:"dryRun"`
	Needed      bool             `json:"needed"`
	ClockDoubt  string           `json:"clockDoubt,omitempty"`
	Authorities []recoveredItem  `json:"authorities"`
	Items       []recoveredItem  `json:"items"`
	Files       []string         `json:"files"`
	Left        []lostItem       `json:"left"`
	Carried     []carriedNode    `json:"carried"`
	Backup      []string         `json:"backup"`
	Warnings    []string         `json:"warnings"`
	Links       int              `json:"links"`
	Broken      int              `json:"broken"`
	Findings    []check.Finding  `json:"findings"`
	Start       []recovery.Start `json:"start"`
}

type recoveredItem struct {
	ID       string    `json:"id"`
	OldEnd   time.Time `json:"oldNotAfter,omitzero"` // none where nothing was there
	NotAfter time.Time `json:"notAfter"`
	KeptKey  bool      `json:"keptKey"`
}

type lostItem struct {
	ID     string   `json:"id"`
	Reason string   `json:"reason"`
	Hints  []string `json:"hints"`
}

// answer says on stdout what was done and what was proved, and on stderr what is to be
// started then.
func (o *recoverOptions) answer(s streams, r *recovered) error {
	d := o.document(r)
	if o.output != "table" {
		if err := report.Document(s.out, o.output, d); err != nil {
			return err
		}
	} else if err := o.answerTable(s, r, d); err != nil {
		return err
	}
	toCarry := slices.ContainsFunc(r.carried, func(c carriedNode) bool { return !c.there })
	switch {
	case o.dryRun && (len(d.Authorities)+len(d.Items)+len(d.Files) > 0 || toCarry), len(d.Left) > 0, r.proof != nil && r.proof.result.Any(check.Error), !d.Needed && len(r.state.Early) > 0:
		return errFindings
	}
	return nil
}

func (o *recoverOptions) document(r *recovered) *recoveryDocument {
	d := &recoveryDocument{APIVersion: report.APIVersion, Kind: "Recovery", DryRun: o.dryRun, Needed: r.state.Dead(), Authorities: []recoveredItem{}, Items: []recoveredItem{},
		Files: []string{}, Left: []lostItem{}, Carried: append([]carriedNode{}, r.carried...), Backup: []string{}, Warnings: []string{}, Findings: []check.Finding{}, Start: []recovery.Start{}}
	if r.doubt != nil {
		d.ClockDoubt = r.doubt.String()
	}
	if r.proof != nil {
		d.proved(r.proof)
	}
	if r.plan == nil {
		return d
	}
	for _, a := range r.plan.Authorities {
		d.Authorities = append(d.Authorities, recoveredItem{authorityID(a), a.Dead.NotAfter.UTC(), a.New.NotAfter.UTC(), true})
	}
	for _, i := range r.renewal.Items {
		d.Items = append(d.Items, recoveredItem{i.ID(), endOf(i.Old), i.Made.Chain[0].NotAfter.UTC(), i.Reused()})
	}
	var changed []trust.Place
	for _, f := range r.renewal.Files {
		d.Files, changed = append(d.Files, placeName(f.Place)), append(changed, f.Place)
	}
	for _, l := range r.plan.Left {
		d.Left = append(d.Left, lostItem{l.ID(), reasonOf(l.Reason), append([]string{}, hints(l.Reason)...)})
	}
	d.Backup, d.Warnings = append(d.Backup, r.renewal.Backups(r.nodes)...), append(d.Warnings, r.renewal.Warnings...)
	if o.restart.on {
		changed = slices.DeleteFunc(changed, func(p trust.Place) bool { return p.Node == o.restart.node }) // whose components it starts itself
	}
	d.Start = append(d.Start, recovery.Starts(r.plan.Graph, changed)...)
	return d
}

// proved takes over what a proof says.
func (d *recoveryDocument) proved(v *verdict) {
	for _, l := range v.result.Links {
		d.Links++
		if !l.OK() {
			d.Broken++
		}
	}
	for _, f := range v.result.Findings {
		if f.Severity == check.Error {
			d.Findings = append(d.Findings, f)
		}
	}
}

func (o *recoverOptions) answerTable(s streams, r *recovered, d *recoveryDocument) error {
	did := "recovered"
	if o.dryRun {
		did += " (dry run)"
	}
	if len(d.Authorities)+len(d.Items)+len(d.Files)+len(d.Left)+len(d.Carried) == 0 {
		text := "nothing to recover: no certificate of these nodes is over"
		if len(d.Findings) > 0 {
			text = "nothing to recover of what can be read: no certificate there is over; but not all is well"
		}
		if _, err := fmt.Fprintln(s.out, text); err != nil || r.proof == nil {
			return err
		}
		return r.sayProof(s, d)
	}
	for _, i := range slices.Concat(d.Authorities, d.Items) {
		if _, err := fmt.Fprintf(s.out, "%s %s: valid until %s\n", report.Plain(i.ID), did, i.NotAfter.Format(time.RFC3339)); err != nil {
			return err
		}
	}
	if o.dryRun {
		return nil
	}
	for _, dir := range d.Backup {
		fmt.Fprintf(s.err, "what was replaced is kept in %s\n", report.Plain(dir))
	}
	if r.proof == nil {
		return nil
	}
	if err := r.sayProof(s, d); err != nil {
		return err
	}
	r.sayStart(s, d)
	return nil
}

// sayProof says what is proved, and what is still wrong.
func (r *recovered) sayProof(s streams, d *recoveryDocument) error {
	if _, err := fmt.Fprintf(s.out, "proved: %d links, %d broken, %s\n", d.Links, d.Broken, counted(len(d.Findings), "error")); err != nil {
		return err
	}
	for _, f := range d.Findings {
		fmt.Fprintf(s.err, "still %s at %s: %s\n  fix: %s\n", f.ID, report.Plain(trust.Place{Node: f.Node, Path: f.Path}.String()), report.Plain(f.Cause), report.Plain(cmp.Or(f.Fix, "kubepki explain "+f.ID)))
	}
	return nil
}

// sayStart says what to run then, in order.
func (r *recovered) sayStart(s streams, d *recoveryDocument) {
	if len(d.Start) > 0 {
		fmt.Fprintln(s.err, "then start, in this order, what is down, and what still runs on the old files (a static pod that is down its kubelet starts; kubepki verify --live proves each step):")
	}
	for i, step := range d.Start {
		nodes := strings.Join(step.Nodes, ", ")
		if nodes != "" {
			nodes = " of " + nodes
		}
		fmt.Fprintf(s.err, "%3d  %s%s: %s%s\n", i+1, step.Component, report.Plain(nodes), report.Plain(step.Run), noted(step.Note))
	}
	for _, c := range d.Carried {
		fmt.Fprintf(s.err, "carry %s to %s, and there: %s\n", report.Plain(c.Files[0]+" and "+c.Files[1]), report.Plain(c.Node), report.Plain(c.Run))
	}
	if len(d.Authorities) > 0 {
		fmt.Fprintln(s.err, "the API holds copies of the authority too; once it is up: kubepki verify --kubeconfig /etc/kubernetes/admin.conf names them (docs/recover.md)")
	}
}

func noted(note string) string {
	if note == "" {
		return ""
	}
	return "  # " + note
}
