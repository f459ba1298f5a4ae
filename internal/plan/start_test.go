package plan

import (
	"slices"
	"testing"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// TestWhoReadsAnObjectIsNoSurerThanTheObject: no file holds the kubelets' old
// authority any more, but extension-apiserver-authentication does, for it is
// merged. Who reads it at once, or was seen to hold what stands there, trusts
// the old one as long as the object does.
func TestWhoReadsAnObjectIsNoSurerThanTheObject(t *testing.T) {
	s := shape{controlPlanes: 1, workers: 1, externalEtcd: 1, authorities: catalog.Shared, kubeletCA: true, keyless: true, paths: true}
	atOnce := func(component, setting string) Reload {
		if component == extensionAPIServer {
			return Reload{Uptake: AtOnce}
		}
		return newest(component, setting)
	}
	seen := func(component string, _ trust.Place) bool { return component == extensionAPIServer }
	for name, c := range map[string]struct {
		reloads Reloads
		loaded  func(string, trust.Place) bool
	}{
		"it reads at once":             {atOnce, nil},
		"it was seen to have read it":  {newest, seen},
		"both":                         {atOnce, seen},
		"nothing is known but the way": {newest, nil},
	} {
		t.Run(name, func(t *testing.T) {
			k, r := rotation(t, s, catalog.KubeletCA)
			r.Reloads = c.reloads
			nodes := nodesOf(t, s)
			p, err := Rotate(catalog.Wire(nodes), r)
			if err != nil {
				t.Fatal(err)
			}
			last := len(p.Steps) - 1
			writesObject := func(ch Change) bool { return ch.Place == clientCA }
			if !slices.ContainsFunc(p.Steps[last].Changes, writesObject) {
				t.Fatalf("the last step does not write the object:\n%s", p)
			}
			g := carriedOut(t, k, nodes, r, p.Steps[:last])
			r.Loaded = c.loaded
			again, err := newModel(g, &r)
			if err != nil {
				t.Fatal(err)
			}
			if i, ok := again.byUse[use{extensionAPIServer, clientCA, trust.RoleBundle, SettingAuthentication}]; !ok || again.copies[i].sure {
				t.Errorf("the extension apiserver is taken for sure to trust %s", again.describeAll([]int{i}))
			}
			if rest, err := Rotate(g, r); err != nil || !slices.ContainsFunc(rest.Steps[len(rest.Steps)-1].Changes, writesObject) {
				t.Errorf("planning again does not write the object at the end: %v\n%s", err, rest)
			}
		})
	}
}

// carriedOut is a cluster after some steps.
func carriedOut(t *testing.T, k maker, nodes []trust.Node, r Rotation, steps []Step) *trust.Graph {
	t.Helper()
	m, err := newModel(catalog.Wire(nodes), &r)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(k, nodes, m)
	for _, s := range steps {
		for _, ch := range s.Changes {
			w.apply(ch)
		}
	}
	return w.graph()
}
