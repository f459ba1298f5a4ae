package restart

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/probe"
	"github.com/kubepki/kubepki/internal/trust"
)

// Prove looks at a target as it runs, and tells what is not as its files say: what it
// presents, whom it lets in, what it publishes; and whether those that it calls let it
// in with the credential that it reads. etcd must have a quorum besides. The cluster is
// to be read anew each time, for it holds what runs, too.
func Prove(ctx context.Context, c Cluster, t *Target) error {
	if t.Component == catalog.Etcd {
		if err := c.etcdHealthy(ctx, t); err != nil {
			return err
		}
	}
	own, called := c.servers(t)
	seen := probe.Run(ctx, c.Graph, slices.Concat(own, called), c.Keys, c.Probe)
	g := *c.Graph
	g.Observations = seen[:len(own)]
	var said []string
	for _, f := range check.Run(&g, check.Options{At: c.Probe.At}).Findings {
		ofFiles := f.ID == "serving-stale" || f.ID == "trust-stale"
		if f.Severity == check.Error && (ofFiles && concerns(&f, t) || f.ID == "unreachable" || f.ID == "refused") {
			said = append(said, f.ID+": "+f.Cause)
		}
	}
	if text := refusedBy(seen[len(own):]); text != "" {
		said = append(said, text)
	}
	if len(said) > 0 {
		return errors.New(strings.Join(said, "; "))
	}
	return nil
}

// refusedBy tells of servers that refuse the credential of the target; none of those
// of one kind of which any takes it: a member of etcd that is behind is its own fault.
func refusedBy(seen []trust.Observation) string {
	refusals, taken := map[trust.ServerKind]string{}, map[trust.ServerKind]bool{}
	for i := range seen {
		for _, call := range seen[i].Calls {
			switch call.Outcome {
			case trust.Answered:
				taken[seen[i].Server.Kind] = true
			case trust.Refused:
				refusals[seen[i].Server.Kind] = fmt.Sprintf("%s refuses %s: %s", seen[i].Server.Address, call.Credential.Certificate.Path, call.Reason)
			}
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(refusals)) {
		if !taken[kind] {
			return refusals[kind]
		}
	}
	return ""
}

func (t *Target) is(id string) bool {
	node, name := trust.SplitID(id)
	return node == t.Node && t.named(name)
}

func concerns(f *check.Finding, t *Target) bool { return slices.ContainsFunc(f.Processes(), t.is) }

// servers are those that a target is, and those that it calls, with the links between
// them alone.
func (c Cluster) servers(t *Target) (own, called []trust.Server) {
	for _, s := range catalog.Servers(c.Graph) {
		switch {
		case s.Skip != "" || s.Kind == trust.ServesNode:
			continue
		case t.is(s.Component):
			own = append(own, s)
			continue
		case s.Kind == trust.ServesKubelet || s.Kind == trust.ServesEtcdPeers:
			continue // which may be down for reasons of their own
		}
		s.Links = slices.DeleteFunc(slices.Clone(s.Links), func(i int) bool { return !t.is(c.Graph.Links[i].Caller) })
		if len(s.Links) > 0 {
			called = append(called, s)
		}
	}
	return own, called
}
