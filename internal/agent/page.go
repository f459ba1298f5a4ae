package agent

import (
	"bytes"
	"fmt"
	"html"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/brief"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/picture"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// How much the page shows of each thing; metrics and `kubepki verify` have all.
const (
	shownCertificates = 50
	shownFindings     = 50
	shownLinks        = 300
	shownDue          = 50
	shownFaults       = 50
	maxSentence       = 400
	maxFix            = 2000
)

// ownStyle is what the page has beside the style of other pages.
const ownStyle = `
td svg{display:block;margin-top:6px}
.bar{fill:var(--c1)}.bar.soon{fill:var(--c3)}.bar.ended{fill:var(--bad)}.scale{fill:var(--rule)}
.kp td.bad,.kp b.broken{color:var(--bad);font-weight:700}
.kp td:nth-child(4){text-align:left}
ul.figures{list-style:none;margin:0 0 8px;padding:0}ul.figures li{display:inline-block;margin-right:22px}
ul.figures b{font-size:19px}
caption{text-align:left;color:var(--soft);padding:2px 10px 6px}
.kp td:first-child{white-space:nowrap}
@media(max-width:600px){main{padding:8px 12px 32px}dl{grid-template-columns:1fr}.wide table{min-width:46em}}
`

// page serves the status page: HTML alone, without scripts and without anything from
// elsewhere, which its policy says too.
func page(b *Board) http.HandlerFunc {
	styles := picture.PageStyle() + ownStyle
	policy := "default-src 'none'; style-src " + picture.PolicySource(styles) + "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return func(w http.ResponseWriter, _ *http.Request) {
		s := b.Snapshot()
		p := &pageWriter{s: &s}
		p.b.WriteString("<!DOCTYPE html>\n<html lang=\"en\" class=\"kp\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n<title>kubepki agent</title>\n<style>" + styles + "</style>\n</head>\n<body>\n<main>\n")
		p.write()
		p.b.WriteString("</main>\n</body>\n</html>\n")
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", policy)
		_, _ = w.Write(p.b.Bytes()) // whoever asked may be gone
	}
}

type pageWriter struct {
	b bytes.Buffer
	s *Snapshot
}

// printf writes, and escapes all texts.
func (p *pageWriter) printf(format string, args ...any) {
	for i, a := range args {
		if text, ok := a.(string); ok {
			args[i] = html.EscapeString(picture.Clip(strings.ToValidUTF8(text, "?"), maxFix))
		}
	}
	fmt.Fprintf(&p.b, format, args...)
}

func (p *pageWriter) write() {
	soon := p.soonest()
	p.head(soon)
	p.findings()
	p.certificates(soon)
	p.links()
	p.due()
	p.decisions()
	p.sources()
}

// ending are the certificates that end next.
type ending struct {
	next               []brief.Certificate
	all, ended, within int // within: a week
}

const (
	week = 7 * 24 * time.Hour
	year = 365 * 24 * time.Hour
)

func (p *pageWriter) soonest() ending {
	var e ending
	p.s.Each(func(c brief.Certificate) bool {
		f := c.Facts.Value()
		e.all++
		switch left := f.NotAfter().Sub(p.s.At); {
		case left < 0:
			e.ended++
		case left < week:
			e.within++
		}
		at, _ := slices.BinarySearchFunc(e.next, f.Until, func(in brief.Certificate, until int64) int {
			if in.Facts.Value().Until <= until { // those that are alike stay in their order
				return -1
			}
			return 1
		})
		if at < shownCertificates {
			e.next = slices.Insert(e.next, at, c)
			e.next = e.next[:min(len(e.next), shownCertificates)]
		}
		return true
	})
	return e
}

func (p *pageWriter) head(e ending) {
	class, verdict := "bad", "nothing was read yet"
	if v := p.s.Verified; v != nil {
		class, verdict = verdictOf(v)
	}
	p.printf("<h1>kubepki agent</h1>\n<p class=\"verdict %v\">%v</p>\n", class, verdict)
	if f := p.s.Failure; f != nil {
		p.printf("<p class=\"verdict bad\">since %v the files cannot be read, and what follows is older: %v</p>\n", timeText(f.At), f.Err.Error())
	}
	if err := p.s.Alive(); err != nil {
		p.printf("<p class=\"verdict bad\">%v</p>\n", err.Error())
	}
	p.printf("<ul class=\"figures\">\n<li><b>%d</b> certificates</li>\n<li><b>%d</b> ended</li>\n<li><b>%d</b> end within 7 days</li>\n", e.all, e.ended, e.within)
	if len(p.s.Due) > 0 {
		p.printf("<li>next renewal <b>%v</b> (%v)</li>\n", p.s.Due[0].ID, until(p.s.Due[0].At, p.s.At))
	}
	p.printf("</ul>\n<p>as of %v; <a class=\"skip\" href=\"#findings\">Findings</a> <a class=\"skip\" href=\"#expiry\">What ends next</a> <a class=\"skip\" href=\"#links\">Links</a> <a class=\"skip\" href=\"#decisions\">Decisions</a> <a class=\"skip\" href=\"/metrics\">Metrics</a></p>\n", timeText(p.s.At))
}

func verdictOf(v *Verified) (class, text string) {
	counts := map[check.Severity]int{}
	for i := range v.Findings {
		counts[v.Findings[i].Severity]++
	}
	broken := 0
	for i := range v.Links {
		broken += int(oneIf(!v.Links[i].OK))
	}
	class, text = "good", "healthy"
	if !v.Healthy {
		class, text = "bad", "not healthy"
	}
	return class, fmt.Sprintf("%s at %s: %d links, %d broken; %d errors, %d warnings, %d infos", text, timeText(v.At), len(v.Links), broken, counts[check.Error], counts[check.Warning], counts[check.Info])
}

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// until says in words when something will be.
func until(t, now time.Time) string {
	if !t.After(now) {
		return "now"
	}
	return "in " + report.Left(now, t, now)
}

// table begins a table that may be wider than the screen.
func (p *pageWriter) table(id, caption string, columns ...string) {
	p.printf("<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-labelledby=\"%v\">\n<table>\n", id)
	if caption != "" {
		p.printf("<caption>%v</caption>\n", caption)
	}
	p.printf("<thead><tr>")
	for _, c := range columns {
		p.printf("<th scope=\"col\">%v</th>", c)
	}
	p.printf("</tr></thead>\n<tbody>\n")
}

func (p *pageWriter) endTable() { p.printf("</tbody>\n</table>\n</div>\n") }

// of says how many of all are shown; "": all of them.
func of(shown, all int, what string) string {
	if shown >= all {
		return ""
	}
	return fmt.Sprintf("the first %d of %d %s", shown, all, what)
}

func (p *pageWriter) certificates(e ending) {
	p.printf("<h2 id=\"expiry\">What ends next</h2>\n")
	if len(e.next) == 0 {
		p.printf("<p>No certificate was read.</p>\n")
		return
	}
	last := e.next[len(e.next)-1].Facts.Value()
	longest := min(max(last.NotAfter().Sub(p.s.At), time.Second), year) // authorities live longer than a bar can show
	p.table("expiry", of(len(e.next), e.all, "certificates"), "Ends", "Left", "Certificate", "Where", "Issuer")
	for _, c := range e.next {
		f := c.Facts.Value()
		left := f.NotAfter().Sub(p.s.At)
		class, cell := "", ""
		switch {
		case left < 0:
			class, cell = " ended", " class=\"bad\""
		case left < week:
			class = " soon"
		}
		bar := max(0, min(120, int(120*float64(left)/float64(longest))))
		if left < 0 {
			bar = 120
		}
		p.printf("<tr><td>%v</td><td%s>%v<svg width=\"120\" height=\"6\" aria-hidden=\"true\"><rect class=\"scale\" width=\"120\" height=\"6\"/><rect class=\"bar%s\" width=\"%d\" height=\"6\"/></svg></td><td>%v</td><td><code>%v</code></td><td>%v</td></tr>\n",
			f.NotAfter().Format(time.DateOnly), safe(cell), report.Left(f.NotBefore(), f.NotAfter(), p.s.At), safe(class), bar, nameOf(f.Subject.Value()), where(c.Place), nameOf(f.Issuer.Value()))
	}
	p.endTable()
}

// where is a place, in fewer words where it is in a kubeconfig.
func where(p trust.Place) string {
	if kind, name := report.Embedded(p.Field); kind != "" {
		return p.File().String() + " (" + kind + " " + name + ")"
	}
	return p.String()
}

// safe is a text of our own that is not escaped.
type safe string

// nameOf is what people call who a certificate is of.
func nameOf(n brief.Name) string {
	switch {
	case n.CN != "" && n.O != "":
		return n.CN + " (" + n.O + ")"
	case n.CN != "":
		return n.CN
	case n.O != "":
		return n.O
	}
	return "–"
}

func (p *pageWriter) findings() {
	p.printf("<h2 id=\"findings\">Findings</h2>\n")
	if p.s.Verified == nil || len(p.s.Verified.Findings) == 0 {
		p.printf("<p>None.</p>\n")
		return
	}
	all := p.s.Verified.Findings
	for i := range all[:min(len(all), shownFindings)] {
		p.finding(i, &all[i])
	}
	if len(all) > shownFindings {
		p.printf("<p>%v: kubepki verify has all.</p>\n", of(shownFindings, len(all), "findings"))
	}
}

func (p *pageWriter) finding(i int, f *check.Finding) {
	p.printf("<article class=\"finding %v\" aria-labelledby=\"finding-%d\">\n<h3 id=\"finding-%d\">%v</h3>\n<dl>\n<dt>Cause</dt><dd>%v</dd>\n", string(f.Severity), i, i, picture.FindingHead(f), f.Cause)
	if f.Path != "" {
		where := strings.TrimPrefix(f.Node+":"+f.Path, ":")
		if f.Field != "" {
			where += " (" + f.Field + ")"
		}
		p.printf("<dt>Where</dt><dd><code>%v</code></dd>\n", where)
	}
	if f.Fix != "" {
		p.printf("<dt>Fix</dt><dd><pre class=\"fix\" tabindex=\"0\" role=\"region\" aria-label=\"fix of finding %d\">%v</pre></dd>\n", i+1, f.Fix)
	}
	if f.FixNote != "" {
		p.printf("<dt>Note</dt><dd>%v</dd>\n", f.FixNote)
	}
	p.printf("</dl>\n</article>\n")
}

func (p *pageWriter) links() {
	p.printf("<h2 id=\"links\">Links</h2>\n")
	if p.s.Verified == nil || len(p.s.Verified.Links) == 0 {
		p.printf("<p>None.</p>\n")
		return
	}
	// What is broken comes first.
	all := slices.Clone(p.s.Verified.Links)
	slices.SortStableFunc(all, func(a, b report.VerifiedLink) int { return int(oneIf(a.OK) - oneIf(b.OK)) })
	p.table("links", of(shownLinks, len(all), "links"), "#", "Caller", "Callee", "Caller's credential", "Callee's credential", "Findings")
	for i := range all[:min(len(all), shownLinks)] {
		l := &all[i]
		halves := map[string]string{"client": "–", "server": "–"}
		for _, h := range l.Halves {
			halves[h.Side] = halfText(h)
		}
		class := ""
		if !l.OK {
			class = " class=\"broken\""
		}
		p.printf("<tr%s><td>%v</td><td>%v</td><td>%v</td><td>%v</td><td>%v</td><td>%v</td></tr>\n", safe(class), strconv.Itoa(l.Number), l.Caller, l.Callee, halves["client"], halves["server"], strings.Join(l.Findings, ", "))
	}
	p.endTable()
}

func halfText(h report.VerifiedHalf) string {
	switch h.State {
	case check.Broken:
		return "✗ broken"
	case check.Unseen:
		return "not seen"
	}
	return "ok (" + string(h.Proof) + ")"
}

func (p *pageWriter) due() {
	p.printf("<h2 id=\"renewals\">Renewals ahead</h2>\n")
	if len(p.s.Due) == 0 {
		p.printf("<p>None: this agent makes nothing anew.</p>\n")
		return
	}
	p.table("renewals", of(shownDue, len(p.s.Due), "renewals"), "When", "Credential", "Where")
	for _, d := range p.s.Due[:min(len(p.s.Due), shownDue)] {
		p.printf("<tr><td>%v (%v)</td><td>%v</td><td><code>%v</code></td></tr>\n", timeText(d.At), until(d.At, p.s.At), d.ID, strings.TrimPrefix(d.Node+":"+d.Path, ":"))
	}
	p.endTable()
}

func (p *pageWriter) decisions() {
	p.printf("<h2 id=\"decisions\">Last decisions</h2>\n")
	if len(p.s.Decisions) == 0 {
		p.printf("<p>None since %v.</p>\n", timeText(p.s.Started))
		return
	}
	p.table("decisions", "", "When", "What", "Of", "Why")
	for _, d := range slices.Backward(p.s.Decisions) {
		class := ""
		if d.Action == Failed || d.Action == Refused || d.Action == Stuck {
			class = " class=\"bad\""
		}
		p.printf("<tr><td>%v</td><td%s>%v</td><td>%v</td><td>%v</td></tr>\n", timeText(d.At), safe(class), string(d.Action), d.ID, picture.Clip(d.Text, maxSentence))
	}
	p.endTable()
}

func (p *pageWriter) sources() {
	p.printf("<h2 id=\"sources\">What is watched</h2>\n")
	sources := p.s.Sources()
	if len(sources) == 0 {
		p.printf("<p>Nothing was read yet.</p>\n")
		return
	}
	p.table("sources", "", "What", "Number", "State")
	var faults []Fault
	for _, s := range sources {
		state, class := "ok", ""
		switch {
		case s.Reason != "":
			state, class = s.Reason, " class=\"bad\""
		case !s.Up:
			state = "being read"
		}
		p.printf("<tr><td>%v</td><td>%d</td><td%s>%v</td></tr>\n", s.Kind+" "+s.Name, s.Bundles, safe(class), picture.Clip(state, maxSentence))
		faults = append(faults, s.Faults...)
	}
	p.endTable()
	if len(faults) == 0 {
		return
	}
	p.printf("<h3>What cannot be read</h3>\n<ul>\n")
	for _, f := range faults[:min(len(faults), shownFaults)] {
		p.printf("<li><code>%v</code> %v</li>\n", f.Place.String(), strings.ReplaceAll(f.Code, "_", " "))
	}
	if len(faults) > shownFaults {
		p.printf("<li>%v</li>\n", of(shownFaults, len(faults), "places"))
	}
	p.printf("</ul>\n")
}
