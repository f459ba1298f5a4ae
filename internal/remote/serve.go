package remote

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// Server is the node's end.
type Server struct {
	Root    string // folder that stands for the node's /
	Version string // of kubepki
	// Restarter restarts what runs there; nil: nothing is restarted.
	Restarter Restarter
}

// Serve answers requests until the other end hangs up, or the context ends. Keys that
// were made and got no certificate are forgotten then: nothing of them was written.
func (s *Server) Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	w := newStream(in, out)
	if err := w.write(Hello{Kubepki: "node", Protocol: Protocol, Version: s.Version}); err != nil {
		return err
	}
	n := &node{root: s.Root, restarter: s.Restarter}
	defer func() {
		if n.unlock != nil {
			n.unlock()
		}
	}()
	for {
		var q Request
		switch err := w.read(&q); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if err := w.write(n.answer(ctx, &q)); err != nil {
			return err
		}
	}
}

// node is what the node's end knows between requests.
type node struct {
	root    string
	read    *apply.Nodes
	name    string
	made    []*apply.Renewed // by the last KeysRequest
	written *apply.Renewal

	bringing *apply.Renewal // an undo that was planned

	restarter Restarter
	unlock    func() // nil: other restarts are not kept away
}

// hinter is an error that knows what to do.
type hinter interface{ Hint() string }

func (n *node) answer(ctx context.Context, q *Request) *Answer {
	var a *Answer
	var err error
	switch {
	case q.Read != nil:
		a, err = n.facts(q.Read)
	case n.read == nil:
		err = errors.New("the node was not read yet")
	case q.Keys != nil:
		a, err = n.keys(q.Keys)
	case q.Sign != nil:
		a, err = n.sign(q.Sign)
	case q.Write != nil:
		a, err = n.write(q.Write)
	case q.Undo != nil:
		a, err = n.undo()
	case q.Back != nil:
		a, err = n.back(q.Back)
	case q.Restarts != nil:
		a, err = n.restarts(ctx, q.Restarts)
	case q.Restart != nil:
		a, err = n.restart(ctx, q.Restart)
	default:
		err = errors.New("an empty request")
	}
	if err == nil {
		return a
	}
	a = &Answer{Error: err.Error()}
	var h hinter
	if errors.As(err, &h) {
		a.Hint = h.Hint()
	}
	return a
}

func (n *node) facts(q *ReadRequest) (*Answer, error) {
	var said []string
	if q.Restarts {
		var err error
		if said, err = n.lockRestarts(); err != nil {
			return nil, err
		}
	}
	mended := 0
	if q.Mend {
		finished, removed, err := apply.Mend(n.root)
		if err != nil {
			return nil, err
		}
		mended = finished + removed
	}
	read, err := apply.ReadNode(q.Name, n.root)
	if err != nil {
		return nil, err
	}
	n.read, n.name = read, q.Name
	f, err := FactsOf(read.Nodes[0], read.Keys, q.Nonce)
	if err != nil {
		return nil, err
	}
	f.Mended, f.Clock = mended, time.Now()
	return &Answer{Facts: f, Warnings: said}, nil
}

// keys makes keys, in memory, and requests by them.
func (n *node) keys(q *KeysRequest) (*Answer, error) {
	n.made = nil
	// A key that is used again may have been replaced since the facts were told.
	read, err := apply.ReadNode(n.name, n.root)
	if err != nil {
		return nil, err
	}
	n.read = read
	a := &Answer{}
	var made []*apply.Renewed
	for _, k := range q.Items {
		i, err := n.item(&k)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.Name, err)
		}
		key, err := i.MakeKey()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.Name, err)
		}
		// The request asks for nothing: what the certificate holds is not the node's to say.
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.Name, err)
		}
		a.Requests = append(a.Requests, der)
		made = append(made, &apply.Renewed{Item: i, Made: renew.Made{Key: key}})
	}
	n.made = made
	return a, nil
}

func (n *node) item(k *KeyItem) (*renew.Item, error) {
	for _, p := range []trust.Place{k.Certificate, k.Key} {
		if p.Node != n.name || !path.IsAbs(p.Path) || path.Clean(p.Path) != p.Path {
			return nil, fmt.Errorf("%s is no file of this node", p)
		}
	}
	if k.Kind != renew.Leaf && k.Kind != renew.Kubeconfig {
		return nil, fmt.Errorf("a %s is not made anew from another machine", k.Kind)
	}
	i := &renew.Item{Name: k.Name, Node: n.name, Kind: k.Kind, Certificate: k.Certificate, Key: k.Key, Algorithm: k.Algorithm, Cluster: k.Cluster, User: k.User, Server: k.Server}
	if k.Rewrite {
		var err error
		if i.Anchors, err = certificatesOf(k.Anchors); err != nil {
			return nil, err
		}
	}
	if k.Reuse {
		key := n.keyAt(k)
		if key == nil {
			return nil, fmt.Errorf("there is no key in %s any more", k.Key)
		}
		i.Reuse(key)
	}
	return i, nil
}

// keyAt is the key of a credential that is there; of a kubeconfig it stands in a field.
func (n *node) keyAt(k *KeyItem) crypto.Signer {
	if key := n.read.Keys[k.Key]; key != nil {
		return key
	}
	for _, c := range n.read.Graph.Credentials {
		if c.Certificate.File() == k.Certificate.File() && k.Kind == renew.Kubeconfig {
			return n.read.Keys[c.Key]
		}
	}
	return nil
}

// write writes all that was made, with its certificates.
func (n *node) write(q *WriteRequest) (*Answer, error) {
	made := n.made
	n.made = nil
	if len(q.Chains) != len(made) || len(made) == 0 {
		return nil, fmt.Errorf("%d certificates for %d keys", len(q.Chains), len(made))
	}
	for j, r := range made {
		chain, err := certificatesOf(q.Chains[j])
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", r.Name, err)
		case len(chain) == 0 || !trust.SameKey(chain[0].PublicKey, r.Made.Key.Public()):
			return nil, fmt.Errorf("%s: the certificate is not of the key that was made for it", r.Name)
		}
		r.Made.Chain = chain
	}
	renewal, err := apply.Finish(n.read, made, q.At)
	if err != nil {
		return nil, err
	}
	if err := renewal.Write(n.read); err != nil {
		return nil, err
	}
	n.written = renewal
	a := &Answer{}
	for _, f := range renewal.Files {
		if f.Old != nil {
			a.Backup = renewal.Backup
		}
	}
	for _, r := range made {
		for _, w := range r.Warnings {
			a.Warnings = append(a.Warnings, r.Name+": "+w)
		}
	}
	return a, nil
}

func (n *node) undo() (*Answer, error) {
	if n.written == nil {
		return nil, errors.New("nothing was written")
	}
	stay, err := n.written.TakeBack(n.read)
	if err == nil {
		n.written = nil
	}
	return &Answer{Stay: stay}, err
}

// sign signs with an authority's key that is on this node.
func (n *node) sign(q *SignRequest) (*Answer, error) {
	key := n.read.Keys[q.Key]
	if key == nil {
		return nil, fmt.Errorf("the key of the authority, %s, is not there any more", q.Key)
	}
	if len(q.Wanted) > maxItems {
		return nil, fmt.Errorf("more than %d certificates at once", maxItems)
	}
	authority := issue.Authority{Key: key}
	if m := n.read.Graph.Material(q.Certificate); m.OK() {
		for _, c := range m.Certificates {
			if authority.Certificate == nil && trust.SameKey(c.PublicKey, key.Public()) {
				authority.Certificate = c
			}
		}
	}
	if authority.Certificate == nil {
		return nil, fmt.Errorf("%s does not belong to %s", q.Key, q.Certificate)
	}
	a := &Answer{}
	for _, w := range q.Wanted {
		t, public, err := w.template()
		if err != nil {
			return nil, err
		}
		c, err := issue.Sign(t, public, authority)
		if err != nil {
			return nil, err
		}
		a.Certificates = append(a.Certificates, c.Raw)
	}
	return a, nil
}
