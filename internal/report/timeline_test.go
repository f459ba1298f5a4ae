package report

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	ics "github.com/arran4/golang-ical"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

var noon = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// ending is a certificate of a year that ends some time after noon.
func ending(node, name string, in time.Duration) Lifetime {
	from, to := noon.Add(in-365*day), noon.Add(in)
	return Lifetime{Kind: LifeCertificate, Node: node, Name: name, Path: "/" + name + ".crt", Subject: "CN=" + name, NotBefore: &from, NotAfter: &to}
}

func timelineOf(window time.Duration, all ...Lifetime) *Timeline {
	t := NewTimeline(noon, window)
	for _, l := range all {
		t.Add(l)
	}
	t.Sort()
	return t
}

func TestTimelineJudges(t *testing.T) {
	short := ending("", "short", 5*day)
	begin := noon.Add(-4 * day)
	short.NotBefore = &begin
	future := ending("", "future", 400*day)
	soon, gone := noon.Add(day), noon.Add(-day)
	replaced := ending("", "ca", -day)
	replaced.replaced = true
	for name, c := range map[string]struct {
		life   Lifetime
		window time.Duration
		state  LifeState
		worst  check.Severity
	}{
		"it ended a second ago":                                       {ending("", "a", -time.Second), 0, LifeExpired, check.Error},
		"it ends at this very moment, and is good yet":                {ending("", "a", 0), 0, LifeExpiring, check.Warning},
		"29 days of a year are left":                                  {ending("", "a", 29*day), 0, LifeExpiring, check.Warning},
		"31 days of a year are left":                                  {ending("", "a", 31*day), 0, LifeValid, ""},
		"31 days are left of the 60 that were asked for":              {ending("", "a", 31*day), 60 * day, LifeExpiring, check.Warning},
		"5 of 9 days are left, which is no tenth":                     {short, 0, LifeValid, ""},
		"5 of 9 days are left, and 30 were asked for":                 {short, 30 * day, LifeExpiring, check.Warning},
		"it begins in 35 days":                                        {future, 0, LifeNotYetValid, check.Error},
		"a bootstrap token, which is meant to end":                    {Lifetime{Kind: LifeBootstrapToken, Name: "t", NotAfter: &soon}, 30 * day, LifeExpiring, ""},
		"a bootstrap token that has ended":                            {Lifetime{Kind: LifeBootstrapToken, Name: "t", NotAfter: &gone}, 0, LifeExpired, check.Warning},
		"a bootstrap token without an end":                            {Lifetime{Kind: LifeBootstrapToken, Name: "t"}, 0, LifeEndless, check.Warning},
		"a token that ends soon, of which nobody knows when it began": {Lifetime{Kind: LifeToken, Name: "t", NotAfter: &soon}, 0, LifeValid, ""},
		"an old anchor that has ended, beside a good one":             {replaced, 0, LifeExpired, check.Info},
		"a token without an end":                                      {Lifetime{Kind: LifeToken, Name: "t"}, 0, LifeEndless, check.Info},
		"a certificate that is there and could not be read":           {Lifetime{Kind: LifeCertificate, Name: "t", State: LifeUnreadable}, 0, LifeUnreadable, check.Error},
		"a certificate that is in a folder that was not given":        {Lifetime{Kind: LifeCertificate, Name: "t", State: LifeNotSeen}, 0, LifeNotSeen, check.Info},
	} {
		got := timelineOf(c.window, c.life)
		if l := got.Credentials[0]; l.State != c.state || l.Severity != c.worst {
			t.Errorf("%s: %s, %q; want %s, %q", name, l.State, l.Severity, c.state, c.worst)
		}
		order := []check.Severity{check.Info, check.Warning, check.Error}
		rank := func(s check.Severity) int { return strings.Index("-info-warning-error", string("-"+s)) }
		for _, least := range order {
			if want := c.worst != "" && rank(c.worst) >= rank(least); got.Any(least) != want {
				t.Errorf("%s: finding of %s or worse: %v", name, least, !want)
			}
		}
	}
}

func TestTimelineJoinsWhatIsAlikeOnSeveralNodes(t *testing.T) {
	var all []Lifetime
	for i := range 50 {
		all = append(all, ending(fmt.Sprintf("n%02d", i), "kubelet-server", 200*day+time.Duration(i)*time.Hour))
	}
	all = append(all, ending("n00", "apiserver", 200*day), ending("n01", "kubelet-server", 3*day), ending("n02", "kubelet-server", -3*day))
	line := timelineOf(0, all...)
	if got := len(line.rows(false)); got != 4 {
		t.Errorf("%d lines for 50 that are alike, one that ends soon, one that has ended and another one", got)
	}
	if got := len(line.rows(true)); got != len(all) {
		t.Errorf("%d lines for %d credentials with --all", got, len(all))
	}
	var b bytes.Buffer
	if err := cmp.Or(line.Text(&b, Drawing{Width: 90}), line.Text(&b, Drawing{Width: 70, ASCII: true})); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "kubelet-server of n00, n01, n02 and 47 more ") || !strings.Contains(b.String(), "kubelet-server x50 ") {
		t.Errorf("the nodes are not told:\n%s", b.String())
	}
}

func TestTimelineIsDrawn(t *testing.T) {
	authority := ending("", "ca", 3650*day)
	authority.Kind = LifeAuthority
	begin := noon.Add(-day)
	authority.NotBefore = &begin
	line := timelineOf(0, ending("cp1", "etcd-peer", -2*day), ending("cp1", "apiserver", 10*day), ending("cp1", "\x1b[31mworse", 365*day), authority,
		Lifetime{Kind: LifeToken, Name: "old", Path: "token"}, Lifetime{Kind: LifeCertificate, Node: "cp1", Name: "torn", State: LifeUnreadable, Problem: "does not parse"})
	draw := func(d Drawing) string {
		t.Helper()
		var b bytes.Buffer
		if err := line.Text(&b, d); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	want := `CREDENTIAL        EXPIRES     LEFT                    now             2027-12-19
cp1/torn          -           unreadable      does not parse
cp1/etcd-peer     2026-11-29  expired 2d ago  <-------|
cp1/apiserver     2026-12-11  10d             <-------|
cp1/?[31mworse    2027-12-01  365d                    |========================
ca                2036-11-28  3650d                   |========================>
old               -           no end          <-------|========================>
2026-12-01T12:00:00Z: 6 credentials, 1 expired, 1 expiring, 1 unreadable, 1 endless
`
	if got := draw(Drawing{Width: 80, ASCII: true}); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	for _, width := range []int{1, 20, 40, 60, 80, 200} {
		for _, l := range strings.Split(draw(Drawing{Width: width}), "\n")[:7] {
			if got := columns(l); got > max(width, 60) && !strings.Contains(l, "does not parse") {
				t.Errorf("a line of %d columns on a terminal of %d: %q", got, width, l)
			}
		}
	}
	if plain := draw(Drawing{Width: 80}); strings.Contains(plain, "\x1b") {
		t.Error("colours without a terminal")
	}
	if coloured := draw(Drawing{Width: 80, Palette: Palette{On: true}}); !strings.Contains(coloured, "\x1b[31m") || !strings.Contains(coloured, "\x1b[33m") {
		t.Error("no colours on a terminal")
	}
}

// anchorUntil makes an authority's certificate.
func anchorUntil(t *testing.T, name string, end time.Time) *x509.Certificate {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	c, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: name}, Authority: true, NotBefore: noon.Add(-1000 * day), NotAfter: end}, key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTimelineOfAnchors(t *testing.T) {
	old, young := anchorUntil(t, "old", noon.Add(-day)), anchorUntil(t, "young", noon.Add(1000*day))
	bundle := func(path string, all ...*x509.Certificate) (trust.Place, *trust.Material) {
		p := trust.Place{Node: "cp1", Path: path}
		return p, &trust.Material{Place: p, Role: trust.RoleAnchors, State: trust.Present, Certificates: all}
	}
	for name, c := range map[string]struct {
		anchors []*x509.Certificate
		worst   check.Severity
	}{"an old one beside a good one": {[]*x509.Certificate{old, young}, check.Info}, "an old one alone": {[]*x509.Certificate{old}, check.Error}} {
		g := &trust.Graph{Materials: map[trust.Place]*trust.Material{}}
		for _, path := range []string{"/a", "/b"} {
			p, m := bundle(path, c.anchors...)
			g.Materials[p] = m
		}
		line := NewTimeline(noon, 0)
		line.AddAnchors("", g)
		if len(line.Credentials) != len(c.anchors) {
			t.Errorf("%s: %d lines for %d authorities in two bundles", name, len(line.Credentials), len(c.anchors))
		}
		if got := line.Credentials[0]; got.Name != "old" || got.Severity != c.worst {
			t.Errorf("%s: %s, %q", name, got.Name, got.Severity)
		}
	}
}

// TestTimelineOfLongLives: RFC 5280 writes "no end" as the last second of the year 9999.
func TestTimelineOfLongLives(t *testing.T) {
	l := ending("", "device", 0)
	end := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	l.NotAfter = &end
	var b bytes.Buffer
	if err := timelineOf(0, l).Text(&b, Drawing{Width: 80, ASCII: true}); err != nil || !strings.Contains(b.String(), "|====") || !strings.Contains(b.String(), ">\n") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

func TestTimelineLeavesOutWhatEndsLater(t *testing.T) {
	line := timelineOf(30*day, ending("", "a", 10*day), ending("", "b", 100*day), ending("", "c", -day), Lifetime{Kind: LifeToken, Name: "endless"})
	line.OnlyDue()
	var b bytes.Buffer
	if err := line.Names(&b); err != nil || b.String() != "c\na\n" || line.Others != 2 {
		t.Errorf("%q, %d others, %v", b.String(), line.Others, err)
	}
}

// calendarOf writes a timeline as a calendar, and reads it again.
func calendarOf(t *testing.T, line *Timeline) (text string, parsed *ics.Calendar) {
	t.Helper()
	var b bytes.Buffer
	if err := line.Calendar(&b); err != nil {
		t.Fatal(err)
	}
	parsed, err := ics.ParseCalendar(strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), parsed
}

func value(e *ics.VEvent, p ics.ComponentProperty) string { return e.GetProperty(p).Value }

func TestCalendarIsMovedByARenewalAndByItsUndoing(t *testing.T) {
	first := timelineOf(0, ending("cp1", "apiserver", 10*day), ending("cp2", "apiserver", 10*day))
	_, before := calendarOf(t, first)
	steps := []struct {
		name string
		at   time.Duration
		in   time.Duration
	}{{"renewed", time.Minute, 365 * day}, {"undone", time.Hour, 10 * day}}
	last := before.Events()[0]
	if value(last, ics.ComponentPropertyUniqueId) == value(before.Events()[1], ics.ComponentPropertyUniqueId) {
		t.Error("two nodes have one event")
	}
	for _, s := range steps {
		later := NewTimeline(noon.Add(s.at), 0)
		later.Add(ending("cp1", "apiserver", s.in))
		_, c := calendarOf(t, later)
		e := c.Events()[0]
		if value(e, ics.ComponentPropertyUniqueId) != value(last, ics.ComponentPropertyUniqueId) {
			t.Errorf("%s: the event has another UID", s.name)
		}
		var was, is int
		fmt.Sscan(value(last, ics.ComponentPropertySequence), &was)
		fmt.Sscan(value(e, ics.ComponentPropertySequence), &is)
		if is <= was || is >= 1<<31 {
			t.Errorf("%s: SEQUENCE %d after %d: the calendar keeps the old one", s.name, is, was)
		}
		if start, err := e.GetStartAt(); err != nil || !start.Equal(noon.Add(s.in)) {
			t.Errorf("%s: it is at %s, %v", s.name, start, err)
		}
		last = e
	}
}

func TestCalendarHoldsForeignTextAsText(t *testing.T) {
	l := ending("cp1", `a,b;c\d "e"`+"\r\nEND:VEVENT\x00"+strings.Repeat("ü", 100), 100*day)
	l.Subject = "CN=x\nBEGIN:VEVENT"
	text, parsed := calendarOf(t, timelineOf(0, l))
	for _, line := range strings.Split(text, "\r\n") {
		if len(line) > 75 || strings.ContainsAny(line, "\n\r\x00") {
			t.Errorf("a line of %d octets: %q", len(line), line)
		}
	}
	if strings.Count(text, "BEGIN:VEVENT\r\n") != 1 || len(parsed.Events()) != 1 {
		t.Errorf("a name made an event:\n%s", text)
	}
	if got := value(parsed.Events()[0], ics.ComponentPropertySummary); !strings.Contains(got, `a,b;c\d "e"??END:VEVENT?üü`) {
		t.Errorf("the name is read as %q", got)
	}
}

// TestCalendarIsReadByAnother has python3-icalendar, which shares no code with what
// wrote the calendar, read it.
func TestCalendarIsReadByAnother(t *testing.T) {
	const program = `
import icalendar, sys
for e in icalendar.Calendar.from_ical(sys.stdin.buffer.read()).walk("VEVENT"):
    print(e["uid"], int(e["sequence"]), e.decoded("dtstart").isoformat(), repr(str(e["summary"])), [str(a["trigger"].dt.days) for a in e.walk("VALARM")])
`
	python := ""
	for _, name := range []string{"python3", "/usr/bin/python3"} { // that of Debian's packages
		if exec.Command(name, "-c", "import icalendar").Run() == nil {
			python = name
		}
	}
	if python == "" {
		t.Skip("python3-icalendar is not installed: apt-get install python3-icalendar")
	}
	line := timelineOf(0, ending("cp1", "etcd, peer; \\d", 100*day), ending("cp2", strings.Repeat("ä", 80), 200*day))
	text, _ := calendarOf(t, line)
	read := exec.Command(python, "-c", program)
	read.Stdin = strings.NewReader(text)
	read.Env = append(os.Environ(), "PYTHONIOENCODING=utf-8")
	out, err := read.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sequence := int(noon.Sub(sequenceEpoch) / time.Second)
	want := fmt.Sprintf("%s@kubepki %d 2027-03-11T12:00:00+00:00 'cp1/etcd, peer; \\\\d expires' ['-30', '-7']\n%s@kubepki %d 2027-06-19T12:00:00+00:00 'cp2/%s expires' ['-30', '-7']\n",
		line.Credentials[0].id, sequence, line.Credentials[1].id, sequence, strings.Repeat("ä", 80))
	if string(out) != want {
		t.Errorf("it reads\n%s\nwant\n%s", out, want)
	}
}

func TestCalendarRingsOnlyWithinALife(t *testing.T) {
	week := ending("", "week", 5*day)
	begin := noon.Add(-4 * day)
	week.NotBefore = &begin
	for name, c := range map[string]struct {
		life Lifetime
		want int
	}{"a year": {ending("", "year", 100*day), 2}, "nine days": {week, 1}} {
		_, parsed := calendarOf(t, timelineOf(0, c.life))
		if got := len(parsed.Events()[0].Alarms()); got != c.want {
			t.Errorf("%s: %d alarms, want %d", name, got, c.want)
		}
	}
	if text, parsed := calendarOf(t, timelineOf(0, Lifetime{Kind: LifeToken, Name: "endless"})); len(parsed.Events()) != 0 {
		t.Errorf("an event for what has no end:\n%s", text)
	}
}

func TestCalendarHasNoUIDTwice(t *testing.T) {
	line := NewTimeline(noon, 0)
	a := ending("", "ca", 100*day)
	b := ending("", "ca", 200*day) // certified again: the same key, so the same id
	line.Add(a)
	line.Add(b)
	_, parsed := calendarOf(t, line)
	if first, second := value(parsed.Events()[0], ics.ComponentPropertyUniqueId), value(parsed.Events()[1], ics.ComponentPropertyUniqueId); first == second {
		t.Errorf("both are %s", first)
	}
}

// What ends on one node on one day is one event. Renewed together it moves; what is
// renewed alone leaves it, and takes no event of the others along.
func TestCalendarHasOneEventForANodeAndADay(t *testing.T) {
	authority := func(name string) Lifetime {
		l := ending("", name, 3000*day)
		l.Kind = LifeAuthority
		return l
	}
	summaries := func(all ...Lifetime) map[string]string {
		_, c := calendarOf(t, timelineOf(0, all...))
		out := map[string]string{}
		for _, e := range c.Events() {
			out[value(e, ics.ComponentPropertySummary)] = value(e, ics.ComponentPropertyUniqueId)
		}
		return out
	}
	names := []string{"apiserver", "etcd-peer", "etcd-server"}
	var all, renewed []Lifetime
	for i, n := range names {
		all = append(all, ending("cp1", n, 100*day+time.Duration(i)*time.Minute))
		renewed = append(renewed, ending("cp1", n, 400*day))
	}
	all = append(all, ending("cp2", "apiserver", 100*day), ending("cp1", "next day", 101*day), ending("", "no node", 100*day), ending("", "nor this", 100*day), authority("ca"), authority("etcd-ca"))
	before := summaries(all...)
	for _, want := range []string{"cp1: 3 credentials expire", "cp2/apiserver expires", "cp1/next day expires", "no node expires", "nor this expires", "2 authorities expire"} {
		if before[want] == "" {
			t.Errorf("no event %q in %v", want, before)
		}
	}
	if len(before) != 6 {
		t.Errorf("%d events", len(before))
	}
	text, parsed := calendarOf(t, timelineOf(0, all[:3]...))
	if start, err := parsed.Events()[0].GetStartAt(); err != nil || !start.Equal(noon.Add(100*day)) {
		t.Errorf("it is at %s, %v, and the first ends before", start, err)
	}
	for _, n := range names {
		if !strings.Contains(strings.ReplaceAll(text, "\r\n ", ""), "cp1:/"+n+".crt") {
			t.Errorf("%s is not described", n)
		}
	}
	if after := summaries(renewed...); after["cp1: 3 credentials expire"] != before["cp1: 3 credentials expire"] {
		t.Error("renewed together it has another UID")
	}
	for i, alone := range names {
		apart := slices.Clone(all[:3])
		apart[i] = renewed[i]
		after := summaries(apart...)
		one, rest := after["cp1/"+alone+" expires"], after["cp1: 2 credentials expire"]
		if old := before["cp1: 3 credentials expire"]; one == rest || one != old && rest != old {
			t.Errorf("%s renewed alone: its event is %s, that of the others %s, and was %s", alone, one, rest, old)
		}
	}
}
