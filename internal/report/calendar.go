package report

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	ics "github.com/arran4/golang-ical"
)

// calendarAlarms are when before the end of a credential a calendar rings, in days.
var calendarAlarms = []int{30, 7}

// sequenceEpoch is where the revisions of events are counted from, in seconds:
// RFC 5545 section 3.3.8 gives an integer 31 bits, which last until 2093.
var sequenceEpoch = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// Calendar writes the timeline as an RFC 5545 calendar: an event for what ends on one
// day (of UTC) on one node, and one for the authorities of a cluster that end on one
// day, with all of it in its description. What is on no node has an event of its own.
//
// The UID of an event is that of a credential, not of a certificate: of those of the
// event the first by its id. Its SEQUENCE grows with the time of the timeline. So a
// later calendar moves the events of an earlier one; also back, when a renewal was
// undone.
func (t *Timeline) Calendar(w io.Writer) error {
	c := ics.NewCalendarFor("kubepki")
	c.SetProductId("-//kubepki//kubepki//EN")
	c.SetMethod(ics.MethodPublish)
	c.SetXWRCalName("Kubernetes credentials")
	c.SetRefreshInterval("P1D")
	c.SetXPublishedTTL("P1D")
	seen := map[string]int{}
	for _, of := range t.events() {
		id := of[0].id
		for _, l := range of {
			id = min(id, l.id)
		}
		if seen[id]++; seen[id] > 1 {
			id += "-" + strconv.Itoa(seen[id]) // an authority that was certified again
		}
		t.event(c.AddEvent(id+"@kubepki"), of)
	}
	return c.SerializeTo(w, ics.WithNewLineWindows)
}

// events are the credentials that have an end, those of one event together, in the
// order of the timeline.
func (t *Timeline) events() [][]*Lifetime {
	var all [][]*Lifetime
	known := map[string]int{}
	for i := range t.Credentials {
		l := &t.Credentials[i]
		if l.NotAfter == nil {
			continue
		}
		where := "node " + cmp.Or(l.Node, l.machine)
		switch {
		case l.Kind == LifeAuthority:
			where = "authorities"
		case l.Node == "" && l.machine == "":
			where = fmt.Sprintf("alone %d", i)
		}
		key := strings.Join([]string{l.Cluster, where, l.NotAfter.UTC().Format(time.DateOnly)}, "\x00")
		if at, ok := known[key]; ok {
			all[at] = append(all[at], l)
			continue
		}
		known[key] = len(all)
		all = append(all, []*Lifetime{l})
	}
	return all
}

// event fills in one, at the moment at which the first of its credentials ends.
func (t *Timeline) event(e *ics.VEvent, of []*Lifetime) {
	summary := Plain(summaryOf(of))
	first, longest := of[0].NotAfter, time.Duration(0)
	for _, l := range of {
		if l.NotAfter.Before(*first) {
			first = l.NotAfter
		}
		if l.NotBefore == nil {
			longest = endless
		} else {
			longest = max(longest, l.NotAfter.Sub(*l.NotBefore))
		}
	}
	e.SetDtStampTime(t.At)
	e.SetLastModifiedAt(t.At)
	e.SetSequence(int(max(0, t.At.Sub(sequenceEpoch)/time.Second)))
	e.SetStartAt(first.UTC()) // the moment itself: a whole day would float with the reader's time zone
	e.SetSummary(summary)
	e.SetDescription(describe(of))
	e.SetTimeTransparency(ics.TransparencyTransparent)
	e.AddProperty(ics.ComponentPropertyCategories, "Kubernetes")
	for _, days := range calendarAlarms {
		if longest <= time.Duration(days)*24*time.Hour {
			continue // nothing of it lives longer than that
		}
		a := e.AddAlarm()
		a.SetAction(ics.ActionDisplay)
		a.SetTrigger(fmt.Sprintf("-P%dD", days))
		a.SetDescription(fmt.Sprintf("%s in %d days", summary, days))
	}
}

// endless is the life of what does not tell when it began.
const endless = time.Duration(1<<63 - 1)

// summaryOf is what the reader sees in the calendar: a name, or how many.
func summaryOf(of []*Lifetime) string {
	l, authority := of[0], of[0].Kind == LifeAuthority
	node := cmp.Or(l.Node, l.machine)
	text := ""
	switch {
	case len(of) == 1 && authority:
		text = l.Name + " expires"
	case len(of) == 1:
		text = qualified(node, l.Name) + " expires"
	case authority:
		text = fmt.Sprintf("%d authorities expire", len(of))
	default:
		text = fmt.Sprintf("%s: %d credentials expire", node, len(of))
	}
	if l.Cluster != "" {
		text = l.Cluster + ": " + text
	}
	return text
}

// maxDescribed bounds how many credentials of an event are described.
const maxDescribed = 100

// describe is what the reader needs at that moment, of each credential of an event.
func describe(of []*Lifetime) string {
	var all []string
	for _, l := range of[:min(len(of), maxDescribed)] {
		all = append(all, l.description())
	}
	if more := len(of) - maxDescribed; more > 0 {
		all = append(all, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(all, "\n\n")
}

// description is one credential in words.
func (l *Lifetime) description() string {
	where := l.Path
	if node := cmp.Or(l.Node, l.machine); node != "" {
		where = node + ":" + where
	}
	if l.Field != "" {
		where += " (" + l.Field + ")"
	}
	lines := []string{fmt.Sprintf("%s at %s", strings.ReplaceAll(string(l.Kind), "-", " "), Plain(where))}
	if l.Subject != "" {
		lines = append(lines, "subject: "+Plain(l.Subject))
	}
	if l.Serial != "" {
		lines = append(lines, "serial: "+l.Serial)
	}
	lines = append(lines, "ends: "+l.NotAfter.UTC().Format(time.RFC3339))
	return strings.Join(lines, "\n")
}
