package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// trustChangeFlags are those of the commands that change bundles.
type trustChangeFlags struct {
	trustFlags
	yes, dryRun, force bool
}

func (o *trustChangeFlags) add(f *pflag.FlagSet, force string) {
	o.trustFlags.add(f, "table, json or yaml")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be changed, and change nothing")
	f.BoolVar(&o.force, "force", false, force)
}

// source looks for bundles that shall be changed; a dry run mends nothing.
func (o *trustChangeFlags) source(s streams) *trustSource {
	if o.dryRun {
		return &trustSource{flags: &o.trustFlags}
	}
	return &trustSource{flags: &o.trustFlags, talk: s.err}
}

// trustChange is what a command does to one bundle.
type trustChange struct {
	*trustBundle
	after          *bundle.Text
	added, removed []*x509.Certificate
	already        []*x509.Certificate // that should be added and are there, or is kept by prune
	again          []*x509.Certificate // that re-certify an added one, and stay
	separate       *separateFile
	readers        []bundle.Setting
	takeup         []string
}

func (c *trustChange) changes() bool { return !bytes.Equal(c.text.Bytes(), c.after.Bytes()) }

// trustPlan is what a command is about to do.
type trustPlan struct {
	changes []*trustChange
	// warnings are said before it is asked.
	warnings []string
	// unsafe is why the plan is not carried out without --force.
	unsafe []string
	// hint is what to do instead of --force.
	hint string
}

// editable refuses what is not a bundle that kubepki edits.
func (b *trustBundle) editable() error {
	switch {
	case b.file.Field != "":
		return advise(fmt.Errorf("%s is a field of a kubeconfig, which is not edited here", b.file), "kubectl config --kubeconfig %s set-cluster NAME --certificate-authority=FILE --embed-certs=true", b.file.Path)
	case slices.ContainsFunc(b.text.Others, func(o bundle.Other) bool { return o.Private }):
		return advise(fmt.Errorf("%s holds a private key: it is no bundle", b.where()), "whoever may read a bundle has read the key: take it out, and make the authority anew where it is one's")
	case b.object == nil && len(b.text.Anchors) == 0 && len(bytes.TrimSpace(b.text.Bytes())) > 0:
		return fmt.Errorf("%s holds text and no certificate: it is no bundle", b.where())
	}
	return nil
}

// describe says who reads a file, and when they take the change up.
func (c *trustChange) describe(n *trustNodes) {
	if !c.known() {
		return
	}
	c.readers = bundle.Readers(n.Graph, n.Settings, c.file)
	if c.separate != nil {
		c.readers = []bundle.Setting{c.setting}
		c.takeup = []string{"the kubelet starts " + c.setting.Component + " anew, once, for its changed manifest; later changes: " + n.Takeup(c.setting)}
		return
	}
	for _, r := range c.readers {
		line := r.Component + "/" + r.Name + ": " + n.Takeup(r)
		if !slices.Contains(c.takeup, line) {
			c.takeup = append(c.takeup, line)
		}
	}
}

// judge makes the changes of files in memory and judges all links and rules, at some
// times: today counts whatever --at says, for on a day on which all has expired
// nobody needs anything.
func (p *trustPlan) judge(n *trustNodes, times ...time.Time) {
	var edits []bundle.Edit
	for _, c := range p.changes {
		if !c.known() || !c.changes() && c.separate == nil {
			continue
		}
		e := bundle.Edit{File: c.file, Anchors: c.after.Certificates()}
		if c.separate != nil {
			e.File.Path, e.Setting = c.separate.path, c.setting
		}
		edits = append(edits, e)
	}
	if len(edits) == 0 {
		return
	}
	for _, at := range times {
		effect := bundle.Judge(n.Nodes.Nodes, edits, check.Options{At: at})
		for _, why := range whoNeed(effect.Lost) {
			p.refuse(why)
		}
		for _, f := range effect.Findings {
			p.refuse(fmt.Sprintf("%s: %s", f.ID, f.Cause))
		}
	}
}

// whoNeed names what would be lost, each credential once for a kind of link: on many
// nodes there are many links by it.
func whoNeed(all []bundle.Lost) []string {
	type need struct {
		number      int
		certificate string
		server      bool
	}
	var order []need
	links := map[need][]*trust.Link{}
	for _, l := range all {
		n := need{l.Link.Number, l.Credential.Certificate.String(), l.Server}
		if links[n] == nil {
			order = append(order, n)
		}
		links[n] = append(links[n], l.Link)
	}
	var reasons []string
	for _, n := range order {
		caller, callee, side, more := links[n][0].Caller, links[n][0].Callee, "client", ""
		if others := len(links[n]) - 1; others > 0 {
			more = fmt.Sprintf(" and %d more", others)
		}
		if n.server {
			caller, side = caller+more, "server"
		} else {
			callee += more
		}
		reasons = append(reasons, fmt.Sprintf("link %d, %s → %s, needs it: %s is verified by it (%s)", n.number, caller, callee, n.certificate, side))
	}
	return reasons
}

// refuse notes a reason against the plan, once: it may hold on several nodes.
func (p *trustPlan) refuse(why string) {
	if !slices.Contains(p.unsafe, why) {
		p.unsafe = append(p.unsafe, why)
	}
}

// warn notes what is to be known before the answer, once.
func (p *trustPlan) warn(text string) {
	if text != "" && !slices.Contains(p.warnings, text) {
		p.warnings = append(p.warnings, text)
	}
}

// strict warns of what etcd and its clients do not pass over, as others do.
func (p *trustPlan) strict() {
	for _, c := range p.changes {
		for _, r := range c.readers {
			if name := r.Component + "/" + r.Name; r.Component == catalog.Etcd || name == "kube-apiserver/etcd-cafile" {
				if why := c.after.ToEtcd(); why != "" {
					p.warn(name + ": " + why)
				}
			}
		}
	}
}

// fewReasons fit into one line.
const fewReasons = 3

// run shows a plan, asks, and carries it out.
func (o *trustChangeFlags) run(ctx context.Context, s streams, source *trustSource, p *trustPlan, edit func(*bundle.Text) (*bundle.Text, error), at time.Time) error {
	p.strict()
	p.print(s.err)
	if len(p.unsafe) > 0 && !o.force {
		why := strings.Join(p.unsafe, "; ")
		if len(p.unsafe) > fewReasons {
			why = fmt.Sprintf("%s; and %d more reasons, above", p.unsafe[0], len(p.unsafe)-1)
			for _, u := range p.unsafe {
				fmt.Fprintf(s.err, "  ! %s\n", report.Plain(u))
			}
		}
		return advise(fmt.Errorf("nothing is changed: %s", why), "%s", cmp.Or(p.hint, "--force does it all the same"))
	}
	for _, u := range p.unsafe {
		fmt.Fprintf(s.err, "kubepki: warning: by --force, though %s\n", report.Plain(u))
	}
	any := slices.ContainsFunc(p.changes, func(c *trustChange) bool { return c.changes() || c.separate != nil })
	if any && !o.dryRun {
		if err := o.confirm(s); err != nil {
			return err
		}
	}
	if any {
		if err := o.apply(ctx, source, p, edit); err != nil {
			return err
		}
	}
	return o.answer(s, p, at)
}

// confirm asks on a terminal; elsewhere --yes is the answer.
func (o *trustChangeFlags) confirm(s streams) error { return confirm(s, o.yes) }

func confirm(s streams, yes bool) error {
	if yes {
		return nil
	}
	f, ok := s.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return advise(errors.New("nothing is changed: nobody is here to ask"), "look at the plan, and give --yes")
	}
	fmt.Fprint(s.err, "Go on? [y/N] ")
	line, err := bufio.NewReader(io.LimitReader(f, 100)).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); err != nil || answer != "y" && answer != "yes" {
		return errors.New("nothing is changed: the answer was not yes")
	}
	return nil
}

// apply changes files or objects: targets name one kind.
func (o *trustChangeFlags) apply(ctx context.Context, source *trustSource, p *trustPlan, edit func(*bundle.Text) (*bundle.Text, error)) error {
	if p.changes[0].object == nil {
		return applyFiles(p, o.dryRun)
	}
	ref := p.changes[0].object.Ref
	_, _, err := source.api.Edit(ctx, ref, o.dryRun, func(now *kube.BundleObject, f kube.BundleField) ([]byte, error) {
		if now.Writer != p.changes[0].object.Writer {
			return nil, fmt.Errorf("%s was changed by somebody else meanwhile: run the same command again", ref)
		}
		text, err := bundle.Parse(f.PEM)
		if err != nil {
			return nil, fmt.Errorf("%s#%s: %w", ref, f.Field, err)
		}
		after, err := edit(text)
		if err != nil {
			return nil, fmt.Errorf("%s#%s: %w", ref, f.Field, err)
		}
		return after.Bytes(), nil
	})
	return adviseBundle(err, ref)
}

// print shows the plan on stderr.
func (p *trustPlan) print(w io.Writer) {
	for _, c := range p.changes {
		fmt.Fprintf(w, "%s\n", report.Plain(c.where()))
		if c.separate != nil {
			fmt.Fprintf(w, "  --%s of %s will name %s, which holds its anchors and the new\n", c.setting.Name, c.separate.manifest, c.separate.path)
		}
		for _, a := range c.added {
			fmt.Fprintf(w, "  + %s\n", anchorText(a))
		}
		for _, a := range c.removed {
			fmt.Fprintf(w, "  - %s%s\n", anchorText(a), c.copied(a))
		}
		for _, a := range c.already {
			fmt.Fprintf(w, "  = %s\n", anchorText(a))
		}
		for _, a := range c.again {
			fmt.Fprintf(w, "  ~ %s  (re-certified: of the same name and key; it stays)\n", anchorText(a))
		}
		for _, t := range c.takeup {
			fmt.Fprintf(w, "  %s\n", t)
		}
		if !c.known() && c.object == nil {
			fmt.Fprintf(w, "  no component of the nodes that were looked at reads it\n")
		}
	}
	for _, t := range p.warnings {
		fmt.Fprintf(w, "kubepki: warning: %s\n", report.Plain(t))
	}
}

// copied says of an anchor that goes that it is a copy, and is trusted as before.
func (c *trustChange) copied(a *x509.Certificate) string {
	if c.after.Holds(a) {
		return "  (a second copy: one stays)"
	}
	return ""
}

// trustChangeDocument is the answer of a change in machine output.
type trustChangeDocument struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	DryRun     bool              `json:"dryRun"`
	Changed    bool              `json:"changed"`
	Warnings   []string          `json:"warnings"`
	Items      []trustChangeItem `json:"items"`
}

type trustChangeItem struct {
	Target  string           `json:"target"`
	Place   string           `json:"place"`
	File    string           `json:"file,omitempty"` // that --separate made
	Changed bool             `json:"changed"`
	Added   []anchorDocument `json:"added"`
	Removed []anchorDocument `json:"removed"`
	Kept    []anchorDocument `json:"kept"`
	Readers []string         `json:"readers"`
	TakeUp  []string         `json:"takeUp"`
}

// answer says on stdout what was done.
func (o *trustChangeFlags) answer(s streams, p *trustPlan, at time.Time) error {
	d := trustChangeDocument{APIVersion: report.APIVersion, Kind: "TrustChange", DryRun: o.dryRun, Warnings: append([]string{}, p.warnings...), Items: []trustChangeItem{}}
	would := ""
	if o.dryRun {
		would = " (dry run)"
	}
	for _, c := range p.changes {
		i := trustChangeItem{Target: c.target, Place: c.where(), Changed: c.changes() || c.separate != nil, Added: anchorDocuments(c.added, at), Removed: anchorDocuments(c.removed, at),
			Kept: anchorDocuments(c.already, at), Readers: []string{}, TakeUp: append([]string{}, c.takeup...)}
		if c.separate != nil {
			i.File = c.separate.path
		}
		for _, r := range c.readers {
			i.Readers = append(i.Readers, r.Target())
		}
		d.Changed = d.Changed || i.Changed
		d.Items = append(d.Items, i)
		if o.output == "table" {
			if _, err := fmt.Fprintf(s.out, "%s %s%s\n", report.Plain(c.shown()), c.did(), would); err != nil {
				return err
			}
		}
	}
	if o.output == "table" {
		return nil
	}
	return report.Document(s.out, o.output, d)
}

// shown is the place where the anchors stand from now on.
func (c *trustChange) shown() string {
	if c.separate != nil {
		return trust.Place{Node: c.file.Node, Path: c.separate.path}.String()
	}
	return c.where()
}

func (c *trustChange) did() string {
	switch {
	case c.separate != nil:
		return "made: " + counted(len(c.added), "anchor") + " more than " + c.file.Path
	case len(c.added) > 0:
		return counted(len(c.added), "anchor") + " added"
	case len(c.removed) > 0:
		return counted(len(c.removed), "anchor") + " removed"
	}
	return "unchanged"
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
