package diagram

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// shownNames is how many names or runs of names a title holds.
const shownNames = 3

// NodesTitle says in few words which nodes are meant: "cp1, cp2", or
// "w1 … w50 (50)" for names that are numbered without a gap.
func NodesTitle(names []string) string {
	switch {
	case len(names) == 0:
		return ""
	case len(names) == 1:
		return cmp.Or(names[0], "node")
	}
	pieces := runs(names)
	shown := pieces[:min(shownNames, len(pieces))]
	var texts []string
	count := 0
	for _, p := range shown {
		texts = append(texts, p.text)
		count += p.count
	}
	title := strings.Join(texts, ", ")
	if count < len(names) {
		title += fmt.Sprintf(" and %d more", len(names)-count)
	}
	if len(names) > shownNames || len(texts) < len(names) {
		title += fmt.Sprintf(" (%d)", len(names))
	}
	return title
}

type run struct {
	text  string
	count int
}

// numbered is a name that ends in digits.
type numbered struct {
	name, prefix string
	number       int // -1: none
	width        int
}

func parse(name string) numbered {
	prefix := strings.TrimRight(name, "0123456789")
	digits := name[len(prefix):]
	n, err := strconv.Atoi(digits)
	if err != nil || len(digits) > 9 {
		return numbered{name: name, prefix: name, number: -1}
	}
	return numbered{name: name, prefix: prefix, number: n, width: len(digits)}
}

// follows tells whether b is the name after a.
func (a numbered) follows(b numbered) bool {
	padded := b.width == a.width || (a.number == 9 || a.number == 99 || a.number == 999 || a.number == 9999) && b.width == a.width+1
	return a.number >= 0 && b.prefix == a.prefix && b.number == a.number+1 && padded
}

// runs joins names that are numbered without a gap, in natural order.
func runs(names []string) []run {
	all := make([]numbered, len(names))
	for i, n := range names {
		all[i] = parse(n)
	}
	slices.SortFunc(all, func(a, b numbered) int {
		return cmp.Or(cmp.Compare(a.prefix, b.prefix), cmp.Compare(a.number, b.number), cmp.Compare(a.name, b.name))
	})
	var out []run
	for i := 0; i < len(all); {
		j := i
		for j+1 < len(all) && all[j].follows(all[j+1]) {
			j++
		}
		switch {
		case j-i >= 2:
			out = append(out, run{all[i].name + " … " + all[j].name, j - i + 1})
			i = j + 1
		default:
			out = append(out, run{all[i].name, 1})
			i++
		}
	}
	return out
}
