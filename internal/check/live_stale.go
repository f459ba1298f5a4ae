package check

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// servingStale compares what a process presents with the file that it serves.
func servingStale(c *Case) []Finding {
	out := c.processStale(true)
	for i := range c.Observations {
		o := &c.Observations[i]
		if o.Outcome != trust.Answered || c.startedOtherwise(o.Server.Component) {
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
			live:  true, processes: []string{o.Server.Component},
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
	out := c.processStale(false)
	for i := range c.Observations {
		o := &c.Observations[i]
		if o.Outcome != trust.Answered || c.startedOtherwise(o.Server.Component) {
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
		f.Fix, f.needs, f.live, f.processes = takeUpTrust(o.Server), places, true, []string{o.Server.Component}
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
