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

// Calendar writes the timeline as an RFC 5545 calendar: an event at each end.
//
// The UID of an event is that of the credential, not of the certificate, and its
// SEQUENCE grows with the time of the timeline. So a later calendar moves the
// events of an earlier one; also back, when a renewal was undone.
func (t *Timeline) Calendar(w io.Writer) error {
	c := ics.NewCalendarFor("kubepki")
	c.SetProductId("-//kubepki//kubepki//EN")
	c.SetMethod(ics.MethodPublish)
	c.SetXWRCalName("Kubernetes credentials")
	c.SetRefreshInterval("P1D")
	c.SetXPublishedTTL("P1D")
	seen := map[string]int{}
	for i := range t.Credentials {
		l := &t.Credentials[i]
		if l.NotAfter == nil {
			continue
		}
		id := l.id
		if seen[id]++; seen[id] > 1 {
			id += "-" + strconv.Itoa(seen[id]) // an authority that was certified again
		}
		t.event(c.AddEvent(id+"@kubepki"), l)
	}
	return c.SerializeTo(w, ics.WithNewLineWindows)
}

func (t *Timeline) event(e *ics.VEvent, l *Lifetime) {
	name := qualified(cmp.Or(l.Node, l.machine), l.Name)
	if l.Kind == LifeAuthority {
		name = l.Name
	}
	if l.Cluster != "" {
		name = l.Cluster + ": " + name
	}
	summary := Plain(name) + " expires"
	e.SetDtStampTime(t.At)
	e.SetLastModifiedAt(t.At)
	e.SetSequence(int(max(0, t.At.Sub(sequenceEpoch)/time.Second)))
	e.SetStartAt(l.NotAfter.UTC()) // the moment itself: a whole day would float with the reader's time zone
	e.SetSummary(summary)
	e.SetDescription(l.description())
	e.SetTimeTransparency(ics.TransparencyTransparent)
	e.AddProperty(ics.ComponentPropertyCategories, "Kubernetes")
	for _, days := range calendarAlarms {
		before := time.Duration(days) * 24 * time.Hour
		if l.NotBefore != nil && l.NotAfter.Sub(*l.NotBefore) <= before {
			continue // it lives less than that
		}
		a := e.AddAlarm()
		a.SetAction(ics.ActionDisplay)
		a.SetTrigger(fmt.Sprintf("-P%dD", days))
		a.SetDescription(fmt.Sprintf("%s in %d days", summary, days))
	}
}

// description is what the reader needs at that moment.
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
