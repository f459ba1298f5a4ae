package check_test

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/testpki"
)

// seeds is how many mixtures of faults are tried: 5,000 in make test-long, or
// KUBEPKI_CHECK_SEEDS.
func seeds(t *testing.T) uint64 {
	if v := os.Getenv("KUBEPKI_CHECK_SEEDS"); v != "" {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if os.Getenv("KUBEPKI_LAB_LONG") != "" {
		return 5000
	}
	return 48
}

// TestSeveralFaultsAreSeveralFindings breaks one to five things that have nothing
// to do with each other, in clusters of each kind, and wants exactly their
// findings, in any order: each cause, and nothing that merely follows.
func TestSeveralFaultsAreSeveralFindings(t *testing.T) {
	byKind := map[testpki.Kind][]mutation{}
	for _, m := range mutations {
		if m.live == nil && !m.wide && m.at.Before(days(1000)) {
			kind := cmp.Or(m.kind, testpki.Single)
			byKind[kind] = append(byKind[kind], m)
		}
	}
	byKind[testpki.Bare] = append(byKind[testpki.Bare], byKind[testpki.Single]...)
	kinds := slices.Sorted(maps.Keys(byKind))
	for seed := range seeds(t) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 2))
			kind := kinds[random.IntN(len(kinds))]
			if random.IntN(2) == 0 {
				kind = testpki.Single // which has the most rows
			}
			c := testpki.New(t, kind)
			o := check.Options{}
			var want, names []string
			var touched []area
			for range 1 + random.IntN(5) {
				m := byKind[kind][random.IntN(len(byKind[kind]))]
				areas := touches(t, kind, m)
				if overlap(touched, areas) || clash(o, m) {
					continue // not independent
				}
				if kind == testpki.Bare && slices.ContainsFunc(areas, func(a area) bool { return strings.Contains(string(a), "manifests/") }) {
					continue // there is none
				}
				touched = append(touched, areas...)
				m.brk(c)
				if m.at.After(o.At) {
					o.At = m.at
				}
				want = append(want, strings.TrimPrefix(m.node+":", ":")+m.id+" "+m.path)
				names = append(names, m.name)
			}
			var got []string
			r := c.Verify(o)
			for _, f := range weighty(r) {
				got = append(got, f.ID+" "+f.Path)
			}
			for i, w := range want {
				_, w, ok := strings.Cut(w, ":")
				if ok {
					want[i] = w
				}
			}
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s: %s:\nwant %s\ngot\n%s", kind, strings.Join(names, "; "), strings.Join(want, "\n     "), describe(weighty(r)))
			}
			explained(t, r)
		})
	}
}

var (
	touchedMu sync.Mutex
	touchedBy = map[string][]area{}
)

// area is what a fault touches: a credential, an authority with all that it signs,
// or one file of configuration.
type area string

// clash tells of two faults whose dates do not go together: what is not valid yet
// is at a later time.
func clash(o check.Options, m mutation) bool {
	return m.id == "cert-not-yet-valid" && !o.At.IsZero()
}

// touches finds the areas by trying the fault alone and looking at what changed.
func touches(t *testing.T, kind testpki.Kind, m mutation) []area {
	key := string(kind) + "/" + m.name
	touchedMu.Lock()
	known, ok := touchedBy[key]
	touchedMu.Unlock()
	if ok {
		return known
	}
	// What breaks one node without a word of its manifests breaks it bare too.
	trial := kind
	if kind == testpki.Bare && m.kind == "" {
		trial = testpki.Single
	}
	broken := testpki.New(t, trial)
	before := snapshot(t, broken.Dir)
	m.brk(broken)
	var areas []area
	for _, file := range changed(before, snapshot(t, broken.Dir)) {
		areas = append(areas, areaOf(file, m)...)
	}
	if m.id == "endpoint-mismatch" && strings.HasPrefix(m.path, manifest) {
		areas = append(areas, "cluster") // all kubeconfigs
	}
	if m.id == "endpoint-mismatch" {
		areas = append(areas, "cluster cp1 pki/apiserver") // whose names it is judged by
	}
	if m.id == "san-missing" && kind == testpki.Bare {
		// Without manifests these two tell the address.
		areas = append(areas, "cluster cp1 scheduler.conf", "cluster cp1 controller-manager.conf")
	}
	if m.id == "cert-not-yet-valid" || !m.at.IsZero() {
		areas = append(areas, "time")
	}
	slices.Sort(areas)
	areas = slices.Compact(areas)
	touchedMu.Lock()
	touchedBy[key] = areas
	touchedMu.Unlock()
	return areas
}

// areaOf names what a changed file belongs to. An authority's file is the whole
// family of what it signs; a manifest is its own flag and the family of that.
func areaOf(file string, m mutation) []area {
	node, rest, _ := strings.Cut(file, "/")
	name := strings.TrimPrefix(rest, "etc/kubernetes/")
	family := familyOf(name)
	switch base := filepath.Base(name); {
	case strings.HasPrefix(name, "manifests/"):
		return []area{area(file), area(familyOfFlag(m.field, m.path)), area(familyOfFlag(m.field, m.path) + " " + node)}
	case base == "both.crt", strings.Contains(base, "root-ca"):
		return []area{"cluster", "etcd", "front-proxy"}
	case strings.HasPrefix(base, "sa."), strings.HasPrefix(base, "sa-"):
		return []area{"tokens"}
	case strings.Contains(base, "ca.crt"), strings.Contains(base, "ca.key"), base == "clients.crt":
		return []area{area(family)}
	}
	stem := strings.TrimSuffix(strings.TrimSuffix(name, ".crt"), ".key")
	return []area{area(family + " " + node + " " + stem)}
}

func familyOf(name string) string {
	switch {
	case strings.Contains(name, "etcd"):
		return "etcd"
	case strings.Contains(name, "front-proxy"):
		return "front-proxy"
	}
	return "cluster"
}

func familyOfFlag(field, path string) string {
	switch {
	case strings.Contains(field, "etcd"), strings.HasSuffix(path, "etcd.yaml"):
		return "etcd"
	case strings.Contains(field, "requestheader"), strings.Contains(field, "proxy-client"):
		return "front-proxy"
	case strings.Contains(field, "service-account"):
		return "tokens"
	}
	return "cluster"
}

// overlap tells whether two faults are not independent: a family overlaps with each
// of its members.
func overlap(a, b []area) bool {
	for _, x := range a {
		for _, y := range b {
			if x == y || strings.HasPrefix(string(x), string(y)+" ") || strings.HasPrefix(string(y), string(x)+" ") {
				return true
			}
		}
	}
	return false
}

// snapshot tells files by their mode and content.
func snapshot(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		state := info.Mode().String()
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			state += string(data)
		}
		files[strings.TrimPrefix(path, root+"/")] = state
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// changed lists the files that differ.
func changed(a, b map[string]string) []string {
	seen := map[string]bool{}
	for name := range a {
		seen[name] = a[name] != b[name]
	}
	for name := range b {
		seen[name] = a[name] != b[name]
	}
	maps.DeleteFunc(seen, func(_ string, differs bool) bool { return !differs })
	return slices.Sorted(maps.Keys(seen))
}
