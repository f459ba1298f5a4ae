package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// unreachable is one finding for a process, whatever ports it serves. What
// cannot run without it follows.
func unreachable(c *Case) []Finding {
	down := map[string]*Finding{}
	var order []string
	for i := range c.Observations {
		o := &c.Observations[i]
		reason := o.Reason
		if o.Outcome == trust.Answered {
			reason = hung(o)
		}
		if o.Outcome == trust.NotDialled || o.Server.Kind == trust.ServesNode || o.Outcome == trust.Refused || reason == "" {
			continue
		}
		f := Finding{
			Cause: fmt.Sprintf("%s %s", where(o), reason),
			Fix:   fmt.Sprintf("see whether %s runs and listens there, and whether a firewall is between: kubepki show %s", label(o.Server.Component), o.Server.Address),
			needs: c.filesOf(o.Server.Component),
		}.at(o.Server.Settings...)
		f = c.withBreaks(f, func(b Break) bool {
			return b.seen == o && (b.call == nil && o.Outcome == trust.Unreachable || b.call != nil && b.call.Outcome == trust.Unreachable)
		})
		if known := down[o.Server.Component]; known != nil {
			known.Cause += fmt.Sprintf("; at %s %s", o.Server.Address, reason)
			known.breaks = append(known.breaks, f.breaks...)
			continue
		}
		down[o.Server.Component] = &f
		order = append(order, o.Server.Component)
	}
	return c.withoutFollowers(down, order)
}

// hung says why a server that shakes hands answers nobody.
func hung(o *trust.Observation) string {
	for _, call := range o.Calls {
		if call.Outcome == trust.Unreachable {
			return call.Reason
		}
	}
	return ""
}

// withoutFollowers makes an apiserver whose etcd is down, and an endpoint whose
// apiservers are down, consequences.
func (c *Case) withoutFollowers(down map[string]*Finding, order []string) []Finding {
	all := func(kinds ...trust.ServerKind) *Finding {
		var first *Finding
		for i := range c.Observations {
			s := c.Observations[i].Server
			if !slices.Contains(kinds, s.Kind) {
				continue
			}
			if down[s.Component] == nil {
				return nil
			}
			if first == nil {
				first = down[s.Component]
			}
		}
		return first
	}
	var out []Finding
	etcd, apiserver := all(trust.ServesEtcd, trust.ServesElsewhere), all(trust.ServesAPI)
	if apiserver != nil && etcd != nil {
		apiserver = etcd
	}
	for _, id := range order {
		f := down[id]
		cause := (*Finding)(nil)
		switch {
		case strings.HasPrefix(id, "endpoint "):
			cause = apiserver
		case strings.HasSuffix(id, catalog.APIServer):
			cause = etcd
		}
		if cause == nil || cause == f {
			continue
		}
		f.ID, f.places = "unreachable", f.places[:1]
		cause.follow(*f)
		down[id] = cause
	}
	for _, id := range order {
		if f := down[id]; !slices.ContainsFunc(out, func(o Finding) bool { return o.Cause == f.Cause }) {
			out = append(out, *f)
		}
	}
	return out
}

// filesOf are the files without which a component does not start.
func (c *Case) filesOf(id string) []trust.Place {
	var all []trust.Place
	for i := range c.Nodes {
		for j := range c.Nodes[i].Components {
			p := &c.Nodes[i].Components[j]
			if p.ID() != id {
				continue
			}
			for _, u := range catalog.FlagUses(p.Name) {
				for _, at := range p.Flags[u.Flag] {
					all = append(all, trust.Place{Node: p.Node, Path: at})
				}
			}
		}
	}
	return all
}
