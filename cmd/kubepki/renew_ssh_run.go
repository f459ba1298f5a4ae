package main

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/remote"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/report"
)

// sshRun is one run of renew across nodes.
type sshRun struct {
	*renewOptions
	s        streams
	fleet    *remote.Fleet
	local    *trustNodes    // nil: no folder is here
	items    []*renew.Item  // of nodes whose folders are here
	renewal  *apply.Renewal // of those
	order    []*remote.FarNode
	warnings []string
	restarts map[string][]remote.Restart // by node

	mu       sync.Mutex
	results  map[string]*nodeResult
	failures []error
}

// nodeResult is what became of a node.
type nodeResult struct {
	outcome   *remote.Outcome
	err       error
	restarted []restartedThere
	left      []remote.Restart // that were to be restarted and were not proved
	failed    *remote.Restart  // the one of them that did not come back, with why
}

// overSSH renews across nodes. Nothing is changed anywhere before all nodes were read
// and all was planned.
func (o *renewOptions) overSSH(c *cobra.Command, s streams, ids []string) error {
	ctx := c.Context()
	ids = o.kept.time(ids)
	if err := cmp.Or(o.check(ids), o.ssh.check(o)); err != nil {
		return err
	}
	if o.kept.undo != "" {
		return o.undoOverSSH(c, s)
	}
	r := &sshRun{renewOptions: o, s: s, fleet: &remote.Fleet{At: clock().UTC().Truncate(time.Millisecond)}, results: map[string]*nodeResult{}, restarts: map[string][]remote.Restart{}}
	if err := r.readLocal(); err != nil {
		return err
	}
	o.ssh.restarts = o.restart.on
	login, err := o.ssh.login()
	if err != nil {
		return err
	}
	var down []string
	if r.fleet.Far, down, err = login.far(ctx, s, !o.dryRun); err != nil {
		return err
	}
	defer func() {
		for _, n := range r.fleet.Far {
			n.Client.Close()
		}
	}()
	if err := r.planned(ids); err != nil {
		return err
	}
	if len(r.order) == 0 && len(r.items) == 0 {
		nothing := "nothing is due"
		if len(o.plan.left) > 0 {
			nothing = "nothing is renewed"
		}
		fmt.Fprintln(s.err, nothing)
		return cmp.Or(r.answerFar(down), r.verdict(c, ids, down))
	}
	if err := r.planRestarts(ctx); err != nil {
		return err
	}
	if err := cmp.Or(r.print(), r.printRestarts()); err != nil {
		return err
	}
	if o.dryRun {
		return cmp.Or(r.answerFar(down), o.plan.undone(), o.pending())
	}
	if err := cmp.Or(o.confirm(s), ctx.Err()); err != nil {
		return err
	}
	r.carryOut(ctx)
	if err := r.answerFar(down); err != nil {
		return err
	}
	return r.verdict(c, ids, down)
}

// readLocal reads the nodes whose folders are here; without --root there are none.
func (r *sshRun) readLocal() error {
	var names []string
	if len(r.roots) > 0 {
		n, err := readMendedNodes(r.s, r.roots, r.layout, r.dryRun)
		if err != nil {
			return err
		}
		r.local, r.fleet.Local = n, n.Nodes
		for name := range n.Dirs {
			if name == "" {
				return usagef("--root: a node beside those of --ssh needs a name: use NAME=DIR")
			}
			names = append(names, name)
		}
	}
	if err := r.ssh.parse(r.s, names); err != nil {
		return err
	}
	for _, t := range r.ssh.parsed {
		if slices.Contains(names, t.Name) {
			return usagef("--ssh: node %q is among those of --root too", t.Name)
		}
	}
	return nil
}

func (r *sshRun) planned(ids []string) error {
	if err := r.fleet.Believe(); err != nil {
		return err
	}
	o := remote.Options{IDs: ids, Nodes: r.ssh.nodes, Due: r.plan.due, Wanted: renew.Options{ReuseKey: r.reuseKey, Server: r.server}}
	if err := r.plan.use(&o.Wanted); err != nil {
		return err
	}
	planned, err := r.fleet.Plan(o)
	if err != nil {
		return err
	}
	r.items, r.warnings, r.plan.left = planned.Local, planned.Warnings, planned.Left
	sayLeft(r.s, planned.Left)
	for _, n := range r.fleet.Far {
		if len(n.Items) > 0 {
			r.order = append(r.order, n)
		}
	}
	if len(r.order) == 0 && len(r.items) == 0 && !o.Due {
		return advise(errors.New("nothing can be renewed: the key of no authority is on these nodes"), "add the node that has it, with --ssh or --root NAME=DIR")
	}
	slices.SortStableFunc(r.order, byPlane)
	return nil
}

// byPlane puts nodes of the control plane first.
func byPlane(a, b *remote.FarNode) int {
	switch {
	case a.ControlPlane() == b.ControlPlane():
		return 0
	case a.ControlPlane():
		return -1
	}
	return 1
}

// print shows the plan of all nodes on stderr, in the order in which it is carried out.
func (r *sshRun) print() error {
	var rows [][]string
	row := func(n *apply.Nodes, i *renew.Item) {
		key := "new " + string(i.Algorithm)
		if i.Reused() {
			key = "kept"
		}
		rows = append(rows, []string{report.Plain(i.ID()), report.Plain(strings.Join(shortReasons(i.Why), ", ")), key, oldEnd(i), "→ " + i.NotAfter.UTC().Format(time.DateOnly),
			report.Plain(cmp.Or(i.Issuer.Node, "itself")), report.Plain(cmp.Or(strings.Join(n.TakesUp(i), "; "), "no component of these nodes reads it"))})
	}
	for _, i := range r.items {
		row(r.local.Nodes, i)
	}
	for _, n := range r.order {
		facts := r.fleet.Facts(n)
		for _, i := range n.Items {
			row(facts, i)
		}
	}
	if err := report.Table(r.s.err, []string{"CREDENTIAL", "WHY", "KEY", "EXPIRES", "", "SIGNED ON", "TAKEN UP BY"}, rows); err != nil {
		return err
	}
	each := func(i *renew.Item) {
		for _, w := range i.Warnings {
			r.warn(i.ID() + ": " + w)
		}
	}
	for _, i := range r.items {
		each(i)
	}
	for _, n := range r.order {
		for _, i := range n.Items {
			each(i)
		}
	}
	for _, w := range r.warnings {
		r.warn(w)
	}
	return nil
}

func (r *sshRun) warn(text string) {
	fmt.Fprintf(r.s.err, "kubepki: warning: %s\n", report.Plain(text))
}

// carryOut renews the nodes whose folders are here, then control planes one at a time,
// then workers, some at once. It stops at the first that fails: what runs then ends.
func (r *sshRun) carryOut(ctx context.Context) {
	if err := r.writeLocal(ctx); err != nil {
		r.failures = append(r.failures, err)
		return
	}
	first := slices.IndexFunc(r.order, func(n *remote.FarNode) bool { return !n.ControlPlane() })
	if first < 0 {
		first = len(r.order)
	}
	progress := newNodeProgress(r.s, "nodes renewed", len(r.order))
	defer progress.end()
	for _, n := range r.order[:first] {
		r.renewOne(ctx, n)
		progress.one()
	}
	apply.AtOnce(r.order[first:], r.ssh.parallel, func(n *remote.FarNode) struct{} {
		r.renewOne(ctx, n)
		progress.one()
		return struct{}{}
	})
}

// renewOne renews a node, unless another failed before.
func (r *sshRun) renewOne(ctx context.Context, n *remote.FarNode) {
	if r.stopped(ctx) {
		return
	}
	outcome, err := r.fleet.Renew(ctx, n)
	result := &nodeResult{outcome: outcome, err: err}
	r.told(n, result)
	if err != nil || !r.restart.on {
		return
	}
	err = r.restartOne(ctx, n, result)
	r.mu.Lock()
	defer r.mu.Unlock()
	if result.err = err; err != nil {
		r.failures = append(r.failures, err)
	}
}

// told keeps what became of a node, and says it.
func (r *sshRun) told(n *remote.FarNode, result *nodeResult) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results[n.Name] = result
	for _, w := range result.outcome.Warnings {
		r.warn(w)
	}
	if result.err != nil {
		r.failures = append(r.failures, result.err)
		return
	}
	if result.outcome.Backup != "" {
		fmt.Fprintf(r.s.err, "%s: what was replaced is kept in %s\n", n.Name, report.Plain(result.outcome.Backup))
	}
}

// writeLocal renews the nodes whose folders are here, in one transaction each.
func (r *sshRun) writeLocal(ctx context.Context) error {
	if len(r.items) == 0 {
		return nil
	}
	for _, i := range r.items {
		if _, far := i.Authority().Key.(*remote.HeldKey); far {
			i.Certifier = &farCertifier{r.fleet}
		}
	}
	var err error
	before := check.Run(r.local.Graph, check.Options{At: r.fleet.At})
	if r.renewal, err = apply.Make(ctx, r.local.Nodes, r.items, before, r.fleet.At); err != nil {
		return err
	}
	for _, w := range r.renewal.Warnings {
		r.warn(w)
	}
	if err := r.renewal.Write(r.local.Nodes); err != nil {
		r.renewal = nil
		return err
	}
	for _, dir := range r.renewal.Backups(r.local.Nodes) {
		fmt.Fprintf(r.s.err, "what was replaced is kept in %s\n", report.Plain(dir))
	}
	return nil
}

// farCertifier has certificates signed on the node that has the authority's key.
type farCertifier struct{ fleet *remote.Fleet }

// Certify returns the chain for a key, of which only the public half is used.
func (c *farCertifier) Certify(ctx context.Context, i *renew.Item, key crypto.Signer) ([]*x509.Certificate, error) {
	chains, err := c.fleet.Sign(ctx, []*renew.Item{i}, []crypto.PublicKey{key.Public()})
	if err != nil {
		return nil, err
	}
	return chains[0], nil
}

// renewedNode is a node in machine output.
type renewedNode struct {
	Name   string `json:"name"`
	State  string `json:"state"` // done, same, undone, unknown, wrong, left (not begun), down, planned
	Backup string `json:"backup,omitempty"`
	Error  string `json:"error,omitempty"`
	// Restarted were proved; ToRestart go on with old files.
	Restarted []restartedProcess `json:"restarted,omitempty"`
	ToRestart []restartedProcess `json:"toRestart,omitempty"`
}

// answerFar says on stdout what was done.
func (r *sshRun) answerFar(down []string) error {
	d := renewDocument{APIVersion: report.APIVersion, Kind: "Renewal", DryRun: r.dryRun, Backup: []string{}, Warnings: append([]string{}, r.warnings...), Items: []renewedItem{}, Nodes: []renewedNode{}, Left: r.plan.leftItems()}
	if r.renewal != nil {
		d.Backup = append(d.Backup, r.renewal.Backups(r.local.Nodes)...)
	}
	var lines []string
	add := func(i *renew.Item, leaf *x509.Certificate, takeup []string) {
		item := plannedItem(i, leaf, takeup)
		d.Items = append(d.Items, item)
		did := "renewed"
		if r.dryRun {
			did = "renewed (dry run)"
		}
		lines = append(lines, fmt.Sprintf("%s %s: valid until %s\n", report.Plain(i.ID()), did, item.NotAfter.Format(time.RFC3339)))
	}
	for k, i := range r.items {
		switch {
		case r.dryRun:
			add(i, nil, r.local.TakesUp(i))
		case r.renewal != nil:
			add(i, r.renewal.Items[k].Made.Chain[0], r.renewal.Items[k].TakeUp)
		}
	}
	for _, n := range r.order {
		node := renewedNode{Name: n.Name, State: "left"}
		result := r.results[n.Name]
		if result != nil {
			node.State, node.Backup = string(result.outcome.State), result.outcome.Backup
			if result.err != nil {
				node.Error = oneLine(result.err)
			}
		} else if r.dryRun {
			node.State = "planned"
		}
		node.addRestarts(r.restarts[n.Name], result, r.restart.on)
		d.Nodes = append(d.Nodes, node)
		facts := r.fleet.Facts(n)
		for k, i := range n.Items {
			switch {
			case r.dryRun:
				add(i, nil, facts.TakesUp(i))
			case result != nil && result.outcome.State == remote.Done:
				add(i, result.outcome.Leaves[k], facts.TakesUp(i))
			}
		}
	}
	for _, name := range down {
		d.Nodes = append(d.Nodes, renewedNode{Name: name, State: "down"})
	}
	if r.output == "name" {
		lines = nil
		for _, i := range d.Items {
			lines = append(lines, report.Plain(i.ID)+"\n")
		}
	}
	if r.output != "table" && r.output != "name" {
		return report.Document(r.s.out, r.output, d)
	}
	_, err := fmt.Fprint(r.s.out, strings.Join(lines, ""))
	return err
}

// plannedItem is an item in machine output, with its certificate where that is made.
func plannedItem(i *renew.Item, leaf *x509.Certificate, takeup []string) renewedItem {
	item := renewedItem{ID: i.ID(), Kind: string(i.Kind), Why: i.Why, Subject: i.Subject.String(), Names: []string{}, KeptKey: i.Reused(), NotAfter: i.NotAfter.UTC(),
		Files: i.Files(), TakeUp: append([]string{}, takeup...), Warnings: append([]string{}, i.Warnings...)}
	if leaf != nil {
		item.Subject, item.Names, item.NotAfter = leaf.Subject.String(), namesOf(leaf), leaf.NotAfter.UTC()
	} else {
		item.Names = namesOf(&x509.Certificate{DNSNames: i.DNSNames, EmailAddresses: i.Emails, IPAddresses: i.Addresses, URIs: i.URIs})
	}
	if !i.Issuer.IsZero() {
		item.Issuer = i.Issuer.String()
	}
	if i.Old != nil {
		item.OldEnd = i.Old.NotAfter.UTC().Format(time.RFC3339)
	}
	return item
}

// verdict is the error of a run that did not do all: which nodes are done, which are
// not, and the command that goes on.
func (r *sshRun) verdict(c *cobra.Command, ids, down []string) error {
	if len(r.failures) == 0 && len(down) == 0 && c.Context().Err() == nil {
		for _, line := range r.byHand() {
			fmt.Fprintf(r.s.err, "to be restarted %s\n", line)
		}
		if nodes := r.notRestarted(); len(nodes) > 0 {
			return advise(fmt.Errorf("the files are written, and what could not be restarted goes on with the old ones: %s", strings.Join(nodes, "; ")), "restart it by what started it, then: kubepki verify --live")
		}
		return r.plan.undone()
	}
	of := map[remote.State][]string{}
	var left, again []string
	if len(r.items) > 0 {
		for _, name := range r.localNames() {
			if r.renewal != nil {
				of[remote.Done] = append(of[remote.Done], name)
			} else {
				left, again = append(left, name), append(again, name)
			}
		}
	}
	for _, n := range r.order {
		result := r.results[n.Name]
		if result == nil {
			left, again = append(left, n.Name), append(again, n.Name)
			continue
		}
		if len(result.left) == 0 || !r.restart.on {
			of[result.outcome.State] = append(of[result.outcome.State], n.Name)
		}
		if result.outcome.State != remote.Done {
			again = append(again, n.Name)
		}
	}
	var parts []string
	for _, p := range []struct {
		what  string
		nodes []string
	}{
		{"done", of[remote.Done]}, {"done, and not restarted", r.notRestarted()}, {"failed and unchanged", of[remote.Same]}, {"taken back", of[remote.Undone]}, {"written and wrong", of[remote.Wrong]},
		{"not known", of[remote.Unknown]}, {"not begun", left}, {"down", down},
	} {
		if len(p.nodes) > 0 {
			parts = append(parts, p.what+": "+strings.Join(p.nodes, ", "))
		}
	}
	again = append(again, down...)
	err := errors.Join(append(r.failures, c.Context().Err())...)
	if err == nil {
		err = errors.New("not all nodes could be reached")
	}
	err = fmt.Errorf("%w; %s", err, strings.Join(parts, "; "))
	for _, line := range r.byHand() {
		err = advise(err, "%s", line)
	}
	if len(again) == 0 {
		return err
	}
	return advise(err, "mend that, and go on with what is left: %s", goOn(c, ids, again))
}

func (r *sshRun) localNames() []string {
	var names []string
	for _, i := range r.items {
		if !slices.Contains(names, i.Node) {
			names = append(names, i.Node)
		}
	}
	return names
}
