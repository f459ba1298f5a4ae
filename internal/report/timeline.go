package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/kubepki/kubepki/internal/check"
)

// Drawing says how a [Timeline] is drawn.
type Drawing struct {
	Palette Palette
	Width   int  // of the terminal, in columns
	ASCII   bool // no other characters for bars
	// All gives each credential a line of its own, where those that are alike on
	// several nodes share one otherwise.
	All bool
}

// bounds of what is drawn, in columns.
const (
	minBar, maxBar = 10, 60
	minName        = 16
)

// lifeRow is one line of a timeline: a credential, or several that are alike but for
// their nodes.
type lifeRow struct {
	Lifetime
	nodes []string
}

// Text draws the timeline for people: a line for each credential with a bar from
// its begin to its end, and now marked in it.
func (t *Timeline) Text(w io.Writer, d Drawing) error {
	rows := t.rows(d.All)
	if len(rows) == 0 {
		return nil
	}
	names, ends, lefts := make([]string, len(rows)), make([]string, len(rows)), make([]string, len(rows))
	nameWidth, endWidth, leftWidth := len("CREDENTIAL"), len(time.DateOnly), len("LEFT")
	for i := range rows {
		names[i], ends[i], lefts[i] = rows[i].title(""), rows[i].ends(), t.leftOf(&rows[i].Lifetime)
		nameWidth, leftWidth = max(nameWidth, columns(names[i])), max(leftWidth, columns(lefts[i]))
	}
	const gaps = 2 * 3
	rest := d.Width - endWidth - leftWidth - gaps
	nameWidth = max(minName, min(nameWidth, rest-minBar))
	bar := max(minBar, min(maxBar, rest-nameWidth))
	for i := range names {
		if columns(names[i]) > nameWidth {
			times := "×"
			if d.ASCII {
				times = "x"
			}
			names[i] = shorten(rows[i].title(times), nameWidth, d.ASCII)
		}
	}
	x := t.axis(rows, bar, d)
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s  %s  %s\n", pad("CREDENTIAL", nameWidth), pad("EXPIRES", endWidth), pad("LEFT", leftWidth), x.head())
	for i := range rows {
		r := &rows[i]
		line := Plain(r.Problem)
		if r.Problem == "" {
			line = x.bar(&r.Lifetime)
		}
		line = fmt.Sprintf("%s  %s  %s  %s", pad(names[i], nameWidth), pad(ends[i], endWidth),
			d.Palette.urgency(r.Severity, pad(lefts[i], leftWidth)), d.Palette.urgency(r.Severity, line))
		fmt.Fprintln(&b, strings.TrimRight(line, " "))
	}
	fmt.Fprintln(&b, t.summary())
	_, err := io.WriteString(w, b.String())
	return err
}

// summary counts what is shown.
func (t *Timeline) summary() string {
	counts := map[LifeState]int{}
	for i := range t.Credentials {
		counts[t.Credentials[i].State]++
	}
	parts := []string{fmt.Sprintf("%d credentials", len(t.Credentials))}
	if len(t.Credentials) == 1 {
		parts[0] = "1 credential"
	}
	for _, s := range []LifeState{LifeExpired, LifeExpiring, LifeNotYetValid, LifeUnreadable, LifeEndless, LifeNotSeen} {
		if n := counts[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, strings.ReplaceAll(string(s), "-", " ")))
		}
	}
	if t.Others > 0 {
		parts = append(parts, fmt.Sprintf("%d more end later", t.Others))
	}
	return fmt.Sprintf("%s: %s", t.At.Format(time.RFC3339), strings.Join(parts, ", "))
}

// rows are the lines, in the order of the credentials. Those of one name and state
// on several nodes are one line, when they end so close to each other that their
// bars look the same: within a day, or a tenth of what is left.
func (t *Timeline) rows(all bool) []lifeRow {
	var rows []lifeRow
	type key struct {
		kind                          LifeKind
		cluster, name, field, problem string
		state                         LifeState
	}
	last := map[key]int{}
	for i := range t.Credentials {
		l := &t.Credentials[i]
		k := key{kind: l.Kind, cluster: l.Cluster, name: l.Name, field: l.Field, state: l.State, problem: l.Problem}
		if l.Node != "" {
			k.field = strings.ReplaceAll(l.Field, l.Node, "") // users[system:node:NODE]
		}
		j, seen := last[k]
		if seen && !all && l.Kind != LifeAuthority && l.Node != "" && alike(&rows[j].Lifetime, l, t.At) {
			if last := len(rows[j].nodes) - 1; rows[j].nodes[last] != l.Node {
				rows[j].nodes = append(rows[j].nodes, l.Node)
			}
			continue
		}
		r := lifeRow{Lifetime: *l}
		if l.Node != "" {
			r.nodes = []string{l.Node}
		}
		last[k] = len(rows)
		rows = append(rows, r)
	}
	return rows
}

// alike tells whether b, which ends no sooner than a, ends about when a does.
func alike(a, b *Lifetime, at time.Time) bool {
	if a.NotAfter == nil || b.NotAfter == nil {
		return a.NotAfter == b.NotAfter
	}
	return b.NotAfter.Sub(*a.NotAfter) <= max(24*time.Hour, a.NotAfter.Sub(at).Abs()/10)
}

// title names a line: cp1/apiserver, or apiserver of cp1, cp2, cp3, with a sign
// for times apiserver ×3.
func (r *lifeRow) title(times string) string {
	name := r.Name
	switch {
	case r.Kind == LifeAuthority && (r.Node == "" || !strings.HasPrefix(name, "CN=")):
	case len(r.nodes) > 1 && times != "":
		name = fmt.Sprintf("%s %s%d", name, times, len(r.nodes))
	case len(r.nodes) > 1:
		slices.Sort(r.nodes)
		name = OnNodes(name, slices.Compact(r.nodes))
	default:
		name = qualified(r.Node, name)
	}
	if r.Cluster != "" {
		name = r.Cluster + ": " + name
	}
	return Plain(name)
}

func (r *lifeRow) ends() string {
	if r.NotAfter == nil {
		return "-"
	}
	return r.NotAfter.UTC().Format(time.DateOnly)
}

// leftOf says how long a credential is good for yet.
func (t *Timeline) leftOf(l *Lifetime) string {
	switch {
	case l.State == LifeEndless:
		return "no end"
	case l.NotAfter == nil:
		return strings.ReplaceAll(string(l.State), "-", " ")
	case l.NotBefore == nil:
		return Left(time.Time{}, *l.NotAfter, t.At)
	}
	return Left(*l.NotBefore, *l.NotAfter, t.At)
}

func (p Palette) urgency(s check.Severity, words string) string {
	switch s {
	case check.Error:
		return p.paint(words, text.FgRed)
	case check.Warning:
		return p.paint(words, text.FgYellow)
	}
	return words
}

func columns(s string) int { return text.StringWidthWithoutEscSequences(s) }

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-columns(s)))
}

// shorten cuts a text in its middle, for both ends of a name tell something.
func shorten(s string, width int, ascii bool) string {
	if columns(s) <= width {
		return s
	}
	mark := "…"
	if ascii {
		mark = ".."
	}
	runes := []rune(s)
	head, tail := len(runes)/2, len(runes)/2
	for columns(string(runes[:head])+mark+string(runes[tail:])) > width && (head > 0 || tail < len(runes)) {
		if len(runes)-tail >= head && tail < len(runes) {
			tail++
		} else {
			head--
		}
	}
	return string(runes[:head]) + mark + string(runes[tail:])
}

// axis is the time along the bars. Authorities live ten times as long as what they
// sign: it reaches as far as most of the rest, and what goes on has an arrow.
type axis struct {
	from, to, at time.Time
	width        int
	marks        [5]string // begun, to come, now, goes on to the left and right
}

func (t *Timeline) axis(rows []lifeRow, width int, d Drawing) *axis {
	var leaves, all []time.Duration
	for i := range rows {
		l := &rows[i].Lifetime
		if l.NotAfter == nil || !l.NotAfter.After(t.At) {
			continue
		}
		left := l.NotAfter.Sub(t.At)
		if all = append(all, left); l.Kind != LifeAuthority {
			leaves = append(leaves, left)
		}
	}
	if len(leaves) == 0 {
		leaves = all
	}
	ahead := 30 * 24 * time.Hour // all has expired
	if len(leaves) > 0 {
		slices.Sort(leaves)
		const century = 100 * 365 * 24 * time.Hour // a Duration spans three of them
		ahead = max(time.Minute, min(century, leaves[len(leaves)*9/10]))
	}
	x := &axis{from: t.At.Add(-ahead / 3), to: t.At.Add(ahead + ahead/20), at: t.At, width: width, marks: [5]string{"─", "━", "│", "<", ">"}}
	if d.ASCII {
		x.marks = [5]string{"-", "=", "|", "<", ">"}
	}
	return x
}

// column is where a time stands, before or after the axis if it is not on it.
func (x *axis) column(at time.Time) int {
	switch { // a Duration spans 292 years, and certificates of the year 9999 exist
	case at.Before(x.from):
		return -1
	case at.After(x.to):
		return x.width
	}
	return min(x.width-1, int(float64(at.Sub(x.from))/float64(x.to.Sub(x.from))*float64(x.width)))
}

// bar draws from when until when a credential is good.
func (x *axis) bar(l *Lifetime) string {
	from, to, now := -1, x.width, x.column(x.at)
	if l.NotBefore != nil {
		from = x.column(*l.NotBefore)
	}
	if l.NotAfter != nil {
		to = x.column(*l.NotAfter)
	}
	var b strings.Builder
	for i := range x.width {
		switch {
		case i == now:
			b.WriteString(x.marks[2])
		case i == 0 && from < 0 && to >= -1:
			b.WriteString(x.marks[3])
		case i == x.width-1 && to >= x.width:
			b.WriteString(x.marks[4])
		case i < from || i > to:
			b.WriteByte(' ')
		case i < now:
			b.WriteString(x.marks[0])
		default:
			b.WriteString(x.marks[1])
		}
	}
	return b.String()
}

// head names both ends of the axis, and now, where there is room.
func (x *axis) head() string {
	form := time.DateOnly
	if x.to.Sub(x.from) < 48*time.Hour {
		form = "15:04"
	}
	line := []byte(strings.Repeat(" ", x.width))
	put := func(at int, word string) {
		at = max(0, min(at, x.width-len(word)))
		if from, to := max(0, at-1), min(x.width, at+len(word)+1); strings.TrimSpace(string(line[from:to])) == "" {
			copy(line[at:], word)
		}
	}
	put(x.column(x.at), "now")
	put(x.width, x.to.Format(form))
	put(0, x.from.Format(form))
	return strings.TrimRight(string(line), " ")
}

// Rows prints one row for each credential, nothing joined and nothing cut.
func (t *Timeline) Rows(w io.Writer, p Palette) error {
	if len(t.Credentials) == 0 {
		return nil
	}
	day := func(at *time.Time) string {
		if at == nil {
			return "-"
		}
		return at.UTC().Format(time.RFC3339)
	}
	var rows [][]string
	for i := range t.Credentials {
		l := &t.Credentials[i]
		where := l.Path
		if l.Field != "" {
			where += "#" + l.Field
		}
		rows = append(rows, []string{day(l.NotAfter), p.urgency(l.Severity, t.leftOf(l)), string(l.State), string(l.Kind), Plain(cmp.Or(l.Cluster, "-")),
			Plain(cmp.Or(l.Node, "-")), Plain(l.Name), Plain(cmp.Or(l.Subject, l.Problem, "-")), day(l.NotBefore), Plain(where)})
	}
	return Table(w, []string{"EXPIRES", "LEFT", "STATE", "KIND", "CLUSTER", "NODE", "NAME", "SUBJECT", "BEGINS", "PLACE"}, rows)
}

// Names prints node/name of each credential, one per line, those that end first
// first.
func (t *Timeline) Names(w io.Writer) error {
	var b strings.Builder
	for i := range t.Credentials {
		l := &t.Credentials[i]
		name := l.Name
		if l.Kind != LifeAuthority {
			name = qualified(l.Node, name)
		}
		fmt.Fprintln(&b, Plain(name))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
