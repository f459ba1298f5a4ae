package controller

import "container/list"

// line is a fair queue in two levels: the users take turns, and the nodes that
// one user asks for take turns among themselves. So neither a noisy token nor a
// noisy node behind a token that many share can hold up the others. Of one node
// the newest request comes first: that is the one that somebody still waits
// for. It is not safe for concurrent use.
type line struct {
	perUser int // how many items of one user may be in work
	users   map[string]*userLine
	turns   list.List // of *userLine that have something to give
	length  int
}

type userLine struct {
	name   string
	nodes  map[string]*nodeLine
	turns  list.List // of *nodeLine that have something to give
	inWork int
	queued bool
}

type nodeLine struct {
	name   string
	items  []*item
	inWork bool
	queued bool
}

func newLine(perUser int) *line {
	l := &line{perUser: max(perUser, 1), users: map[string]*userLine{}}
	l.turns.Init()
	return l
}

func (l *line) push(it *item) {
	u := l.users[it.user]
	if u == nil {
		u = &userLine{name: it.user, nodes: map[string]*nodeLine{}}
		l.users[it.user] = u
	}
	n := u.nodes[it.node]
	if n == nil {
		n = &nodeLine{name: it.node}
		u.nodes[it.node] = n
	}
	n.items = append(n.items, it)
	l.length++
	l.turn(u, n)
}

// turn lets a node and its user wait for their turn where they have something
// to give, and forgets them where they have nothing left.
func (l *line) turn(u *userLine, n *nodeLine) {
	switch {
	case !n.inWork && len(n.items) > 0 && !n.queued:
		n.queued = true
		u.turns.PushBack(n)
	case !n.inWork && len(n.items) == 0:
		delete(u.nodes, n.name)
	}
	switch {
	case u.inWork < l.perUser && u.turns.Len() > 0 && !u.queued:
		u.queued = true
		l.turns.PushBack(u)
	case len(u.nodes) == 0:
		delete(l.users, u.name)
	}
}

// pop returns the item whose turn it is, nil where there is none. The node of
// the item has no other turn until [line.done] is called for it.
func (l *line) pop() *item {
	for l.turns.Len() > 0 {
		u := l.turns.Remove(l.turns.Front()).(*userLine)
		u.queued = false
		n := u.turns.Remove(u.turns.Front()).(*nodeLine)
		n.queued = false
		it := l.newest(n)
		if it != nil {
			n.inWork = true
			u.inWork++
			it.line = l
		}
		l.turn(u, n)
		if it != nil {
			return it
		}
	}
	return nil
}

// newest takes the last item of a node that is not closed.
func (l *line) newest(n *nodeLine) *item {
	for len(n.items) > 0 {
		last := len(n.items) - 1
		it := n.items[last]
		n.items[last] = nil
		n.items = n.items[:last]
		l.length--
		if it.place == inLine {
			return it
		}
	}
	return nil
}

// done gives the node of an item its next turn.
func (l *line) done(it *item) {
	u := l.users[it.user]
	n := u.nodes[it.node]
	it.line = nil
	n.inWork = false
	u.inWork--
	l.turn(u, n)
}
