package proof_test

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/proof"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

func TestMain(m *testing.M) {
	code := m.Run()
	testpki.Clean()
	os.Exit(code)
}

func read(t *testing.T, c *testpki.Cluster) (*trust.Graph, layout.Keyring) {
	t.Helper()
	node, keys, err := layout.Read(c.Path("cp1", "/"), layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return catalog.Wire([]trust.Node{node}), keys
}

func prove(t *testing.T, g *trust.Graph, keys layout.Keyring, at time.Time) (*check.Result, []proof.Contradiction) {
	t.Helper()
	r := check.Run(g, check.Options{At: at})
	found, err := proof.Prove(g, r.Links, proof.Keys(keys), at)
	if err != nil {
		t.Fatal(err)
	}
	return r, found
}

func half(t *testing.T, r *check.Result, number int, caller, side string) check.Half {
	t.Helper()
	for i := range r.Links {
		if l := &r.Links[i]; l.Number == number && (caller == "" || l.Caller == caller) {
			if j := slices.IndexFunc(l.Halves, func(h check.Half) bool { return h.Side == side }); j >= 0 {
				return l.Halves[j]
			}
		}
	}
	t.Fatalf("no link %d of %s has a %s half", number, caller, side)
	return check.Half{}
}

func TestHandshakesProveWhatTheKeysAllow(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	g, keys := read(t, c)
	t.Run("with all keys", func(t *testing.T) {
		r, contradictions := prove(t, g, keys, testpki.At)
		if len(contradictions) > 0 {
			t.Errorf("unexpected: %+v", contradictions)
		}
		if h := half(t, r, 6, "", "client"); h.State != check.OK || h.Proof != check.ByHandshake {
			t.Errorf("got %+v", h)
		}
	})
	t.Run("without the apiserver's key only the caller's half is shaken", func(t *testing.T) {
		fewer := layout.Keyring{}
		for p, k := range keys {
			if p.Path != "/etc/kubernetes/pki/apiserver.key" {
				fewer[p] = k
			}
		}
		r, _ := prove(t, g, fewer, testpki.At)
		if h := half(t, r, 6, "", "server"); h.State != check.OK || h.Proof != check.ByChain {
			t.Errorf("server: got %+v", h)
		}
		if h := half(t, r, 6, "", "client"); h.State != check.OK || h.Proof != check.ByHandshake {
			t.Errorf("client: got %+v", h)
		}
	})
	t.Run("at a time when all has expired both sides refuse", func(t *testing.T) {
		r, contradictions := prove(t, g, keys, testpki.Made.AddDate(2, 0, 0))
		if len(contradictions) > 0 {
			t.Errorf("unexpected: %+v", contradictions)
		}
		for _, side := range []string{"client", "server"} {
			if h := half(t, r, 6, "", side); h.State != check.Broken || h.Proof != check.ByHandshake {
				t.Errorf("%s: got %+v", side, h)
			}
		}
	})
}

// TestContradictionIsSaid: were the judgement ever wrong, the handshake says so.
func TestContradictionIsSaid(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	g, keys := read(t, c)
	r := check.Run(g, check.Options{At: testpki.At})
	// The links were judged at a good time; the handshakes are made after all expired.
	found, err := proof.Prove(g, r.Links, proof.Keys(keys), testpki.Made.AddDate(2, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatal("no contradiction was found")
	}
	r.Refused(found[0].Link, found[0].Side, found[0].Err)
	if r.Healthy() || r.Findings[0].ID != "refused" || r.Links[found[0].Link].OK() {
		t.Errorf("a refusal makes the link broken and the cluster unhealthy: %+v", r.Findings[0])
	}
}
