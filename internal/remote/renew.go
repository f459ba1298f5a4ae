package remote

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// State is what became of a node.
type State string

// The states of a node.
const (
	Done    State = "done"    // written, read again and judged
	Same    State = "same"    // nothing was changed
	Undone  State = "undone"  // what was written was taken back
	Unknown State = "unknown" // nobody could ask what became of it
	Wrong   State = "wrong"   // written, judged wrong, and not taken back
)

// Outcome is what became of one node.
type Outcome struct {
	State    State
	Leaves   []*x509.Certificate // in the order of its items, where they were written
	Backup   string              // folder, as on the node
	Warnings []string
}

// Renew renews one node: it makes keys, certificates for them are signed where the
// authority's key is, the files are written in one transaction, read again and judged.
// What is then wrong that was not before is taken back. The error says why the state is
// not Done. It may be called for several nodes at once that are not believed.
func (f *Fleet) Renew(ctx context.Context, n *FarNode) (*Outcome, error) {
	chains, err := f.issue(ctx, n)
	if err != nil {
		return &Outcome{State: Same}, err
	}
	o := &Outcome{}
	for _, c := range chains {
		o.Leaves = append(o.Leaves, c[0])
	}
	if err := ctx.Err(); err != nil {
		o.State = Same
		return o, err
	}
	ctx = context.WithoutCancel(ctx) // what is begun is ended, within the node's patience
	written, err := n.Client.Write(ctx, f.At, chains)
	if err != nil {
		o.State, err = f.lost(ctx, n, o.Leaves, err)
		if o.State != Done {
			return o, err
		}
	} else {
		o.Backup, o.Warnings = written.Backup, written.Warnings
	}
	return f.judge(ctx, n, o)
}

// issue makes the keys of a node and the certificates for them.
func (f *Fleet) issue(ctx context.Context, n *FarNode) ([][]*x509.Certificate, error) {
	keys, err := n.Client.Keys(ctx, n.Items)
	if err != nil {
		return nil, err
	}
	for j, i := range n.Items {
		if err := n.Fits(i, keys[j]); err != nil {
			return nil, err
		}
		f.mu.Lock()
		err := f.keys.Take(i.ID(), keys[j])
		f.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
	return f.certify(ctx, n.Items, keys)
}

// certify has certificates issued for the public keys of items, by whoever does that for
// an item, or else as [Fleet.Sign] does.
func (f *Fleet) certify(ctx context.Context, items []*renew.Item, keys []crypto.PublicKey) ([][]*x509.Certificate, error) {
	chains := make([][]*x509.Certificate, len(items))
	var rest []int
	for j, i := range items {
		if i.Certifier == nil {
			rest = append(rest, j)
			continue
		}
		chain, err := i.Certifier.Certify(ctx, i, &HeldKey{Place: i.Key, Half: keys[j]})
		if err == nil && len(chain) == 0 {
			err = errors.New("nobody issued a certificate")
		}
		if err == nil {
			err = issue.CheckAnswer(i.Template(), keys[j], chain[0])
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", i.ID(), err)
		}
		chains[j] = chain
	}
	var of []*renew.Item
	var publics []crypto.PublicKey
	for _, j := range rest {
		of, publics = append(of, items[j]), append(publics, keys[j])
	}
	signed, err := f.Sign(ctx, of, publics)
	if err != nil {
		return nil, err
	}
	for k, j := range rest {
		chains[j] = signed[k]
	}
	return chains, nil
}

// Sign has certificates signed for the public keys of items, by the authorities that
// they want, here or on the node that has the key. The chains have the leaf first.
func (f *Fleet) Sign(ctx context.Context, items []*renew.Item, keys []crypto.PublicKey) ([][]*x509.Certificate, error) {
	chains := make([][]*x509.Certificate, len(items))
	far := map[trust.Place][]int{}
	for j, i := range items {
		held, elsewhere := i.Authority().Key.(*HeldKey)
		if elsewhere {
			far[held.Place] = append(far[held.Place], j)
			continue
		}
		leaf, err := issue.Sign(i.Template(), keys[j], i.Authority())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", i.ID(), err)
		}
		chains[j] = append([]*x509.Certificate{leaf}, i.Authority().Chain...)
	}
	for place, of := range far {
		signs := f.named(place.Node)
		var wanted []*renew.Item
		var publics []crypto.PublicKey
		for _, j := range of {
			wanted, publics = append(wanted, items[j]), append(publics, keys[j])
		}
		leaves, err := signs.Client.Sign(ctx, wanted[0].Authority().Key.(*HeldKey), wanted, publics)
		if err != nil {
			return nil, fmt.Errorf("signing: %w", err)
		}
		for k, j := range of {
			chains[j] = append([]*x509.Certificate{leaves[k]}, items[j].Authority().Chain...)
		}
	}
	return chains, nil
}

// lost finds out what became of a write whose answer did not come.
func (f *Fleet) lost(ctx context.Context, n *FarNode, leaves []*x509.Certificate, err error) (State, error) {
	var said *FarError
	if errors.As(err, &said) {
		return Same, err // a transaction that fails leaves all as it was
	}
	told, again := n.readAgain(ctx)
	if again != nil {
		return Unknown, fmt.Errorf("%w; and it does not tell what became of it: %w", err, again)
	}
	if stand(n.Items, leaves, &told.Node) != nil {
		return Same, err
	}
	return Done, nil
}

// settling is how long a node may take to end what it was doing when the connection
// was cut.
const settling = 2 * time.Second

// readAgain connects anew and reads a node, which first ends what was interrupted there.
func (n *FarNode) readAgain(ctx context.Context) (*Told, error) {
	if n.Redial == nil {
		return nil, errors.New("nobody knows how to reach it again")
	}
	client, err := n.Redial(ctx)
	if err != nil {
		return nil, err
	}
	n.Client.Close()
	n.Client = client
	told, err := client.Read(ctx, true)
	if errors.As(err, new(*FarError)) { // its other program holds the lock still
		time.Sleep(settling)
		told, err = client.Read(ctx, true)
	}
	return told, err
}

// stand tells which item's new certificate is not on a node.
func stand(items []*renew.Item, leaves []*x509.Certificate, n *trust.Node) error {
	for j, i := range items {
		there := slices.ContainsFunc(n.Materials, func(m *trust.Material) bool {
			return (m.Place == i.Certificate || m.Place.File() == i.Certificate) && m.Leaf() != nil && m.Leaf().Equal(leaves[j])
		})
		if !there {
			return fmt.Errorf("%s: the new certificate is not in %s", i.ID(), i.Certificate)
		}
	}
	return nil
}

// judge reads a node again, after it was written, and judges all links that it has with
// those that are believed.
func (f *Fleet) judge(ctx context.Context, n *FarNode, o *Outcome) (*Outcome, error) {
	o.State = Unknown
	told, err := n.Client.Read(ctx, false)
	if errors.As(err, new(*CutError)) || errors.As(err, new(*SlowError)) {
		told, err = n.readAgain(ctx)
	}
	if err != nil {
		return o, fmt.Errorf("it was written, and could not be read again: %w", err)
	}
	old := n.Told
	n.Told = told
	err = stand(n.Items, o.Leaves, &told.Node)
	if err == nil {
		err = newlyWrong(n.before, check.Run(catalog.Wire(f.facts(n)), check.Options{At: f.At}).Findings)
	}
	if err == nil {
		n.Proven = told.Proven
		o.State = Done
		return o, nil
	}
	n.Told = old
	stay, undo := n.Client.Undo(ctx)
	if undo != nil {
		o.State = Wrong
		return o, fmt.Errorf("%w; and it could not be taken back: %w", err, undo)
	}
	for _, file := range stay {
		o.Warnings = append(o.Warnings, n.Name+": "+file+" is new and stays")
	}
	o.State = Undone
	return o, fmt.Errorf("%w; it was taken back", err)
}

// newlyWrong is the first error among findings that was not there before.
func newlyWrong(before, now []check.Finding) error {
	for _, f := range now {
		was := slices.ContainsFunc(before, func(b check.Finding) bool {
			return b.ID == f.ID && b.Node == f.Node && b.Path == f.Path && b.Field == f.Field
		})
		if f.Severity == check.Error && !was {
			return fmt.Errorf("then %s at %s: %s", f.ID, trust.Place{Node: f.Node, Path: f.Path, Field: f.Field}, f.Cause)
		}
	}
	return nil
}
