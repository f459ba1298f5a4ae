package main

import (
	"crypto"
	"slices"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// keysAhead begins to make the keys of RSA that a plan will probably ask for, while it
// is being made. What is due is mostly nothing: for that none is made ahead.
func (o *renewOptions) keysAhead(n *trustNodes, ids []string) *apply.Ahead {
	signs := slices.ContainsFunc(n.Graph.Authorities, func(a trust.Authority) bool { return n.Keys[a.Key] != nil })
	if o.reuseKey || o.plan.due || !signs {
		return apply.MakeAhead(nil)
	}
	var algorithms []issue.Algorithm
	for _, c := range n.Graph.Credentials {
		if !o.all && !slices.Contains(ids, c.Name) && !slices.Contains(ids, c.ID) {
			continue
		}
		algorithm := issue.RSA2048
		if leaf := n.Graph.Material(c.Certificate).Leaf(); leaf != nil {
			algorithm = issue.AlgorithmOf(leaf.PublicKey)
		}
		if o.plan.algorithm != "" {
			algorithm, _ = issue.ParseAlgorithm(o.plan.algorithm) // was checked
		}
		if slices.Contains([]issue.Algorithm{issue.RSA2048, issue.RSA3072, issue.RSA4096}, algorithm) && o.plan.config == "" {
			algorithms = append(algorithms, algorithm)
		}
	}
	return apply.MakeAhead(algorithms)
}

// useAhead gives the keys to the items that need new ones.
func useAhead(ahead *apply.Ahead, items []*renew.Item) {
	needed := map[issue.Algorithm]int{}
	for _, i := range items {
		if !i.Reused() {
			needed[i.Algorithm]++
			i.NewKey = func(a issue.Algorithm) (crypto.Signer, error) { return ahead.Key(a) }
		}
	}
	ahead.Only(needed)
}
