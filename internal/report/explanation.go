package report

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/explain"
	"github.com/kubepki/kubepki/internal/trust"
)

// Explanations is the answer of `kubepki explain --error`.
type Explanations struct {
	APIVersion string                 `json:"apiVersion"`
	Kind       string                 `json:"kind"`
	Items      []*explain.Explanation `json:"items"`
	// Others is how many lines hold no message that is known.
	Others int `json:"others"`
}

// NewExplanations puts explanations into their public form.
func NewExplanations(items []*explain.Explanation, others int) *Explanations {
	return &Explanations{APIVersion: APIVersion, Kind: "ErrorExplanationList", Items: append([]*explain.Explanation{}, items...), Others: others}
}

// shownLooks bounds the files that are listed for people: a line that tells
// little leaves many.
const shownLooks = 6

// Text prints explanations for people, one after the other.
func (x *Explanations) Text(w io.Writer, p Palette) error {
	var b strings.Builder
	for i, e := range x.Items {
		if i > 0 {
			b.WriteByte('\n')
		}
		explanation(&b, e, p)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func explanation(w io.Writer, e *explain.Explanation, p Palette) {
	say := func(label, text string) {
		if text != "" {
			fmt.Fprintf(w, "  %-8s %s\n", label, Plain(text))
		}
	}
	times := ""
	if e.Count > 1 {
		times = fmt.Sprintf(" (%d times)", e.Count)
	}
	fmt.Fprintf(w, "%s%s\n", p.Bold(Plain(e.Message)), times)
	say("means:", e.Meaning)
	say("log of:", written(e))
	if len(e.Links) > 0 {
		say("link:", numbers(e.Links)+ofHalf(e.Half))
	}
	say("tells:", told(&e.Facts))
	if e.Found != nil {
		found(w, e, p)
	} else {
		looks(e, say)
	}
	for i, command := range e.Next {
		label := "next:"
		if i > 0 {
			label = ""
		}
		say(label, command)
	}
}

// written says whose log a line is of and what that component did.
func written(e *explain.Explanation) string {
	text := e.Component
	if e.Node != "" && text != "" {
		text += " of " + e.Node
	}
	switch {
	case text == "" && e.Direction == explain.Serving:
		return "a server, which was called; --component says which"
	case text == "" && e.Direction == explain.Dialling:
		return "a client, which called; --component says which"
	case text == "":
		return "not told; --component says"
	case e.Direction == explain.Serving:
		return text + ", which was called"
	case e.Direction == explain.Dialling:
		return text + ", which called"
	}
	return text
}

func numbers(links []int) string {
	texts := make([]string, len(links))
	for i, n := range links {
		texts[i] = strconv.Itoa(n)
	}
	return strings.Join(texts, ", ")
}

func ofHalf(half string) string {
	switch half {
	case explain.HalfServer:
		return "; the caller refuses what the server shows"
	case explain.HalfClient:
		return "; the server refuses what the caller shows"
	}
	return ""
}

// told joins what a line tells.
func told(f *explain.Facts) string {
	var all []string
	add := func(name, value string) {
		if value != "" {
			all = append(all, name+" "+value)
		}
	}
	add("dialled", f.Dialled)
	add("from", f.Peer)
	add("wanted name", f.Name)
	add("names of the certificate", strings.Join(f.Names, ", "))
	add("serial", f.Serial)
	add("key id", f.KeyID)
	add("authority's key id", f.AuthorityKeyID)
	add("common name", f.CommonName)
	add("authority", f.Authority)
	add("not before", f.NotBefore)
	add("not after", f.NotAfter)
	add("clock", f.Now)
	add("user", f.User)
	add("file", f.Path)
	return strings.Join(all, "; ")
}

// looks lists the files to look at.
func looks(e *explain.Explanation, say func(label, text string)) {
	for i, l := range e.Look {
		if i == shownLooks {
			say("", fmt.Sprintf("and %d more: -o json lists them; --root DIR finds the one", len(e.Look)-i))
			break
		}
		label := ""
		if i == 0 {
			label = "look at:"
		}
		where := strings.TrimSpace(l.Path)
		switch {
		case where == "":
			where = l.Setting
		case l.Setting != "":
			where += " (" + l.Setting + ")"
		}
		if len(l.Links) > 0 {
			where += ", link " + numbers(l.Links)
		}
		say(label, l.Role+": "+where)
	}
}

// found prints what the files of the cluster say: the answer, then the places.
func found(w io.Writer, e *explain.Explanation, p Palette) {
	f := e.Found
	if !f.Explained {
		fmt.Fprintf(w, "  found:   %s\n", Plain(f.Says))
	}
	for i := range f.Findings {
		x := &f.Findings[i]
		at := trust.Place{Node: x.Node, Path: x.Path, Field: x.Field}
		fmt.Fprintf(w, "  %s   %s%s at %s\n", p.Red("found:"), p.Bold(x.ID), linksText(x.Links), Plain(at.String()))
		fmt.Fprintf(w, "  %-8s %s\n", "cause:", Plain(x.Cause))
		if x.Fix != "" {
			fmt.Fprintf(w, "  %-8s %s\n", "fix:", Plain(x.Fix))
		}
	}
	for _, c := range f.Certificates {
		fmt.Fprintf(w, "  %-8s %s\n", "cert:", Plain(fmt.Sprintf("%s: %s, serial %s, ends %s", c.Place, c.Subject, c.Serial, c.NotAfter.Format(time.RFC3339))))
	}
	for i, l := range f.Links {
		label := "where:"
		if i > 0 {
			label = ""
		}
		if i == shownLooks {
			fmt.Fprintf(w, "  %-8s and %d more\n", label, len(f.Links)-i)
			break
		}
		fmt.Fprintf(w, "  %-8s %s\n", label, foundLink(&l, p))
	}
}

func foundLink(l *explain.FoundLink, p Palette) string {
	state := p.Green("good in the files")
	switch {
	case l.Broken:
		state = p.Red("broken")
	case l.Unseen:
		state = "not seen"
	}
	text := fmt.Sprintf("link %d %s → %s, %s half %s", l.Number, Plain(l.Caller), Plain(l.Callee), l.Half, state)
	if l.Credential != "" {
		text += "; shows " + Plain(l.Credential)
	}
	if l.Bundle != "" {
		text += "; judged by " + Plain(l.Bundle)
	}
	return text
}
