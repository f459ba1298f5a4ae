package provision

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// warn collects what works, and yet should be known.
func (p *Planned) warn() {
	cluster, etcd := p.authorities[catalog.ClusterCA], p.authorities[catalog.EtcdCA]
	if p.shares(cluster, etcd) {
		p.Warnings = append(p.Warnings,
			"one authority signs for the cluster and for etcd: etcd lets in everybody who holds a client certificate of the cluster")
	}
	if p.signing.makeKey && SigningAlgorithm(p.algorithm()) != p.algorithm() {
		p.Warnings = append(p.Warnings,
			fmt.Sprintf("the service-account key is made with %s: Kubernetes cannot sign tokens with %s; kubeadm cannot read keys of %[2]s at all", SigningAlgorithm(p.algorithm()), p.algorithm()))
	}
	p.warnAlgorithms()
	for _, s := range p.slots {
		if s.entry.Kind != catalog.KindAuthority || s.have.certificates == nil || s.node != p.slots[0].node {
			continue
		}
		a := p.authorities[s.entry.Name]
		if end := a.chain[0].NotAfter; a.canSign() && end.Before(p.options.Now.Add(p.options.Cluster.Validity)) && p.signs(a) {
			p.Warnings = append(p.Warnings,
				fmt.Sprintf("%s ends at %s, and so do the certificates that it signs now", a.path, end.UTC().Format(time.RFC3339)))
		}
	}
}

// warnAlgorithms tells which keys are kept although they are of another
// algorithm than the configuration has, or too weak.
func (p *Planned) warnAlgorithms() {
	var order []issue.Algorithm
	kept := map[issue.Algorithm][]string{}
	for _, s := range p.slots {
		wanted := p.algorithm()
		if s.entry.Kind == catalog.KindSigningKey {
			wanted = SigningAlgorithm(wanted)
		}
		if s.have.key == nil || issue.AlgorithmOf(s.have.key.Public()) == wanted {
			continue
		}
		if err := issue.CheckPublicKey(s.have.key.Public()); err != nil {
			p.Warnings = append(p.Warnings, fmt.Sprintf("%s is kept, and yet: %v", p.host(s, s.entry.Path+".key"), err))
			continue
		}
		a := issue.AlgorithmOf(s.have.key.Public())
		if kept[a] == nil {
			order = append(order, a)
		}
		if !slices.Contains(kept[a], s.entry.Name) {
			kept[a] = append(kept[a], s.entry.Name)
		}
	}
	for _, a := range order {
		p.Warnings = append(p.Warnings, fmt.Sprintf("kept with their keys of %s, though the configuration says %s: %s",
			cmp.Or(a, "another kind"), p.algorithm(), strings.Join(kept[a], ", ")))
	}
}

func (p *Planned) shares(a, b *authority) bool {
	switch {
	case a == nil || b == nil:
		return false
	case a == b:
		return true
	}
	return a.chain != nil && b.chain != nil && trust.SameKey(a.chain[0].PublicKey, b.chain[0].PublicKey)
}

// signs tells whether the plan has an authority sign anything.
func (p *Planned) signs(a *authority) bool {
	for _, s := range p.slots {
		if s.pair.sign && p.authorities[s.entry.Authorities[0]] == a {
			return true
		}
	}
	return false
}
