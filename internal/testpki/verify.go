package testpki

import (
	"os"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/probe"
	"github.com/kubepki/kubepki/internal/proof"
	"github.com/kubepki/kubepki/internal/trust"
)

// Verify reads all nodes of the cluster from disk and judges them as
// `kubepki verify` does, handshakes included. A handshake that contradicts the
// judgement fails the test.
func (c *Cluster) Verify(o check.Options) *check.Result {
	c.t.Helper()
	return c.verify(o, nil)
}

// VerifyLive is Verify with a look at the running servers, as `kubepki verify
// --live` does.
func (c *Cluster) VerifyLive(o check.Options, r *Running) *check.Result {
	c.t.Helper()
	return c.verify(o, r)
}

// LiveTimeout is how long VerifyLive waits for a server.
const LiveTimeout = 10 * time.Second

// VerifyWith is Verify with more nodes than those of the disk, as that which stands
// for the cluster's API.
func (c *Cluster) VerifyWith(o check.Options, more ...trust.Node) *check.Result {
	c.t.Helper()
	return c.verify(o, nil, more...)
}

// Judge is Verify, and returns the graph too.
func (c *Cluster) Judge(o check.Options) (*trust.Graph, *check.Result) {
	c.t.Helper()
	return c.judge(o, nil)
}

func (c *Cluster) verify(o check.Options, running *Running, more ...trust.Node) *check.Result {
	c.t.Helper()
	_, r := c.judge(o, running, more...)
	return r
}

func (c *Cluster) judge(o check.Options, running *Running, more ...trust.Node) (*trust.Graph, *check.Result) {
	c.t.Helper()
	if o.At.IsZero() {
		o.At = At
	}
	entries, err := os.ReadDir(c.Dir)
	c.check(err)
	var nodes []trust.Node
	keys := proof.Keys{}
	for _, e := range entries {
		if e.Name() == catalog.AuthoritiesDir || e.Name() == catalog.UsersDir {
			continue
		}
		name := e.Name()
		if len(entries) == 1 {
			name = ""
		}
		node, ring, err := layout.Read(c.Path(e.Name(), "/"), layout.Options{Name: name})
		c.check(err)
		nodes = append(nodes, node)
		for p, k := range ring {
			keys[p] = k
		}
	}
	g := catalog.Wire(append(nodes, more...))
	if running != nil {
		g.Observations = probe.Run(c.t.Context(), g, catalog.Servers(g), probe.Keys(keys), probe.Options{Dial: running.Dial, Timeout: LiveTimeout, At: o.At})
	}
	r := check.Run(g, o)
	contradictions, err := proof.Prove(g, r.Links, keys, o.At)
	c.check(err)
	for _, x := range contradictions {
		c.t.Errorf("link %d %s → %s: judged good, but the handshake fails: %v", r.Links[x.Link].Number, r.Links[x.Link].Caller, r.Links[x.Link].Callee, x.Err)
	}
	return g, r
}
