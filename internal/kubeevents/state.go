package kubeevents

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/agent"
	"github.com/kubepki/kubepki/internal/brief"
	"github.com/kubepki/kubepki/internal/report"
)

// decision is the Event of what the agent did or refused.
func (t *Teller) decision(d *agent.Decision) (event, bool) {
	e := event{regarding: t.nodeReference(d.Node), kind: corev1.EventTypeWarning, note: d.ID + ": " + d.Text}
	switch d.Action {
	case agent.Renewed:
		e.kind, e.reason, e.action = corev1.EventTypeNormal, CertificateRenewed, "Renew"
		if !d.NotAfter.IsZero() {
			e.note += fmt.Sprintf(" (until %s)", d.NotAfter.UTC().Format(time.DateOnly))
		}
	case agent.Failed, agent.Refused:
		e.reason, e.action = RenewalFailed, "Renew"
	case agent.Restarted:
		e.kind, e.reason, e.action = corev1.EventTypeNormal, ComponentRestarted, "Restart"
	case agent.Stuck:
		e.reason, e.action = RestartFailed, "Restart"
	default:
		return e, false
	}
	return e, e.kind == corev1.EventTypeNormal || t.isNew(e, d.ID+" "+d.Reason)
}

// isNew tells whether something is to be told of an object, and remembers that it was.
func (t *Teller) isNew(e event, what string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.o.Now()
	id := strings.Join([]string{e.regarding.Kind, e.regarding.Namespace, e.regarding.Name, e.reason}, " ")
	if e.reason == RenewalFailed || e.reason == RestartFailed {
		id += " " + what // each credential by itself
	}
	before, known := t.told[id]
	since := now.Sub(before.at)
	if known && (since < calm || before.what == what && since < again) {
		return false
	}
	if !known && len(t.told) >= remembered {
		clear(t.told) // it is told once more, and no more than the limit lets through
	}
	t.told[id] = told{what, now}
	return true
}

// state are the Events of what is so now, and was not told.
func (t *Teller) state(s *agent.Snapshot) []event {
	return append(t.links(s), t.expiring(s)...)
}

// links are broken ones, in one Event for the node of each caller.
func (t *Teller) links(s *agent.Snapshot) []event {
	if s.Verified == nil {
		return nil
	}
	broken := map[string][]string{}
	var nodes []string
	for i := range s.Verified.Links {
		l := &s.Verified.Links[i]
		if l.OK {
			continue
		}
		node, _, ok := strings.Cut(l.Caller, "/")
		if !ok {
			node = ""
		}
		if broken[node] == nil {
			nodes = append(nodes, node)
		}
		text := fmt.Sprintf("link %d from %s to %s", l.Number, l.Caller, l.Callee)
		if len(l.Findings) > 0 {
			text += " (" + strings.Join(l.Findings, ", ") + ")"
		}
		broken[node] = append(broken[node], text)
	}
	var all []event
	for _, node := range nodes {
		what := broken[node]
		e := event{regarding: t.nodeReference(node), kind: corev1.EventTypeWarning, reason: LinkBroken, action: "Verify", note: listed("broken: ", what, "; kubepki verify tells the cause")}
		if t.isNew(e, strings.Join(what, "\n")) {
			all = append(all, e)
		}
	}
	return all
}

// maxListed is how many things one Event names.
const maxListed = 5

func listed(head string, what []string, tail string) string {
	text := head + strings.Join(what[:min(len(what), maxListed)], ", ")
	if len(what) > maxListed {
		text += fmt.Sprintf(" and %d more", len(what)-maxListed)
	}
	return text + tail
}

// ending is one object, or node, with what of it ends soon.
type ending struct {
	regarding corev1.ObjectReference
	path      string   // of an object, as places have it; "": of a node
	what      []string // for people
	which     []string // the same as long as nothing was made anew
	first     int64
}

// expiring are the Events of certificates that end soon, those that end first before
// others: one for each node and object.
func (t *Teller) expiring(s *agent.Snapshot) []event {
	found := map[string]*ending{}
	s.Each(func(c brief.Certificate) bool {
		f := c.Facts.Value()
		if !soon(&f, s.At) {
			return true
		}
		id, regarding := t.regarding(c)
		e := found[id]
		if e == nil {
			if len(found) == remembered {
				return true
			}
			e = &ending{regarding: regarding, first: f.Until}
			if c.Place.InAPI() {
				e.path = c.Place.Path
			}
			found[id] = e
		}
		e.first = min(e.first, f.Until)
		name := strings.TrimSuffix(c.Place.Path+"#"+c.Place.Field, "#")
		if c.Place.InAPI() {
			name = c.Place.Field
		}
		e.what = append(e.what, fmt.Sprintf("%s (%s)", name, report.Left(f.NotBefore(), f.NotAfter(), s.At)))
		e.which = append(e.which, fmt.Sprintf("%s %x %t", name, f.Print, s.At.Unix() > f.Until))
		return true
	})
	var ends []*ending
	for _, e := range found {
		ends = append(ends, e)
	}
	slices.SortFunc(ends, func(a, b *ending) int {
		if a.first != b.first {
			return int(max(-1, min(1, a.first-b.first)))
		}
		return strings.Compare(a.regarding.Namespace+"/"+a.regarding.Name, b.regarding.Namespace+"/"+b.regarding.Name)
	})
	var all []event
	for _, end := range ends {
		if len(all) >= waiting-reserve-len(t.queue) {
			break // the others have their turn when these have been told
		}
		slices.Sort(end.which)
		e := event{regarding: end.regarding, kind: corev1.EventTypeWarning, reason: CertificateExpiring, action: "Verify", note: listed("certificates that end soon: ", end.what, "")}
		if t.isNew(e, strings.Join(end.which, "\n")) {
			if end.path != "" {
				e.regarding.UID = types.UID(t.o.UID(end.path))
			}
			all = append(all, e)
		}
	}
	return all
}

// soon tells of a certificate that has ended, or ends within the window of the finding
// cert-expiring: 30 days or a tenth of its life, whichever is shorter.
func soon(f *brief.Facts, at time.Time) bool {
	window := min(30*24*time.Hour, f.NotAfter().Sub(f.NotBefore())/10)
	return f.NotAfter().Sub(at) < window
}

// regarding is the object that an Event on a certificate is about.
func (t *Teller) regarding(c brief.Certificate) (id string, o corev1.ObjectReference) {
	if !c.Place.InAPI() {
		return "node " + c.Place.Node, t.nodeReference(c.Place.Node)
	}
	resource, name, _ := strings.Cut(c.Place.Path, "/")
	kind, version := kindOf(resource)
	o = corev1.ObjectReference{APIVersion: version, Kind: kind, Name: name}
	if resource == "secret" || resource == "configmap" {
		o.Namespace, o.Name, _ = strings.Cut(name, "/")
	}
	return c.Place.Path, o
}

func kindOf(resource string) (kind, version string) {
	switch resource {
	case "secret":
		return "Secret", "v1"
	case "configmap":
		return "ConfigMap", "v1"
	case "apiservice":
		return "APIService", "apiregistration.k8s.io/v1"
	case "customresourcedefinition":
		return "CustomResourceDefinition", "apiextensions.k8s.io/v1"
	case "validatingwebhookconfiguration":
		return "ValidatingWebhookConfiguration", "admissionregistration.k8s.io/v1"
	case "mutatingwebhookconfiguration":
		return "MutatingWebhookConfiguration", "admissionregistration.k8s.io/v1"
	}
	return "Node", "v1"
}
