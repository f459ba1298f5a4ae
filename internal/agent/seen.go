package agent

import (
	"time"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// seen is what is remembered of the last look at the nodes. Nothing that was parsed is
// held by it.
type seen struct {
	at       time.Time
	verified *Verified // of the nodes alone
	until    time.Time // when time alone changes the verdict; zero: never
	next     time.Time // when something falls due or is tried again; zero: nothing
	rounds   int       // since then
	every    int       // in one of how many rounds all is read anyhow; 0: in each
	folders  []string  // of everything that was read
	stamps   map[string]stamp
}

// Everything is read and proved although nothing has changed, for what no stamp shows:
// in each round where that takes no more than this part of a core (a tenth of a second
// in a minute), and where it takes more in the fewer of them, but in one of ten at least.
const (
	affordable = 600
	readAgain  = 10
)

// roundsFor is in one of how many rounds everything is read when that takes so much of
// a processor.
func roundsFor(cost, interval time.Duration) int {
	return min(max(1, int((cost*affordable+interval-1)/interval)), readAgain)
}

// other tells whether what would be seen now could be another thing.
func (s *seen) other(now time.Time) bool {
	switch {
	case s.verified == nil, s.rounds >= s.every-1, now.Before(s.at):
		return true
	case !s.until.IsZero() && !now.Before(s.until), !s.next.IsZero() && !now.Before(s.next):
		return true
	}
	for path, then := range s.stamps {
		if now, err := stampOf(path, time.Now()); err != nil || now != then {
			return true // one that is settled only now is read once more
		}
	}
	return false
}

// keep remembers the folders and the files of what was read, and of what would be read
// if it were there.
func (s *seen) keep(n *apply.Nodes) {
	dirs, files := map[string]bool{}, map[string]bool{}
	add := func(p trust.Place) {
		root, known := n.Dirs[p.Node]
		if p.Path == "" || !known {
			return
		}
		all, end := follow(root, p.Path)
		for _, d := range all {
			dirs[d] = true
		}
		if end != "" {
			files[end] = true
		}
	}
	for i := range n.Nodes {
		node := &n.Nodes[i]
		for _, f := range node.Files {
			add(f.Place)
		}
		for _, m := range node.Materials {
			add(m.Place.File())
		}
		for _, k := range node.Kubeconfigs {
			add(k.Place)
		}
		for _, c := range node.Components {
			add(c.Source.File())
			add(trust.Place{Node: node.Name, Path: c.Source.Path + ".d/any"}) // drop-ins of a unit
		}
		for _, folder := range []string{catalog.KubernetesDir, catalog.KubernetesDir + "/manifests", "/etc/systemd/system"} {
			add(trust.Place{Node: node.Name, Path: folder + "/any"}) // what may be added
		}
	}
	s.folders = nil
	for d := range dirs {
		s.folders = append(s.folders, d)
		files[d] = true
	}
	s.stamps = make(map[string]stamp, len(files))
	for f := range files {
		s.stamps[f] = stamp{}
	}
}

// stamp takes the stamps of what is kept, and tells whether all of it was whole when
// reading began. It comes after the kernel was told what to watch: what changed before
// that, and after it was read, is not settled.
func (s *seen) stamp(began time.Time) (settled bool) {
	settled = true
	for f := range s.stamps {
		now, err := stampOf(f, began)
		if err != nil {
			delete(s.stamps, f)
			continue
		}
		s.stamps[f], settled = now, settled && now.settled
	}
	return settled
}

// turning is when the first certificate begins, ends, or comes near its end after a
// time; zero: none does.
func turning(g *trust.Graph, at time.Time, window time.Duration) (first time.Time) {
	consider := func(t time.Time) {
		if t.After(at) {
			first = earlier(first, t)
		}
	}
	for _, m := range g.Materials {
		for _, c := range m.Certificates {
			consider(c.NotBefore)
			consider(c.NotAfter.Add(time.Nanosecond))
			w := window
			if w == 0 {
				w = min(30*24*time.Hour, c.NotAfter.Sub(c.NotBefore)/10)
			}
			consider(c.NotAfter.Add(time.Nanosecond - w))
		}
	}
	return first
}
