package main

import (
	"crypto"
	"crypto/x509"
	"slices"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// keysAhead begins to make keys of RSA as the first thing of all, as far as it can be
// guessed that they will be needed: on a control plane whose certificates have such.
// What --all comes to there is more than these, and [renewOptions.beginKeys] tells. A
// guess that was wrong costs the time of a processor that has nothing else to do.
func (o *renewOptions) keysAhead() *apply.Ahead {
	return apply.MakeAhead(o.guessedKeys())
}

// guessedKeys are none where nothing can be guessed.
func (o *renewOptions) guessedKeys() []issue.Algorithm {
	roots, err := parseRoots(o.roots)
	if err != nil || len(roots) != 1 || !o.all || o.reuseKey || o.plan.config != "" || o.external.elsewhere() {
		return nil
	}
	apiserver, err := layout.ReadFile(roots[0].dir, catalog.KubernetesDir+"/pki/apiserver.crt")
	if err != nil {
		return nil // it is read again, and then what is wrong is said
	}
	certificates, err := trust.ParseCertificates(apiserver.Data)
	if err != nil || len(certificates) == 0 {
		return nil
	}
	if algorithm := o.keyLike(certificates[0]); isRSA(algorithm) {
		return slices.Repeat([]issue.Algorithm{algorithm}, leastOfAll)
	}
	return nil
}

// leastOfAll are the credentials that a control plane has at least.
const leastOfAll = 6

// beginKeys begins to make the keys of RSA that a plan will probably ask for, while it
// is being made. What is due is mostly nothing: for that none is made ahead.
func (o *renewOptions) beginKeys(ahead *apply.Ahead, n *trustNodes, ids []string) {
	signs := slices.ContainsFunc(n.Graph.Authorities, func(a trust.Authority) bool { return n.Keys[a.Key] != nil })
	if o.reuseKey || o.plan.due || o.plan.config != "" || o.external.elsewhere() || !signs {
		ahead.Only(nil)
		return
	}
	var algorithms []issue.Algorithm
	for _, c := range n.Graph.Credentials {
		if !o.all && !slices.Contains(ids, c.Name) && !slices.Contains(ids, c.ID) {
			continue
		}
		if algorithm := o.keyLike(n.Graph.Material(c.Certificate).Leaf()); isRSA(algorithm) {
			algorithms = append(algorithms, algorithm)
		}
	}
	ahead.Begin(algorithms)
}

// keyLike is the kind of key that takes the place of that of a certificate; nil: there
// is none.
func (o *renewOptions) keyLike(leaf *x509.Certificate) issue.Algorithm {
	if o.plan.algorithm != "" {
		algorithm, _ := issue.ParseAlgorithm(o.plan.algorithm) // was checked
		return algorithm
	}
	if leaf == nil {
		return issue.RSA2048
	}
	return issue.AlgorithmOf(leaf.PublicKey)
}

func isRSA(a issue.Algorithm) bool {
	return slices.Contains([]issue.Algorithm{issue.RSA2048, issue.RSA3072, issue.RSA4096}, a)
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
