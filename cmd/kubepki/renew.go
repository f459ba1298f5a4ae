package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/report"
)

// clock tells the time by which certificates are made and bundles judged.
var clock = time.Now

type renewOptions struct {
	trustChangeFlags
	all, reuseKey bool
	server        string
	layout        string
	plan          renewPlanFlags
	kept          renewUndoFlags
	ssh           sshFlags
	serve         serveFlags
	external      renewExternal
	restart       renewRestart
}

func newRenewCommand(s streams) *cobra.Command {
	var o renewOptions
	c := &cobra.Command{
		Use:   "renew [ID...]",
		Short: "Make certificates and kubeconfigs of a node anew, in place",
		Long: `Make a certificate, or what a kubeconfig holds, anew in place, signed by the node's
own authority. An ID is a name that verify and show use (apiserver, etcd-peer,
scheduler.conf), with NODE/ before it where several nodes are given, or the
absolute path of a file of it.

The new certificate has the subject and usages of its role, every name at which the
configuration has it reached, and all of the old one that parses and is not at
fault: names, e-mail addresses, URIs, fields of the subject, and its span of life,
which never goes past the authority's. A kubeconfig gets the current authority too.
It works where the old file is missing, junk, expired, of another authority or has
a weak key.

An authority (ca, etcd-ca, front-proxy-ca) is certified again with the key and the
name that it has, so that all that it signed goes on working. That is no rotation.
What k3s, RKE2, k0s and MicroK8s make and keep themselves is refused, with the
command of theirs that makes it anew.

Where the authority's key is elsewhere, --csr-only makes requests and --certificates
takes in what comes back; --ca-key names a key in kubepki-kms or a file, and
--signer-kubeconfig has the cluster's own signers sign. What others sign is judged
before it is put in place. Exit code 3: something is outstanding.

--due finds by itself what has less than a third of its life left, or is wrong in a
way that a new one mends; with --config also what has other names, another kind of
key or a longer life than the configuration wants. A kubelet's rotated certificate
gets a new dated file, to which its link is led, as the kubelet does it.

What is replaced is kept in a folder below /etc/kubernetes/kubepki-backup, and --undo
brings it back. All files of a node appear together, or none. The plan says who takes
the new file up, and how. Nothing is restarted but with --restart (kubepki node
restart tells how).`,
		Example: `  # The apiserver's serving pair, with each name that it lacks
  sudo kubepki renew apiserver

  # What would be done with two files, below a copy of a node's file system
  kubepki renew scheduler.conf /etc/kubernetes/pki/etcd/peer.crt --root ./cp1 --dry-run

  # Everything that this node can sign, with the keys that are there
  sudo kubepki renew --all --reuse-key

  # All nodes of a cluster over SSH, the authorities' keys staying on cp1 (docs/renew-ssh.md)
  kubepki renew --all --ssh cp1=root@10.0.0.11 --ssh cp2=root@10.0.0.12 --ssh w1=root@10.0.0.21

  # Requests for a company's authority, and then what it has signed
  sudo kubepki renew --all --csr-only --csr-dir ./requests
  sudo kubepki renew --certificates ./signed

  # By the signers of the cluster
  sudo kubepki renew scheduler.conf --signer-kubeconfig /etc/kubernetes/super-admin.conf

  # What is due, from cron; and what a changed configuration of kubeadm asks for
  sudo kubepki renew --due --yes
  sudo kubepki renew --due --config kubeadm.yaml --dry-run

  # As it was before
  sudo kubepki renew --undo`,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case o.serve.on:
				return o.serve.run(c.Context(), s, o.roots)
			case o.ssh.on():
				return o.overSSH(c, s, args)
			}
			return o.run(c.Context(), s, args)
		},
	}
	c.ValidArgsFunction = o.completeCredentials
	f := c.Flags()
	f.StringArrayVar(&o.roots, "root", nil, "folder of a node that stands for its /, as [NAME=]DIR, or a folder of such roots; repeatable (default /)")
	f.BoolVar(&o.all, "all", false, "every certificate and kubeconfig that an authority at hand can sign, but no authority")
	f.BoolVar(&o.reuseKey, "reuse-key", false, "keep the private key instead of making a new one")
	f.StringVar(&o.server, "server", "", "URL of the apiserver, for a kubeconfig of which no file tells it")
	layoutFlag(f, &o.layout)
	o.plan.add(f)
	o.kept.add(f, &o.force)
	o.external.add(f)
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be changed, and change nothing")
	f.StringVarP(&o.output, "output", "o", "table", "output: table, json, yaml or name")
	o.ssh.add(f)
	o.serve.add(f)
	o.restart.add(f)
	return c
}

// completeCredentials completes what can be named on the nodes of --root.
func (o *renewOptions) completeCredentials(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	roots := slices.Clone(o.roots) // cobra parses them twice to complete
	slices.Sort(roots)
	n, err := readTrustNodes(slices.Compact(roots), o.layout)
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	var all []cobra.Completion
	for _, c := range n.Graph.Credentials {
		if !slices.Contains(all, c.ID) {
			all = append(all, c.ID)
		}
	}
	return all, cobra.ShellCompDirectiveDefault
}

func (o *renewOptions) run(ctx context.Context, s streams, ids []string) (err error) {
	ids = o.kept.time(ids)
	if err := o.check(ids); err != nil {
		return err
	}
	done, err := o.restart.begin(s, o.dryRun)
	if err != nil {
		return err
	}
	defer done()
	switch {
	case o.kept.backups:
		return o.kept.list(o, s)
	case o.kept.undo != "":
		return o.kept.run(ctx, o, s)
	case o.external.takesIn():
		return o.takeIn(ctx, s, ids)
	}
	ahead := o.keysAhead()
	defer ahead.Only(nil)
	n, err := readMendedNodes(s, o.roots, o.layout, o.dryRun)
	if err != nil {
		return err
	}
	if n, err = o.plan.read(n); err != nil {
		return err
	}
	if err := o.external.keys.use(n); err != nil {
		return err
	}
	o.beginKeys(ahead, n, ids)
	at := clock()
	planOptions, err := o.options(n, at)
	if err != nil {
		return err
	}
	before := check.Run(n.Graph, check.Options{At: at, Expiring: planOptions.Within})
	items, err := o.planned(s, n, before, ids, planOptions)
	if err != nil {
		return err
	}
	if len(items) == 0 {
		nothing := "nothing is due"
		if len(o.plan.left) > 0 {
			nothing = "nothing is renewed"
		}
		fmt.Fprintln(s.err, nothing)
		return cmp.Or(o.answer(s, n, &apply.Renewal{At: at}), o.plan.undone())
	}
	if o.external.elsewhere() {
		return o.external.run(ctx, o, s, n, items, before, at, len(ids) > 0)
	}
	sayPending(s, n, items)
	useAhead(ahead, items)
	r, err := o.makeAll(ctx, n, items, before, at)
	if err != nil {
		return err
	}
	defer func() {
		if failed := r.Drop(); failed != nil {
			err = errors.Join(err, failed)
		}
	}()
	if err := o.print(s, n, r); err != nil {
		return err
	}
	if o.plan.due && len(r.Breaks) > 0 && !o.force {
		return advise(fmt.Errorf("nothing is changed: what is right now would be wrong then: %s: %s", r.Breaks[0].ID, r.Breaks[0].Cause), "name what you want to renew, or give --force")
	}
	restarts, err := o.restart.plan(ctx, s, n, r)
	if err != nil {
		return err
	}
	if !o.dryRun {
		if err := cmp.Or(o.confirm(s), ctx.Err()); err != nil {
			return err
		}
		if err := writeRenewal(s, n, r); err != nil {
			return err
		}
	}
	if err := o.answer(s, n, r); err != nil {
		return err
	}
	if !o.dryRun {
		if err := o.restart.run(ctx, s, restarts); err != nil {
			return err
		}
	}
	return cmp.Or(o.plan.undone(), o.pending())
}

// makeAll stages what it makes while keys are searched for the rest, where nobody is
// asked and nothing else is waited for.
func (o *renewOptions) makeAll(ctx context.Context, n *trustNodes, items []*renew.Item, before *check.Result, at time.Time) (*apply.Renewal, error) {
	if o.yes && !o.dryRun && !o.restart.on {
		return apply.MakeStaged(ctx, n.Nodes, items, before, at)
	}
	return apply.Make(ctx, n.Nodes, items, before, at)
}

func (o *renewOptions) check(ids []string) error {
	if err := cmp.Or(o.plan.check(o, ids), o.kept.check(o, ids)); err != nil {
		return err
	}
	switch {
	case len(ids) == 0 && !o.all && !o.plan.due && !o.kept.given() && !o.external.takesIn() && len(o.plan.kubeconfigs) == 0:
		return usagef("renew: name what to renew, or give --due or --all: kubepki show lists what there is")
	case len(ids) > 0 && o.all:
		return usagef("--all: does not go with names")
	case o.server != "" && !strings.HasPrefix(o.server, "https://"):
		return usagef("--server: %q is no URL of the form https://HOST:PORT", o.server)
	}
	return cmp.Or(o.ssh.stray(), o.restart.check(o.roots, o.ssh.on()), o.external.check(o))
}

// renewedItem is an item in machine output.
type renewedItem struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind"`
	Files    []string  `json:"files"`
	Why      []string  `json:"why"`
	Subject  string    `json:"subject"`
	Names    []string  `json:"names"`
	Issuer   string    `json:"issuer,omitempty"`
	KeptKey  bool      `json:"keptKey"`
	OldEnd   string    `json:"oldNotAfter,omitempty"`
	NotAfter time.Time `json:"notAfter"`
	TakeUp   []string  `json:"takeUp"`
	Warnings []string  `json:"warnings"`
}

// renewDocument is the answer in machine output.
type renewDocument struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	DryRun     bool          `json:"dryRun"`
	Backup     []string      `json:"backup"`
	Warnings   []string      `json:"warnings"`
	Items      []renewedItem `json:"items"`
	// Nodes are what became of each node that was reached over SSH.
	Nodes []renewedNode `json:"nodes,omitempty"`
	// Outstanding and Refused are of certificates that were signed elsewhere.
	Outstanding []string      `json:"outstanding,omitempty"`
	Refused     []refusedItem `json:"refused,omitempty"`
	Left        []leftItem    `json:"left"` // what is due, and is not renewed
}

// leftItem is what is not renewed in machine output.
type leftItem struct {
	ID     string   `json:"id"`
	Why    []string `json:"why"`
	Reason string   `json:"reason"`
	Hint   string   `json:"hint,omitempty"`
}

// print shows the plan on stderr.
func (o *renewOptions) print(s streams, n *trustNodes, renewal *apply.Renewal) error {
	var rows [][]string
	for _, r := range renewal.Items {
		key := "new " + string(r.Algorithm)
		if r.Reused() {
			key = "kept"
		}
		rows = append(rows, []string{report.Plain(r.ID()), report.Plain(strings.Join(shortReasons(r.Why), ", ")), key, oldEnd(r.Item), "→ " + r.Made.Chain[0].NotAfter.UTC().Format(time.DateOnly), report.Plain(cmp.Or(strings.Join(r.TakeUp, "; "), "no component of these nodes reads it"))})
	}
	if err := report.Table(s.err, []string{"CREDENTIAL", "WHY", "KEY", "EXPIRES", "", "TAKEN UP BY"}, rows); err != nil {
		return err
	}
	for _, r := range renewal.Items {
		for _, w := range r.Warnings {
			fmt.Fprintf(s.err, "kubepki: warning: %s: %s\n", report.Plain(r.ID()), report.Plain(w))
		}
	}
	for _, w := range slices.Concat(renewal.Warnings, copies(n, itemsOf(renewal), o.plan.people)) {
		fmt.Fprintf(s.err, "kubepki: warning: %s\n", report.Plain(w))
	}
	return nil
}

// writeRenewal writes the files, and says what came up then.
func writeRenewal(s streams, n *trustNodes, r *apply.Renewal) error {
	said := len(r.Warnings)
	err := r.Write(n.Nodes)
	for _, w := range r.Warnings[said:] {
		fmt.Fprintf(s.err, "kubepki: warning: %s\n", report.Plain(w))
	}
	return err
}

func itemsOf(r *apply.Renewal) []*renew.Item {
	var items []*renew.Item
	for _, i := range r.Items {
		items = append(items, i.Item)
	}
	return items
}

// shortReasons are the ids of findings without their sentences.
func shortReasons(why []string) []string {
	var ids []string
	for _, w := range why {
		id, _, _ := strings.Cut(w, ": ")
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

func oldEnd(i *renew.Item) string {
	if i.Old == nil {
		return "-"
	}
	return i.Old.NotAfter.UTC().Format(time.DateOnly)
}

// answer says on stdout what was done.
func (o *renewOptions) answer(s streams, n *trustNodes, renewal *apply.Renewal) error {
	d := renewDocument{APIVersion: report.APIVersion, Kind: "Renewal", DryRun: o.dryRun, Backup: []string{}, Warnings: append([]string{}, renewal.Warnings...), Items: []renewedItem{}, Left: o.plan.leftItems(),
		Outstanding: o.external.outstanding, Refused: o.external.refused}
	for _, dir := range renewal.Backups(n.Nodes) {
		d.Backup = append(d.Backup, dir)
		if !o.dryRun {
			fmt.Fprintf(s.err, "what was replaced is kept in %s\n", report.Plain(dir))
		}
	}
	if line := stillValid(renewal); line != "" && !o.dryRun {
		fmt.Fprintln(s.err, line)
	}
	did := "renewed"
	if o.dryRun {
		did = "would be renewed"
	}
	for _, r := range renewal.Items {
		leaf := r.Made.Chain[0]
		i := renewedItem{ID: r.ID(), Kind: string(r.Kind), Why: r.Why, Subject: leaf.Subject.String(), Names: namesOf(leaf), KeptKey: r.Reused(), NotAfter: leaf.NotAfter.UTC(),
			Files: r.Files(), TakeUp: append([]string{}, r.TakeUp...), Warnings: append([]string{}, r.Warnings...)}
		if !r.Issuer.IsZero() {
			i.Issuer = r.Issuer.String()
		}
		if r.Old != nil {
			i.OldEnd = r.Old.NotAfter.UTC().Format(time.RFC3339)
		}
		d.Items = append(d.Items, i)
		line := ""
		switch o.output {
		case "table":
			line = fmt.Sprintf("%s %s: valid until %s\n", report.Plain(r.ID()), did, leaf.NotAfter.UTC().Format(time.RFC3339))
		case "name":
			line = report.Plain(r.ID()) + "\n"
		}
		if _, err := fmt.Fprint(s.out, line); err != nil {
			return err
		}
	}
	if o.output == "table" || o.output == "name" {
		return nil
	}
	return report.Document(s.out, o.output, d)
}

// namesOf are the alternative names of a certificate.
func namesOf(c *x509.Certificate) []string {
	names := slices.Concat([]string{}, c.DNSNames, c.EmailAddresses)
	for _, a := range c.IPAddresses {
		names = append(names, a.String())
	}
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	return names
}
