package check

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

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
		if o.Outcome == trust.NotDialled || o.Outcome == trust.Refused || reason == "" {
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

// servingStale compares what a process presents with the file that it serves.
func servingStale(c *Case) []Finding {
	var out []Finding
	for i := range c.Observations {
		o := &c.Observations[i]
		if o.Outcome != trust.Answered {
			continue
		}
		file := c.chainOf(o.Server.Credential)
		if len(file) == 0 {
			out = append(out, c.presentedWrong(o)...)
			continue
		}
		if trust.SameChain(file, o.Chain) {
			continue
		}
		at := o.Server.Credential.Certificate
		f := Finding{
			Cause: fmt.Sprintf("%s still presents %s; %s holds %s", where(o), describe(o.Chain), base(at.Path), describe(file)),
			Fix:   takeUpServing(o.Server),
			needs: []trust.Place{at, o.Server.Credential.Key},
			live:  true,
		}.at(at)
		out = append(out, c.withBreaks(f, func(b Break) bool { return b.seen == o && b.call == nil && b.Server }))
	}
	return out
}

// describe names a chain by its leaf.
func describe(chain []*x509.Certificate) string {
	leaf := chain[0]
	text := fmt.Sprintf("the certificate with serial %X, which expires %s", leaf.SerialNumber, leaf.NotAfter.UTC().Format(time.RFC3339))
	if len(chain) > 1 {
		text += fmt.Sprintf(" (and %d more of its chain)", len(chain)-1)
	}
	return text
}

// presentedWrong judges what is presented where no file is known to compare it
// with: at an endpoint, or by a kubelet that keeps its certificate elsewhere.
func (c *Case) presentedWrong(o *trust.Observation) []Finding {
	var out []Finding
	ids := map[trust.Kind]string{
		trust.Expired: "cert-expired", trust.NotYetValid: "cert-not-yet-valid", trust.NameMissing: "san-missing",
		trust.ChainIncomplete: "chain-incomplete", trust.WrongUsage: "usage-missing", trust.Constraint: "constraint-violated", trust.Weak: "key-weak",
	}
	for at, b := range c.Breaks {
		if b.seen != o || b.call != nil || !b.Server {
			continue
		}
		first := c.JudgePresented(o.Chain, c.Links[b.Link].Server, c.At)[0]
		f := Finding{ID: ids[first.Kind], breaks: []int{at},
			Cause: fmt.Sprintf("%s presents %s (CN=%s), which %s does not accept: %s %s", where(o),
				describe(o.Chain), o.Chain[0].Subject.CommonName, label(c.Links[b.Link].Caller), first.Kind, first.Name),
			Fix: fmt.Sprintf("see who answers there: kubepki show %s", o.Server.Address)}
		if f.ID == "" {
			f.ID = "authority-unknown"
		}
		out = mergeFinding(out, f.at(o.Server.Settings...))
	}
	return out
}

// trustStale: a process does not trust whom its file says: it names other
// authorities to its clients, or refuses those whom the file admits.
func trustStale(c *Case) []Finding {
	var out []Finding
	for i := range c.Observations {
		o := &c.Observations[i]
		if o.Outcome != trust.Answered {
			continue
		}
		said := c.namesOthers(o)
		f := c.withBreaks(Finding{}, func(b Break) bool { return b.seen == o && c.distrusts(o, b) })
		for _, b := range f.breaks {
			call := c.Breaks[b].call
			if text := fmt.Sprintf("it refuses %s (%s)", named(call.Credential.Certificate), call.Reason); !slices.Contains(said, text) {
				said = append(said, text)
			}
		}
		if len(said) == 0 {
			continue
		}
		places := o.Server.ClientCAs
		if len(f.breaks) > 0 {
			places = append([]trust.Place{c.Breaks[f.breaks[0]].Bundle.Anchors}, places...)
		}
		f.Cause = fmt.Sprintf("%s does not trust whom %s admits: %s", where(o), base(places[0].Path), strings.Join(said, "; "))
		f.Fix, f.needs, f.live = takeUpTrust(o.Server), places, true
		out = mergeProcess(out, f.at(places...), o.Server.Component)
	}
	return append(out, c.publishedStale()...)
}

// mergeProcess joins what the ports of one process say of one file.
func mergeProcess(all []Finding, f Finding, component string) []Finding {
	for i := range all {
		if all[i].places[0] == f.places[0] && strings.HasPrefix(all[i].Cause, label(component)+" ") {
			all[i].Cause += "; " + strings.TrimPrefix(f.Cause, label(component)+" ")
			all[i].breaks = append(all[i].breaks, f.breaks...)
			return all
		}
	}
	return append(all, f)
}

// namesOthers compares the authorities that a server names to its clients with
// those of its files (RFC 8446 section 4.2.4, RFC 5246 section 7.4.4).
func (c *Case) namesOthers(o *trust.Observation) []string {
	var want []*x509.Certificate
	for _, at := range o.Server.ClientCAs {
		if !c.Material(at).OK() {
			return nil
		}
		want = append(want, c.Material(at).Certificates...)
	}
	if len(want) == 0 {
		return nil
	}
	if !o.AsksClient {
		return []string{"it asks for no client certificate"}
	}
	var missing, others []string
	for _, x := range want {
		if !slices.ContainsFunc(o.Authorities, func(a []byte) bool { return bytes.Equal(a, x.RawSubject) }) {
			missing = append(missing, x.Subject.String())
		}
	}
	for _, a := range o.Authorities {
		if !slices.ContainsFunc(want, func(x *x509.Certificate) bool { return bytes.Equal(a, x.RawSubject) }) {
			others = append(others, trust.SubjectText(a))
		}
	}
	var said []string
	if len(missing) > 0 {
		said = append(said, "it does not name "+strings.Join(missing, " and ")+" to its clients")
	}
	if len(others) > 0 {
		said = append(said, "it names "+strings.Join(others, " and ")+", which is not in the file")
	}
	return said
}

// distrusts tells whether a live break is a refusal for want of trust, of a
// caller whom the file admits.
func (c *Case) distrusts(o *trust.Observation, b Break) bool {
	if b.call == nil || b.call.Outcome != trust.Refused || b.Bundle == nil || !c.Material(b.Bundle.Anchors).OK() || o.Server.Kind == trust.ServesEndpoint {
		return false
	}
	return slices.Contains([]string{"unknown_ca", "bad_certificate", "certificate_unknown"}, b.call.Alert) || b.call.Status == 401
}

// refused is what is left: servers that refuse everybody, callers that are
// refused for another reason, and those that are taken for somebody else.
func refused(c *Case) []Finding {
	var out []Finding
	for i := range c.Observations {
		o := &c.Observations[i]
		if o.Outcome == trust.Refused {
			f := Finding{Cause: where(o) + " " + o.Reason, Fix: takeUpRefusal(o)}
			out = append(out, c.withBreaks(f.at(o.Server.Settings...), func(b Break) bool { return b.seen == o }))
			continue
		}
		out = append(out, c.refusedCallers(o)...)
	}
	return out
}

// refusedCallers are those whom one server does not let in, or takes for others,
// in one finding for each reason.
func (c *Case) refusedCallers(o *trust.Observation) []Finding {
	var out []Finding
	index := map[string]int{}
	for at, b := range c.Breaks {
		if b.seen != o || b.call == nil || b.call.Outcome == trust.Unreachable || c.distrusts(o, b) {
			continue
		}
		reason := b.call.Reason
		if b.call.Outcome == trust.Answered {
			reason = "it takes the caller for " + spoken(b.call)
		}
		who := b.call.Credential.Certificate
		i, known := index[reason]
		if !known {
			i = len(out)
			index[reason] = i
			f := Finding{Cause: fmt.Sprintf("%s refuses %s: %s", where(o), named(who), reason), Fix: "see its log for the reason; compare the clocks of both machines"}
			if b.call.Outcome == trust.Answered {
				f.ID = "identity-wrong"
				f.Cause = fmt.Sprintf("%s takes %s for %s", where(o), named(who), spoken(b.call))
				f.Fix = "see what stands between: something ends TLS before the apiserver, or its authentication is configured otherwise (--authentication-config)"
			}
			out = append(out, f.at(who))
		}
		if !slices.Contains(out[i].places, who) {
			// It is the server's doing, not that of one caller.
			out[i] = out[i].at(slices.Concat([]trust.Place{settingOf(o)}, out[i].places, []trust.Place{who})...)
			if !strings.HasSuffix(out[i].Cause, "; and others") {
				out[i].Cause += "; and others"
			}
		}
		out[i].breaks = append(out[i].breaks, at)
	}
	return out
}

// spoken is who a server says that a caller is.
func spoken(call *trust.Call) string {
	if len(call.Groups) == 0 {
		return call.User
	}
	return call.User + " of " + strings.Join(call.Groups, ", ")
}

// notDialled says once for each reason what was not proved live.
func (c *Case) notDialled() []Finding {
	var reasons []string
	who, at := map[string][]string{}, map[string]trust.Place{}
	add := func(o *trust.Observation, name, reason string) {
		if len(who[reason]) == 0 {
			reasons, at[reason] = append(reasons, reason), settingOf(o)
		}
		if !slices.Contains(who[reason], name) {
			who[reason] = append(who[reason], name)
		}
	}
	for i := range c.Observations {
		o := &c.Observations[i]
		if o.Outcome == trust.NotDialled {
			add(o, label(o.Server.Component), o.Reason)
		}
		for _, call := range o.Calls {
			if call.Outcome == trust.NotDialled {
				add(o, fmt.Sprintf("%s as %s", label(o.Server.Component), call.Credential.ID), call.Reason)
			}
		}
	}
	var out []Finding
	for _, reason := range reasons {
		f := Finding{Cause: fmt.Sprintf("not proved live: %s: %s", few(who[reason]), reason)}
		if !strings.Contains(reason, "no such node") {
			f.Fix = "kubepki verify --live on the node itself"
		}
		out = append(out, f.at(at[reason]))
	}
	return out
}

// few names the first of many.
func few(names []string) string {
	const most = 6
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// where names a server with its address.
func where(o *trust.Observation) string {
	if strings.HasSuffix(o.Server.Component, " "+o.Server.Address) {
		return o.Server.Component
	}
	return label(o.Server.Component) + " at " + o.Server.Address
}

func settingOf(o *trust.Observation) trust.Place {
	if len(o.Server.Settings) == 0 {
		return trust.Place{}
	}
	return o.Server.Settings[0]
}

// label is a component's ID as people say it.
func label(id string) string {
	if node, name, ok := strings.Cut(id, "/"); ok {
		return name + " of " + node
	}
	return id
}
