package remote_test

import (
	"bufio"
	"context"
	"crypto"
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/remote"
	"github.com/kubepki/kubepki/internal/testpki"
)

// far is a node elsewhere; alter, unless nil, changes its answers on the way: what a
// machine that somebody took over could say. It runs whatever the honest one did.
func far(t *testing.T, c *testpki.Cluster, name string, alter func(*remote.Answer)) *remote.FarNode {
	t.Helper()
	n := &remote.FarNode{Standing: remote.Standing{Name: name, Addresses: []string{"10.0.0.21"}}}
	dial := func(ctx context.Context) (*remote.Client, error) {
		here, there := net.Pipe()
		server := &remote.Server{Root: filepath.Join(c.Dir, name), Version: "v1"}
		go func() {
			defer there.Close()
			if alter == nil {
				_ = server.Serve(t.Context(), there, there)
				return
			}
			out, answers := io.Pipe()
			go lie(out, there, alter)
			_ = server.Serve(t.Context(), there, answers)
			answers.Close()
		}()
		return remote.Connect(ctx, name, "v1", here, here, func() { here.Close() }, 20*time.Second)
	}
	var err error
	if n.Client, err = dial(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.Redial = dial
	t.Cleanup(func() { n.Client.Close() })
	return n
}

// lie hands answers on, changed.
func lie(from io.Reader, to io.Writer, alter func(*remote.Answer)) {
	r := bufio.NewReaderSize(from, 1<<20)
	for first := true; ; first = false {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		if !first {
			var a remote.Answer
			if json.Unmarshal(line, &a) != nil {
				return
			}
			alter(&a)
			line, _ = json.Marshal(&a)
			line = append(line, '\n')
		}
		if _, err := to.Write(line); err != nil {
			return
		}
	}
}

// read reads nodes and settles who is believed.
func read(t *testing.T, nodes ...*remote.FarNode) (*remote.Fleet, error) {
	t.Helper()
	f := &remote.Fleet{At: testpki.At, Far: nodes}
	for _, n := range nodes {
		told, err := n.Client.Read(t.Context(), true)
		if err != nil {
			return nil, err
		}
		n.Told, n.Proven = told, told.Proven
	}
	return f, f.Believe()
}

// plan reads nodes and plans.
func plan(t *testing.T, o remote.Options, nodes ...*remote.FarNode) (*remote.Fleet, error) {
	t.Helper()
	f, err := read(t, nodes...)
	if err == nil {
		_, err = f.Plan(o)
	}
	return f, err
}

func TestFactsTravelWhole(t *testing.T) {
	for _, kind := range []testpki.Kind{testpki.Single, testpki.HA, testpki.Intermediate, testpki.KubeletCA, testpki.ExternalEtcd} {
		c := testpki.New(t, kind)
		read, err := apply.ReadNode("cp1", filepath.Join(c.Dir, "cp1"))
		if err != nil {
			t.Fatal(err)
		}
		facts, err := remote.FactsOf(read.Nodes[0], read.Keys, "n")
		if err != nil {
			t.Fatal(err)
		}
		line, err := json.Marshal(facts)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(line), "PRIVATE") {
			t.Errorf("%s: a private key is among the facts", kind)
		}
		var got remote.Facts
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatal(err)
		}
		node, proven, err := got.Node("cp1", "n")
		if err != nil {
			t.Fatal(err)
		}
		again, err := remote.FactsOf(node, map[trustPlace]crypto.Signer{}, "n")
		if err != nil {
			t.Fatal(err)
		}
		facts.Proofs = nil
		first, second := mustJSON(t, facts), mustJSON(t, again)
		if first != second {
			t.Errorf("%s: facts differ after the way:\n%s\n%s", kind, first, second)
		}
		if len(proven) != len(read.Keys) {
			t.Errorf("%s: %d keys proved of %d", kind, len(proven), len(read.Keys))
		}
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestRenewsFarNodes(t *testing.T) {
	c := testpki.New(t, testpki.HA)
	cp1, cp2, w1 := far(t, c, "cp1", nil), far(t, c, "cp2", nil), far(t, c, "w1", nil)
	f, err := plan(t, remote.Options{}, w1, cp1, cp2)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range f.Far {
		o, err := f.Renew(t.Context(), n)
		if err != nil || o.State != remote.Done {
			t.Fatalf("%s: %v (%v)", n.Name, err, o.State)
		}
	}
	if !cp1.ControlPlane() || w1.ControlPlane() {
		t.Error("who is a control plane?")
	}
	_, err = read(t, far(t, c, "cp1", nil), far(t, c, "w1", nil))
	if err != nil {
		t.Error(err)
	}
}

func mustParse(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}
