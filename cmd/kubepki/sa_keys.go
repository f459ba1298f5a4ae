package main

import (
	"cmp"
	"context"
	"crypto"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/token"
)

type saKeysOptions struct {
	from   saKeyFlags
	output string
}

func newSAKeysCommand(s streams) *cobra.Command {
	var o saKeysOptions
	c := &cobra.Command{
		Use:   "keys",
		Short: "List the keys of service-account tokens: their ids, who signs and who verifies with them",
		Long: `List the keys of service-account tokens by the ids that tokens name them by (kid):
who signs with each, and who verifies with it, by the flags of the components
below --root. Keys of files and URLs are listed with where they were found.

Where a key signs that some API server does not verify with, kubepki verify says
so (sa-verify-key-missing).`,
		Example: `  # Of this control plane
  sudo kubepki sa keys

  # Of three, in the middle of a rotation
  kubepki sa keys --root cp1=./cp1 --root cp2=./cp2 --root cp3=./cp3

  # The id of a key in a file
  kubepki sa keys --key sa.pub -o name

  # What an API server publishes
  kubectl get --raw /openid/v1/jwks > jwks.json && kubepki sa keys --key jwks.json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), s) },
	}
	f := c.Flags()
	o.from.add(f, " (default / unless --key is given)")
	f.StringVarP(&o.output, "output", "o", "table", "output: table, json, yaml or name")
	return c
}

// listedKey is one key in the public form of the list.
type listedKey struct {
	KeyID     string   `json:"keyID"`
	Algorithm string   `json:"algorithm"`
	From      []string `json:"from"`     // files, as NODE:PATH, and URLs
	Signs     []string `json:"signs"`    // components, as NODE/NAME
	Verifies  []string `json:"verifies"` // components, as NODE/NAME

	public                crypto.PublicKey
	from, signs, verifies byNode
}

// byNode are things that may be the same on several nodes.
type byNode struct {
	things []string
	nodes  map[string][]string
}

// add adds a thing, and tells whether it is new there.
func (b *byNode) add(node, thing string) bool {
	if b.nodes == nil {
		b.nodes = make(map[string][]string)
	}
	on, seen := b.nodes[thing]
	if !seen {
		b.things = append(b.things, thing)
	}
	if seen && slices.Contains(on, node) {
		return false
	}
	b.nodes[thing] = append(on, node)
	return true
}

// String says all on a line for each thing.
func (b *byNode) String() string {
	var lines []string
	for _, thing := range b.things {
		on := slices.DeleteFunc(slices.Clone(b.nodes[thing]), func(n string) bool { return n == "" })
		lines = append(lines, report.Plain(report.OnNodes(thing, on)))
	}
	return cmp.Or(strings.Join(lines, "\n"), "<none>")
}

func (o *saKeysOptions) run(ctx context.Context, s streams) error {
	if o.output != "name" {
		if err := checkTokenOutput(o.output); err != nil {
			return usagef("--output: unknown format %q: use table, json, yaml or name", o.output)
		}
	}
	keys, err := o.from.read(ctx, s)
	if err != nil {
		return err
	}
	keys.warnUnseen(s)
	list := keys.list()
	switch o.output {
	case "table":
		return printKeys(s, list, keys.graph != nil)
	case "name":
		for _, k := range list {
			if _, err := fmt.Fprintln(s.out, report.Plain(k.KeyID)); err != nil {
				return err
			}
		}
		return nil
	}
	return report.Document(s.out, o.output, struct {
		APIVersion string       `json:"apiVersion"`
		Kind       string       `json:"kind"`
		Items      []*listedKey `json:"items"`
	}{report.APIVersion, "TokenKeyList", list})
}

func printKeys(s streams, list []*listedKey, cluster bool) error {
	head := []string{"KEY ID", "ALGORITHM", "SIGNS", "VERIFIES", "FROM"}
	if !cluster {
		head = []string{"KEY ID", "ALGORITHM", "FROM"}
	}
	var rows [][]string
	for _, k := range list {
		row := []string{report.Plain(k.KeyID), k.Algorithm}
		if cluster {
			row = append(row, k.signs.String(), k.verifies.String())
		}
		rows = append(rows, append(row, k.from.String()))
	}
	return report.Table(s.out, head, rows)
}

// list joins what is known of each key: first those that verify, then those that
// sign and verify nowhere.
func (k *saKeys) list() []*listedKey {
	list := []*listedKey{}
	entry := func(key token.Key) *listedKey {
		// Two keys may have one id: a JWKS says what it likes.
		i := slices.IndexFunc(list, func(l *listedKey) bool { return l.KeyID == key.ID && trust.SameKey(l.public, key.Public) })
		if i < 0 {
			list = append(list, &listedKey{public: key.Public, KeyID: key.ID, Algorithm: key.Algorithm(), From: []string{}, Signs: []string{}, Verifies: []string{}})
			i = len(list) - 1
		}
		return list[i]
	}
	for _, one := range k.keys {
		entry(one.Key).found(one.from)
	}
	if k.graph == nil {
		return list
	}
	for _, l := range k.graph.Links {
		if l.Signing == nil {
			continue
		}
		for _, at := range l.Signing.VerifyBy {
			for _, key := range keysAt(k.graph, at) {
				if e := entry(key); e.verifies.add(trust.SplitID(l.Callee)) {
					e.Verifies = append(e.Verifies, l.Callee)
				}
			}
		}
		for _, key := range keysAt(k.graph, l.Signing.Key) {
			e := entry(key)
			e.found(l.Signing.Key)
			if e.signs.add(trust.SplitID(l.Caller)) {
				e.Signs = append(e.Signs, l.Caller)
			}
		}
	}
	return list
}

func (l *listedKey) found(at trust.Place) {
	if l.from.add(at.Node, at.Path) {
		l.From = append(l.From, at.String())
	}
}

// keysAt are the keys of a file that can be of use.
func keysAt(g *trust.Graph, at trust.Place) []token.Key {
	m := g.Material(at)
	if !m.OK() {
		return nil
	}
	var all []token.Key
	for _, public := range publicKeys(m) {
		if k, err := token.NewKey(public); err == nil {
			all = append(all, k)
		}
	}
	return all
}
