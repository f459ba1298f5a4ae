package plan

import (
	"crypto"
	"fmt"
	"hash/fnv"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// shapes draws a cluster. Few enough are different that most are made once.
func shapes(t *rapid.T) shape {
	s := shape{
		controlPlanes: rapid.IntRange(1, 5).Draw(t, "control planes"),
		workers:       rapid.SampledFrom([]int{0, 1, 2, 20}).Draw(t, "workers"),
		externalEtcd:  rapid.SampledFrom([]int{0, 0, 1, 3}).Draw(t, "etcd nodes"),
		authorities:   rapid.SampledFrom([]catalog.Shape{catalog.Separate, catalog.Intermediate, catalog.Shared}).Draw(t, "shape"),
		kubeletCA:     rapid.Bool().Draw(t, "kubelet CA"),
		manifests:     rapid.Bool().Draw(t, "manifests"),
		keyless:       rapid.Bool().Draw(t, "keyless"),
		paths:         rapid.Bool().Draw(t, "paths"),
		users:         rapid.Bool().Draw(t, "users"),
	}
	if s.workers == 20 && s.controlPlanes > 3 {
		s.workers = 10
	}
	return s
}

// replaced draws what to rotate.
func replaced(t *rapid.T, s shape) string {
	names := []string{catalog.ClusterCA, catalog.FrontProxyCA}
	if s.authorities != catalog.Shared {
		names = append(names, catalog.EtcdCA)
	}
	if s.kubeletCA {
		names = append(names, catalog.KubeletCA)
	}
	if s.authorities == catalog.Intermediate {
		names = append(names, catalog.RootCA)
	}
	return rapid.SampledFrom(append(names, ServiceAccounts)).Draw(t, "authority")
}

// reloads draws a table: what was measured of a version, nothing, or each
// component takes up each setting in its own way.
func reloads(t *rapid.T) Reloads {
	switch rapid.SampledFrom([]string{"newest", "oldest", "unknown", "random", "random", "random"}).Draw(t, "reload table") {
	case "newest":
		return newest
	case "oldest":
		return oldest
	case "unknown":
		return nil
	}
	seed := rapid.Uint32().Draw(t, "seed of the table")
	return func(component, setting string) Reload {
		h := fnv.New32a()
		fmt.Fprint(h, seed, component, setting)
		return []Reload{{Uptake: Restart}, {Uptake: AtOnce}, {Uptake: Within, Within: time.Minute}, {Uptake: Within, Within: time.Hour}}[h.Sum32()%4]
	}
}

func rotation(t testing.TB, s shape, name string) (maker, Rotation) {
	k := maker{t, map[string]crypto.Signer{}}
	r := Rotation{At: at}
	if name == ServiceAccounts {
		r.NewKey = k.signer().Public()
		return k, r
	}
	g := catalog.Wire(nodesOf(t, s))
	if key, ok := rootKeys.Load(s); ok {
		for _, a := range g.Authorities {
			if a.Name == catalog.RootCA {
				k.keys[string(g.Material(a.Certificate).Leaf().Raw)] = key.(crypto.Signer)
			}
		}
	}
	r.New = k.replace(g, name)
	return k, r
}

// TestEveryMixtureIsSafeAndResumes carries out a plan step by step. Before each
// step it stops in a random mixture, forgets everything but the disks, plans
// again, and wants the rest of a plan that starts from what is truly held.
func TestEveryMixtureIsSafeAndResumes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := shapes(rt)
		name := replaced(rt, s)
		k, r := rotation(t, s, name)
		r.Reloads = reloads(rt)
		nodes := nodesOf(t, s)
		g := catalog.Wire(nodes)
		p, err := Rotate(g, r)
		if err != nil {
			rt.Fatalf("%s of %s: %v", name, s, err)
		}
		if len(p.Broken) > 0 || len(p.Steps) == 0 {
			rt.Fatalf("%s of %s: %d steps, broken %v", name, s, len(p.Steps), p.Broken)
		}
		m, err := newModel(g, &r)
		if err != nil {
			rt.Fatal(err)
		}
		w := newWorld(k, nodes, m)
		for i := range p.Steps {
			half := newWorld(k, w.nodes, m)
			half.mix(rt, m, &p.Steps[i])
			resumes(rt, half, m, r, len(p.Steps))
			w.finish(rt, m, &p.Steps[i])
		}
		done(rt, w, r)
	})
}

// resumes plans again in a mixture.
func resumes(t *rapid.T, w *world, before *model, r Rotation, atMost int) {
	g := w.graph()
	again, err := newModel(g, &r)
	if err != nil {
		t.Fatal(err)
	}
	gone := slices.ContainsFunc(again.targets, func(t target) bool { return len(t.old) == 0 })
	for u, held := range w.held {
		i, ok := again.byUse[u]
		if !ok {
			t.Fatalf("planning again knows no %s of %s by --%s", u.place, u.component, u.setting)
		}
		truth, found := before.named(held), false
		for _, may := range again.copies[i].may {
			known := again.named(may)
			found = found || slices.Equal(known, truth)
			// Once no file holds the old authority it is not known which it was. Who
			// may trust it still, beside what is known, must not be taken for sure.
			less := !slices.ContainsFunc(known, func(a string) bool { return !slices.Contains(truth, a) })
			found = found || gone && less && trusts(&again.copies[i]) && !again.copies[i].sure
		}
		if !found {
			t.Fatalf("planning again at %q thinks that %s holds of %s: %s; in truth it is %s", again.stage, u.component, u.place, again.describeAll([]int{i}), before.describe(held))
		}
	}
	rest, err := Rotate(g, r)
	if err != nil {
		t.Fatalf("planning again at %q: %v", again.stage, err)
	}
	if len(rest.Broken) > 0 {
		t.Fatalf("planning again at %q: broken %v", again.stage, rest.Broken)
	}
	// A probe that sees what is loaded spares steps and endangers none.
	r.Loaded = func(component string, place trust.Place) bool {
		all := true
		for _, i := range again.byPlace[place] {
			c := &again.copies[i]
			held, ok := w.held[c.use]
			all = all && (c.component != component || ok && len(c.disk) > 0 && slices.Equal(before.named(held), again.named(c.disk[0])))
		}
		return all
	}
	if informed, err := Rotate(g, r); err != nil || len(informed.Broken) > 0 || len(informed.Steps) > len(rest.Steps) {
		t.Fatalf("planning again at %q with what is loaded: %v\n%s", again.stage, err, informed)
	}
	if len(rest.Steps) > atMost {
		t.Fatalf("planning again at %q: %d steps where at most %d were left:\n%s", again.stage, len(rest.Steps), atMost, rest)
	}
}

// done plans again when all is done: from the disks alone only loading may be
// left; with knowledge of what is loaded, nothing.
func done(t *rapid.T, w *world, r Rotation) {
	again, err := Rotate(w.graph(), r)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range again.Steps {
		for _, ch := range s.Changes {
			if ch.Place.Node != "" {
				t.Fatalf("when all is done %s is to be written:\n%s", ch.Place, again)
			}
		}
	}
	r.Loaded = func(string, trust.Place) bool { return true }
	if again, err = Rotate(w.graph(), r); err != nil || len(again.Steps) > 0 {
		t.Fatalf("when all is done and loaded: %v\n%s", err, again)
	}
}
