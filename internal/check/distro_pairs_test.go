package check_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/check"
)

// The first fault of each table is an expired certificate of the apiserver: no
// other hides it, and it hides none.
func TestTwoFaultsOfADistributionAreTwo(t *testing.T) {
	for name, table := range map[string]func() (func(*testing.T) *tree, []distroMutation){
		"k3s": k3sFaults, "rke2": rke2Faults, "k0s": k0sFaults, "microk8s": microFaults,
	} {
		build, faultsOf := table()
		first := faultsOf[0]
		for _, second := range faultsOf[1:] {
			if second.path == first.path {
				continue
			}
			t.Run(name+", "+second.name, func(t *testing.T) {
				t.Parallel()
				x := build(t)
				first.brk(x)
				second.brk(x)
				r := x.verify(name)
				for _, m := range []distroMutation{first, second} {
					if !slices.ContainsFunc(r.Findings, func(f check.Finding) bool { return f.ID == m.id && f.Path == m.path && f.Node == m.node }) {
						t.Errorf("%s at %s is not found", m.id, m.path)
					}
				}
				if got := faults(r); len(got) != 2 {
					t.Errorf("want two, got %d:\n%s", len(got), strings.Join(got, "\n"))
				}
			})
		}
	}
}

// A server that names no authority for clients and whose client has a fault of
// its own is judged without a handshake.
func TestAFaultyClientOfAServerWithoutAuthorityIsNoCrash(t *testing.T) {
	build, all := microFaults()
	x := build(t)
	for _, m := range all {
		if m.id == "client-auth-off" || m.name == "the scheduler is somebody else" {
			m.brk(x)
		}
	}
	if r := x.verify("microk8s"); !slices.ContainsFunc(r.Findings, func(f check.Finding) bool { return f.ID == "client-auth-off" }) {
		t.Error("client-auth-off is not found")
	}
}
