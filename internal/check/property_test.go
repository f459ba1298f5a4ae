package check_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/testpki"
)

// authorities break more than their own file: such a mutation goes only with
// those of another part of the cluster.
func part(m mutation) string {
	switch p := m.path; {
	case strings.HasPrefix(p, pki+"etcd/"), strings.Contains(p, "etcd"):
		return "etcd"
	case strings.Contains(p, "front-proxy"):
		return "front-proxy"
	case strings.Contains(p, "/sa."):
		return "tokens"
	}
	return "cluster"
}

// TestSeveralFaultsAreSeveralFindings breaks one thing in each of several
// parts of a cluster, and wants exactly their findings, in any order.
func TestSeveralFaultsAreSeveralFindings(t *testing.T) {
	byPart := map[string][]mutation{}
	for _, m := range mutations {
		if m.kind == "" && m.live == nil && m.at.IsZero() && !strings.HasPrefix(m.path, manifest) && m.id != "authority-shared" {
			byPart[part(m)] = append(byPart[part(m)], m)
		}
	}
	for seed := range uint64(60) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 2))
			c := testpki.New(t, testpki.Single)
			var want []string
			var names []string
			for _, p := range []string{"etcd", "front-proxy", "tokens", "cluster"} {
				if len(want) > 0 && random.IntN(4) == 0 {
					continue
				}
				m := byPart[p][random.IntN(len(byPart[p]))]
				m.brk(c)
				want = append(want, m.id+" "+m.path)
				names = append(names, m.name)
			}
			var got []string
			for _, f := range weighty(c.Verify(check.Options{})) {
				got = append(got, f.ID+" "+f.Path)
			}
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s:\nwant %s\ngot  %s", strings.Join(names, "; "), strings.Join(want, "\n     "), strings.Join(got, "\n     "))
			}
		})
	}
}
