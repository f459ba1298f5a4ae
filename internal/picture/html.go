package picture

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/diagram"
)

// Page writes one page of HTML with a section for each cluster: its picture, its
// findings and a table of its links. It needs nothing beside it, and no script
// to be read; the one that it has adds buttons that copy and a field that
// filters, and is the only one that its policy lets run.
type Page struct {
	w        io.Writer
	clusters int
}

// NewPage writes nothing yet.
func NewPage(w io.Writer) *Page { return &Page{w: w} }

// Add writes the section of one more cluster.
func (p *Page) Add(ctx context.Context, d *diagram.Diagram) error {
	placed, err := place(ctx, d)
	if err != nil {
		return err
	}
	s := &section{canvas: canvas{d: d, p: placed, prefix: fmt.Sprintf("c%d-", p.clusters)}}
	var b bytes.Buffer
	if p.clusters == 0 {
		pageHead(&b)
	}
	p.clusters++
	s.write(&b)
	_, err = p.w.Write(b.Bytes())
	return err
}

// Close ends the page.
func (p *Page) Close() error {
	if p.clusters == 0 {
		return nil
	}
	_, err := io.WriteString(p.w, "</main>\n<script>"+script+"</script>\n</body>\n</html>\n")
	return err
}

func pageHead(b *bytes.Buffer) {
	styles := style + colourStyle() + pageStyle
	policy := fmt.Sprintf("default-src 'none'; style-src '%s'; script-src '%s'; base-uri 'none'; form-action 'none'", hash(styles), hash(script))
	fmt.Fprintf(b, "<!DOCTYPE html>\n<html lang=\"en\" class=\"kp\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"%s\">\n", policy)
	b.WriteString("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n<title>kubepki: links of the cluster</title>\n")
	b.WriteString("<style>" + styles + "</style>\n</head>\n<body>\n<main>\n")
}

// hash is the source of a Content-Security-Policy that lets one text in.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// section writes one cluster.
type section struct{ canvas }

func (s *section) write(b *bytes.Buffer) {
	d := s.d
	s.printf("<section class=\"cluster\" aria-labelledby=\"%vhead\">\n<h1 id=\"%vhead\">%v</h1>\n<p class=\"verdict %v\">%v</p>\n", s.prefix, s.prefix, title(d), verdictClass(d), verdict(d))
	s.printf("<p><a class=\"skip\" href=\"#%vfindings\">Findings</a> <a class=\"skip\" href=\"#%vlinks\">Table of links</a></p>\n<figure>\n", s.prefix, s.prefix)
	b.WriteString(s.b.String())
	s.b.Reset()
	s.draw(b)
	s.b.Reset()
	s.printf("<figcaption>\n")
	s.caption()
	s.printf("</figcaption>\n</figure>\n")
	s.findings()
	s.table()
	s.printf("</section>\n")
	b.WriteString(s.b.String())
}

func verdictClass(d *diagram.Diagram) string {
	if d.Healthy {
		return "good"
	}
	return "bad"
}

// caption is the legend in words.
func (s *section) caption() {
	s.printf("<p>Arrows go from caller to callee and have the numbers of kubepki's links. The half at the caller has the colour of the authority that signed what the caller shows, the half at the callee that of what the callee shows. <b class=\"bad\">✗ dashed</b>: broken; <b>? dotted</b>: not seen; <b>!</b>: works, with a finding; thin: shows no certificate.</p>\n<ul class=\"legend\">\n")
	for i, a := range s.d.Authorities {
		s.printf("<li><svg width=\"34\" height=\"10\" aria-hidden=\"true\"><path class=\"half c%v\" d=\"M2,5 h30\"/></svg> %v</li>\n", strconv.Itoa(i%colours), authorityText(a))
	}
	s.printf("</ul>\n")
}

func (s *section) findings() {
	s.printf("<h2 id=\"%vfindings\">Findings</h2>\n", s.prefix)
	if len(s.d.Findings) == 0 {
		s.printf("<p>None.</p>\n")
	}
	for i := range s.d.Findings {
		s.finding(i)
	}
}

func (s *section) finding(i int) {
	f := &s.d.Findings[i]
	s.printf("<article class=\"finding %v\" id=\"%vfinding-%d\" aria-labelledby=\"%vfinding-%d-head\">\n<h3 id=\"%vfinding-%d-head\">%v</h3>\n<dl>\n<dt>Cause</dt><dd>%v</dd>\n", string(f.Severity), s.prefix, i, s.prefix, i, s.prefix, i, findingHead(f), clip(f.Cause, maxText))
	if len(f.Paths) > 0 || f.Field != "" {
		s.printf("<dt>Where</dt><dd><ul class=\"plain\">\n")
		for j, at := range placesText(f) {
			if j == maxPlaces {
				s.printf("<li>and %v more: kubepki verify -o json names all</li>\n", count(len(f.Places())-maxPlaces, "place"))
				break
			}
			s.printf("<li><code>%v</code></li>\n", at)
		}
		s.printf("</ul></dd>\n")
	}
	if f.Fix != "" {
		s.printf("<dt>Fix</dt><dd><pre class=\"fix\" tabindex=\"0\" aria-label=\"fix of %v\">%v</pre></dd>\n", f.ID, clip(f.Fix, maxText))
	}
	if len(f.Consequences) > 0 {
		s.printf("<dt>Hence</dt><dd><ul class=\"plain\">\n")
		for _, c := range f.Consequences[:min(len(f.Consequences), maxPlaces)] {
			s.printf("<li>%v <code>%v</code></li>\n", c.ID, clip(strings.TrimPrefix(c.Node+":"+c.Path, ":"), maxSentence))
		}
		s.printf("</ul></dd>\n")
	}
	s.printf("</dl>\n</article>\n")
}

// How much of a finding a page shows.
const (
	maxText   = 2000
	maxPlaces = 50
)

// placesText are the places of a finding, with their nodes and fields.
func placesText(f *check.Finding) []string {
	var all []string
	for _, p := range f.Places() {
		text := strings.TrimPrefix(p.Node+":"+p.Path, ":")
		if p.Field != "" {
			text += " (" + p.Field + ")"
		}
		all = append(all, clip(text, maxSentence))
	}
	return all
}

// table lists the arrows in words, with which ones to show.
func (s *section) table() {
	s.printf("<h2 id=\"%vlinks\">Links</h2>\n<fieldset class=\"show\">\n<legend>Show</legend>\n", s.prefix)
	broken, unseen, spoken := s.counts()
	for i, o := range []struct {
		name string
		n    int
	}{{"all", len(s.d.Arrows)}, {"broken", broken}, {"unseen", unseen}, {"found", spoken}} {
		checked := ""
		if i == 0 {
			checked = " checked"
		}
		label := map[string]string{"all": "all", "broken": "broken", "unseen": "not seen", "found": "with findings"}[o.name]
		fmt.Fprintf(&s.b, "<label><input type=\"radio\" name=\"%sshow\" class=\"show-%s\"%s> %s (%d)</label>\n", s.prefix, o.name, checked, label, o.n)
	}
	s.printf("</fieldset>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-labelledby=\"%vlinks\">\n<table>\n<thead><tr><th scope=\"col\">#</th><th scope=\"col\">Caller</th><th scope=\"col\">Callee</th><th scope=\"col\">Links</th><th scope=\"col\">Caller's credential</th><th scope=\"col\">Callee's credential</th><th scope=\"col\">Findings</th></tr></thead>\n<tbody>\n", s.prefix)
	for i := range s.d.Arrows {
		s.row(i)
	}
	s.printf("</tbody>\n</table>\n</div>\n")
}

// counts tells how many arrows are broken, not seen, or spoken of by a finding.
func (s *section) counts() (broken, unseen, found int) {
	for i := range s.d.Arrows {
		a := &s.d.Arrows[i]
		if !a.OK() {
			broken++
		}
		if a.Client.Is(check.Unseen) || a.Server.Is(check.Unseen) {
			unseen++
		}
		if len(findingsOf(a)) > 0 {
			found++
		}
	}
	return broken, unseen, found
}

func (s *section) row(i int) {
	a := &s.d.Arrows[i]
	class := ""
	if !a.OK() {
		class += " broken"
	}
	if a.Client.Is(check.Unseen) || a.Server.Is(check.Unseen) {
		class += " unseen"
	}
	found := findingsOf(a)
	if len(found) > 0 {
		class += " found"
	}
	s.printf("<tr id=\"%vrow-%d\" class=\"%v\"><th scope=\"row\"><a href=\"#%vlink-%d\" aria-label=\"link %d in the picture\">%d</a></th><td>%v</td><td>%v</td><td>%d</td>", s.prefix, i, strings.TrimSpace(class), s.prefix, i, a.Number, a.Number,
		endName(s.d, a.Caller, a.Callers), endName(s.d, a.Callee, a.Callees), a.Links)
	s.cell(a.Client)
	s.cell(a.Server)
	s.printf("<td>")
	for j, f := range found[:min(len(found), maxFindings)] {
		if j > 0 {
			s.printf(", ")
		}
		s.printf("<a href=\"#%vfinding-%d\">%v</a>", s.prefix, f, s.d.Findings[f].ID)
	}
	if more := len(found) - maxFindings; more > 0 {
		s.printf(" and %v more", strconv.Itoa(more))
	}
	s.printf("</td></tr>\n")
}

func (s *section) cell(h *diagram.Half) {
	if h == nil {
		s.printf("<td>–</td>")
		return
	}
	sign := map[check.State]string{check.Broken: "✗ ", check.Unseen: "? "}[h.State]
	s.printf("<td><span class=\"%v\">%v%v</span>", string(h.State), sign, stateText(h))
	if h.Credential != "" {
		s.printf("<br>%v", clip(h.Credential, maxName))
	}
	if h.Authority != "" {
		s.printf(" by %v", clip(h.Authority, maxTitle))
	}
	if e := expiryText(s.d, h); e != "" {
		s.printf("<br>ends %v", e)
		if h.First.Node != "" {
			s.printf("<br><small>first %v</small>", clip(h.First.Node+":"+h.First.Path, maxTitle))
		}
	}
	s.printf("</td>")
}
