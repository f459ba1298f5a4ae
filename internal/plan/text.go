package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// String returns the plan as text for people: what stands on several nodes is
// said once.
func (p *Plan) String() string {
	var b strings.Builder
	if len(p.Steps) == 0 {
		fmt.Fprintf(&b, "%s: nothing is left to do\n", strings.Join(p.Authorities, ", "))
	}
	for _, h := range p.Broken {
		fmt.Fprintf(&b, "broken already: %s\n", h)
	}
	for _, u := range p.Unseen {
		fmt.Fprintf(&b, "could not be read, and is not rotated: %s\n", u)
	}
	for i := range p.Steps {
		s := &p.Steps[i]
		fmt.Fprintf(&b, "%d. %s: %s\n", i+1, s.Kind, s.Title)
		for _, line := range s.lines() {
			fmt.Fprintf(&b, "   %s\n", line)
		}
	}
	return b.String()
}

func (s *Step) lines() []string {
	var lines []string
	for _, g := range groups(s.Changes, changeText, func(c Change) string { return c.Place.Node }) {
		lines = append(lines, "write    "+g)
	}
	var restart, wait, publish []Load
	for _, l := range s.Loads {
		switch l.How.Uptake {
		case Restart:
			restart = append(restart, l)
		case Published:
			publish = append(publish, l)
		default:
			wait = append(wait, l)
		}
	}
	node := func(l Load) string {
		return strings.TrimSuffix(strings.TrimSuffix(l.Component, componentName(l.Component)), "/")
	}
	for _, g := range groups(wait, func(l Load) string { return fmt.Sprintf("%s (%s)", componentName(l.Component), l.How.Within) }, node) {
		lines = append(lines, "reloads  "+g)
	}
	for _, g := range groups(restart, func(l Load) string { return componentName(l.Component) }, node) {
		lines = append(lines, "restart  "+g)
	}
	for _, g := range groups(publish, func(l Load) string { return l.Place.Path }, func(Load) string { return "" }) {
		lines = append(lines, "carried  "+g)
	}
	gate := "gate     " + s.Gate.Must
	if s.Gate.Wait > 0 {
		gate += fmt.Sprintf(" (wait %s)", s.Gate.Wait.Round(time.Second))
	}
	lines = append(lines, gate)
	for _, u := range s.Gate.Unseen {
		lines = append(lines, "not seen "+u)
	}
	return lines
}

// groups joins what differs in the node alone: "text on cp1, cp2".
func groups[T any](items []T, text, node func(T) string) []string {
	var order []string
	nodes := map[string][]string{}
	for _, item := range items {
		t := text(item)
		if !slices.Contains(order, t) {
			order = append(order, t)
		}
		if n := node(item); n != "" && !slices.Contains(nodes[t], n) {
			nodes[t] = append(nodes[t], n)
		}
	}
	for i, t := range order {
		if on := nodes[t]; len(on) > 0 {
			order[i] = t + " on " + strings.Join(on, ", ")
		}
	}
	return order
}

func changeText(c Change) string {
	// Users' names in fields differ from node to node (system:node:NAME).
	place := trust.Place{Path: c.Place.Path, Field: c.Place.Field[strings.LastIndexByte(c.Place.Field, '.')+1:]}.String()
	switch {
	case c.Setting != "":
		return fmt.Sprintf("--%s=%s of %s", c.Setting, c.Place.Path, componentName(c.Component))
	case c.After.IssuedBy != nil:
		return place + ": a new leaf"
	case len(c.After.Certificates) > 0:
		return fmt.Sprintf("%s: %s", place, count(len(c.After.Certificates), "certificate"))
	case c.Role == trust.RoleKey:
		return place + ": a key"
	case len(c.After.Keys) > 0:
		return fmt.Sprintf("%s: %s", place, count(len(c.After.Keys), "key"))
	}
	return place + ": removed"
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
