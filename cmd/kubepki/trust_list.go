package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

type trustListOptions struct{ trustFlags }

func newTrustListCommand(s streams) *cobra.Command {
	var o trustListOptions
	c := &cobra.Command{
		Use:   "list [TARGET...]",
		Short: "List bundles: who reads them, what they hold, which links need them",
		Long: `List all bundles of the nodes, or those of the targets: which component reads it by
which setting, its anchors, the links (docs/links.md) of which each anchor verifies
a half, and how the component takes a change up (docs/reload.md). A dash stands for
an anchor that no link that was seen needs; a question mark for one of which nobody
can say.

` + trustTargets,
		Example: `  # This node
  sudo kubepki trust list

  # Whom do the API servers let in, on all nodes that kubepki init --out made?
  kubepki trust list kube-apiserver/client-ca-file --root ./cluster -o wide

  # Anchors that end this year
  kubepki trust list -o json | jq '.items[].anchors[] | select(.notAfter < "2027")'`,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), s, args) },
	}
	c.ValidArgsFunction = o.completeTargets(math.MaxInt)
	o.add(c.Flags(), "table, wide, json, yaml or name")
	return c
}

// trustListDocument is the kind TrustList.
type trustListDocument struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Items      []trustListItem `json:"items"`
}

type trustListItem struct {
	Target    string `json:"target"`
	Node      string `json:"node,omitempty"`
	Component string `json:"component,omitempty"`
	Setting   string `json:"setting,omitempty"`
	Place     string `json:"place"`
	TakeUp    string `json:"takeUp,omitempty"`
	// State is present, missing, unreadable, denied, malformed or not-given.
	State   string           `json:"state"`
	Reason  string           `json:"reason,omitempty"`
	Anchors []anchorDocument `json:"anchors"`
	// Others are blocks that components pass over, in words.
	Others []string `json:"others,omitempty"`

	known bool
	certs []*x509.Certificate
}

func (o *trustListOptions) run(ctx context.Context, s streams, targets []string) error {
	at, err := o.time()
	if err == nil {
		err = o.checkOutput("table", "wide", "json", "yaml", "name")
	}
	if err != nil {
		return err
	}
	source := &trustSource{flags: &o.trustFlags}
	list := trustListDocument{APIVersion: report.APIVersion, Kind: "TrustList", Items: []trustListItem{}}
	if len(targets) == 0 {
		if err := source.readNodes(); err != nil {
			return err
		}
		for _, setting := range source.nodes.Settings {
			if setting.Role == trust.RoleBundle {
				list.Items = append(list.Items, source.nodes.item(setting, at))
			}
		}
	}
	for _, target := range targets {
		items, err := source.items(ctx, target, at)
		if err != nil {
			return err
		}
		list.Items = append(list.Items, items...)
	}
	return o.print(s, list)
}

// items are the bundles of a target. Of flags each is shown as it is: one that is
// missing or spoilt hides none of the other nodes.
func (s *trustSource) items(ctx context.Context, target string, at time.Time) ([]trustListItem, error) {
	var items []trustListItem
	if isSettingTarget(target) {
		settings, err := s.settings(target)
		if err != nil {
			return nil, err
		}
		for _, setting := range settings {
			items = append(items, s.nodes.item(setting, at))
		}
		return items, nil
	}
	found, err := s.find(ctx, target)
	if err != nil {
		return nil, err
	}
	for _, b := range found {
		i := newTrustListItem(b, at)
		if b.known() {
			i = s.nodes.item(b.setting, at)
		}
		items = append(items, i)
	}
	return items, nil
}

// item is one setting as the nodes have it.
func (n *trustNodes) item(s bundle.Setting, at time.Time) trustListItem {
	i := trustListItem{Target: s.Target(), Node: s.Node, Component: s.Component, Setting: s.Name, Place: s.Anchors.String(),
		TakeUp: n.Takeup(s), State: string(trust.Missing), Anchors: []anchorDocument{}}
	m := n.Graph.Material(s.Anchors)
	if m == nil {
		return i
	}
	i.State, i.Reason, i.certs, i.known = string(m.State), m.Reason, m.Certificates, m.OK() && s.Seen(n.Graph)
	b := &trustBundle{setting: s, file: bundle.File(n.Graph, s.Anchors), dir: n.Dirs[s.Node]}
	if m.State == trust.Malformed && b.read(n.Graph) == nil { // a key or a list of revocations beside anchors
		i.certs = b.text.Certificates()
		i.Others = others(b.text)
	}
	for _, c := range i.certs {
		d := newAnchorDocument(c, at)
		if d.Links = s.Serves(n.Graph, c, at); d.Links == nil && i.known {
			d.Links = []int{}
		}
		i.Anchors = append(i.Anchors, d)
	}
	i.pair()
	return i
}

// newTrustListItem is a bundle that no component of the nodes reads.
func newTrustListItem(b *trustBundle, at time.Time) trustListItem {
	i := trustListItem{Target: b.target, Place: b.where(), State: string(trust.Present), Anchors: anchorDocuments(b.text.Certificates(), at), Others: others(b.text), certs: b.text.Certificates()}
	i.pair()
	return i
}

func others(t *bundle.Text) []string {
	var all []string
	for _, o := range t.Others {
		all = append(all, fmt.Sprintf("line %d: %s", o.Line, o.Why))
	}
	return all
}

// pair notes anchors of one name and key.
func (i *trustListItem) pair() {
	for a := range i.certs {
		for b := range i.certs {
			if bundle.Recertified(i.certs[a], i.certs[b]) {
				i.Anchors[a].Recertified = append(i.Anchors[a].Recertified, i.Anchors[b].SHA256)
			}
		}
	}
}

func (o *trustListOptions) print(s streams, list trustListDocument) error {
	switch o.output {
	case "json", "yaml":
		return report.Document(s.out, o.output, list)
	case "name":
		for _, i := range list.Items {
			if _, err := fmt.Fprintln(s.out, report.Plain(i.Target)); err != nil {
				return err
			}
		}
		return nil
	}
	var rows [][]string
	for _, i := range list.Items {
		target, place := i.Target, strings.TrimPrefix(i.Place, i.Node+":")
		if o.output == "table" && i.Component != "" {
			place, _, _ = strings.Cut(place, "#") // the target tells the field
		}
		if len(i.Anchors) == 0 {
			rows = append(rows, o.row(target, place, "<"+i.empty()+">", "", "", "", i.TakeUp))
		}
		for _, a := range i.Anchors {
			rows = append(rows, o.row(target, place, a.shown(), a.SHA256, a.NotAfter.Format(time.DateOnly), i.links(a), i.TakeUp))
			target, place, i.TakeUp = "", "", ""
		}
		for _, other := range i.Others {
			rows = append(rows, o.row("", "", "<"+other+">", "", "", "", ""))
		}
	}
	head := []string{"TARGET", "PLACE", "ANCHOR", "SHA256", "UNTIL", "LINKS", "TAKEN UP"}
	return report.Table(s.out, head, rows)
}

func (o *trustListOptions) row(target, place, anchor, sum, until, links, takeup string) []string {
	if len(sum) > shownDigits && o.output != "wide" {
		sum = sum[:shownDigits]
	}
	return []string{report.Plain(target), report.Plain(place), report.Plain(anchor), sum, until, links, takeup}
}

func (i *trustListItem) empty() string {
	if i.State == string(trust.Present) {
		return "empty"
	}
	if i.Reason != "" {
		return i.State + ": " + i.Reason
	}
	return i.State
}

func (a *anchorDocument) shown() string {
	text := a.Subject
	if a.Fault != "" {
		text += " (" + a.Fault + ")"
	}
	if len(a.Recertified) > 0 {
		text += " (re-certified)"
	}
	return text
}

func (i *trustListItem) links(a anchorDocument) string {
	if !i.known {
		return "?"
	}
	if len(a.Links) == 0 {
		return "–"
	}
	var all []string
	for _, n := range a.Links {
		all = append(all, strconv.Itoa(n))
	}
	return strings.Join(all, ", ")
}
