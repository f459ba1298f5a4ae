package diagram

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/trust"
)

// arrows folds the links into arrows: one for each number, pair of boxes, state
// of both halves, authorities and findings. Of nodes that are like others but
// for a few links these few alone are drawn: a link that the others have too, in
// the same state, is folded into theirs.
func (b *builder) arrows() {
	b.d.Arrows = nil
	like := b.likes()
	present := map[string]bool{}
	for i := range b.r.Links {
		present[b.key(i, b.ends(i, like)[3])] = true
	}
	known := map[string]int{}
	for i := range b.r.Links {
		var ends [2]int
		var key string
		for _, ends = range b.ends(i, like) {
			if key = b.key(i, ends); present[key] {
				break
			}
		}
		at, ok := known[key]
		if !ok {
			at = len(b.d.Arrows)
			known[key] = at
			b.d.Arrows = append(b.d.Arrows, Arrow{Number: b.r.Links[i].Number, Caller: ends[0], Callee: ends[1], Client: b.half(i, "client").clone(), Server: b.half(i, "server").clone()})
		}
		b.d.Arrows[at].add(b.r.Links[i].Link, b.half(i, "client"), b.half(i, "server"))
	}
	slices.SortStableFunc(b.d.Arrows, func(x, y Arrow) int {
		return cmp.Or(cmp.Compare(x.Number, y.Number), cmp.Compare(x.Caller, y.Caller), cmp.Compare(x.Callee, y.Callee))
	})
}

// add makes an arrow stand for one more link.
func (a *Arrow) add(l *trust.Link, client, server *Half) {
	a.Links++
	a.Client.join(client)
	a.Server.join(server)
	for _, end := range []struct {
		nodes *[]string
		id    string
	}{{&a.Callers, l.Caller}, {&a.Callees, l.Callee}} {
		if node, _ := trust.SplitID(end.id); node != "" && !slices.Contains(*end.nodes, node) {
			*end.nodes = append(*end.nodes, node)
		}
	}
}

// likes says of each group which one its nodes are like: the largest of those
// with the same components.
func (b *builder) likes() []int {
	components := make([]string, len(b.d.Groups))
	for _, box := range b.d.Boxes {
		if box.Group >= 0 {
			components[box.Group] += box.Component + "\x00"
		}
	}
	like := make([]int, len(b.d.Groups))
	for i := range b.d.Groups {
		like[i] = -1
		for j := range b.d.Groups {
			if components[j] == components[i] && (like[i] < 0 || len(b.d.Groups[j].Nodes) > len(b.d.Groups[like[i]].Nodes)) {
				like[i] = j
			}
		}
	}
	return like
}

// ends are the boxes between which a link may be drawn: first those of the
// groups that its nodes are like, last its own.
func (b *builder) ends(link int, like []int) [4][2]int {
	own := [2]int{b.boxOf[b.r.Links[link].Caller], b.boxOf[b.r.Links[link].Callee]}
	others := own
	for i, box := range own {
		if g := b.d.Boxes[box].Group; g >= 0 && like[g] != g {
			others[i] = slices.IndexFunc(b.d.Boxes, func(o Box) bool { return o.Group == like[g] && o.Component == b.d.Boxes[box].Component })
		}
	}
	return [4][2]int{others, {own[0], others[1]}, {others[0], own[1]}, own}
}

func (b *builder) key(link int, ends [2]int) string {
	client, server := b.half(link, "client"), b.half(link, "server")
	state := fmt.Sprint(b.r.Links[link].Number, ends, stateKey(client), stateKey(server))
	if b.detail >= byComponents {
		return state
	}
	return fmt.Sprint(state, authorityKey(client), "\x00", authorityKey(server), "\x00", b.ids(client), "\x00", b.ids(server))
}

// ids names the kinds of findings of a half.
func (b *builder) ids(h *Half) string {
	if h == nil {
		return ""
	}
	var all []string
	for _, i := range h.Findings {
		all = append(all, b.r.Findings[i].ID)
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " ")
}

// shorten leaves out, of nodes that are like others but for a few links, the
// boxes to which no arrow goes, and says so.
func (b *builder) shorten() {
	used := make([]bool, len(b.d.Boxes))
	for _, a := range b.d.Arrows {
		used[a.Caller], used[a.Callee] = true, true
	}
	like := b.likes()
	now := make([]int, len(b.d.Boxes))
	var kept []Box
	for i, box := range b.d.Boxes {
		g := box.Group
		if g < 0 || like[g] == g || used[i] {
			now[i] = len(kept)
			kept = append(kept, box)
		}
		if g >= 0 && like[g] != g {
			b.d.Groups[g].As = b.d.Groups[like[g]].Title
			last := i+1 == len(b.d.Boxes) || b.d.Boxes[i+1].Group != g
			if empty := !slices.ContainsFunc(kept, func(k Box) bool { return k.Group == g }); last && empty {
				kept = append(kept, Box{Group: g, Note: true})
			}
		}
	}
	b.d.Boxes = kept
	for i := range b.d.Arrows {
		a := &b.d.Arrows[i]
		a.Caller, a.Callee = now[a.Caller], now[a.Callee]
	}
}

// Signs says of a half what a picture marks beside its colour: broken, not seen,
// or good but spoken of by a finding.
func (h *Half) Signs() string {
	switch {
	case h == nil:
		return ""
	case h.State == check.Broken:
		return "✗"
	case h.State == check.Unseen:
		return "?"
	case len(h.Findings) > 0:
		return "!"
	}
	return ""
}
