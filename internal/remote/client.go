package remote

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// Client is our end of the streams to one node. It is safe for concurrent use:
// requests wait for each other.
type Client struct {
	Name string // of the node
	// Patience bounds how long the node may take for one answer.
	Patience time.Duration
	// LocksRestarts has the node keep other restarts away from the first [Client.Read] with
	// mend on, for as long as the streams last.
	LocksRestarts bool

	stream *stream
	hangUp func()
	mu     sync.Mutex
	broken error
}

// Connect reads the node's first document. hangUp ends the streams, and may be called
// more than once; it is called when the node is too slow, and by Close.
func Connect(ctx context.Context, name, version string, in io.Reader, out io.Writer, hangUp func(), patience time.Duration) (*Client, error) {
	c := &Client{Name: name, Patience: patience, stream: newStream(in, out), hangUp: hangUp}
	var h Hello
	err := c.within(ctx, patience, func() (err error) {
		h, err = c.stream.hello()
		return err
	})
	switch {
	case err != nil:
		c.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	case h.Protocol != Protocol || h.Version != version:
		c.Close()
		return nil, fmt.Errorf("%s: kubepki %.80q is there, %q is here: both ends must be one version", name, h.Version, version)
	}
	return c, nil
}

// Close hangs up.
func (c *Client) Close() { c.hangUp() }

// SlowError tells that a node did not answer in time.
type SlowError struct{ Patience time.Duration }

// Error says how long it was waited.
func (e *SlowError) Error() string { return fmt.Sprintf("no answer within %s", e.Patience) }

// CutError tells that the streams ended before an answer came: what was asked for may
// have been done or not.
type CutError struct{ Err error }

// Error says that the connection was cut.
func (e *CutError) Error() string { return "the connection was cut: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *CutError) Unwrap() error { return e.Err }

// within does one exchange in the time that there is for it.
func (c *Client) within(ctx context.Context, patience time.Duration, do func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, &SlowError{patience})
	defer cancel()
	stop := context.AfterFunc(ctx, c.hangUp)
	defer stop()
	err := do()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) {
		return &CutError{err}
	}
	return err
}

// FarError is what a node says went wrong there.
type FarError struct{ Said, Help string }

// Error is what the node says.
func (e *FarError) Error() string { return e.Said }

// Hint is what the node says is to be done.
func (e *FarError) Hint() string { return e.Help }

// maxSaid bounds an error's text that a node sends, in bytes.
const maxSaid = 1000

func (c *Client) ask(ctx context.Context, q Request) (*Answer, error) {
	return c.askFor(ctx, q, c.Patience)
}

func (c *Client) askFor(ctx context.Context, q Request, patience time.Duration) (*Answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return nil, c.broken
	}
	var a Answer
	err := c.within(ctx, patience, func() error {
		if err := c.stream.write(q); err != nil {
			return &CutError{err}
		}
		return c.stream.read(&a)
	})
	switch {
	case err != nil:
		c.broken = fmt.Errorf("%s: %w", c.Name, err)
		c.hangUp()
		return nil, c.broken
	case a.Error != "":
		said := fmt.Errorf("%s: %w", c.Name, &FarError{bounded(a.Error), bounded(a.Hint)})
		return nil, said
	}
	return &a, nil
}

// Told is what a node told of itself.
type Told struct {
	Node   trust.Node
	Proven map[trust.Place]crypto.PublicKey // keys that it has proved to hold
	Mended int                              // files of an interrupted run
	// Ahead is how far the node's clock is before ours, negative: behind.
	Ahead time.Duration
	Said  []string // what it did about an interrupted restart
}

// Read asks for the facts. With mend the node first finishes what an interrupted run
// left there.
func (c *Client) Read(ctx context.Context, mend bool) (*Told, error) {
	nonce := rand.Text()
	a, err := c.ask(ctx, Request{Read: &ReadRequest{Name: c.Name, Nonce: nonce, Mend: mend, Restarts: mend && c.LocksRestarts}})
	if err != nil {
		return nil, err
	}
	if a.Facts == nil {
		return nil, fmt.Errorf("%s: the answer has no facts", c.Name)
	}
	n, proven, err := a.Facts.Node(c.Name, nonce)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	return &Told{Node: n, Proven: proven, Mended: a.Facts.Mended, Ahead: time.Until(a.Facts.Clock).Round(time.Second), Said: few(a.Warnings)}, nil
}

// Keys has the node make keys for items, and returns their public halves, for which it
// has signed. What else a request may ask for is not looked at.
func (c *Client) Keys(ctx context.Context, items []*renew.Item) ([]crypto.PublicKey, error) {
	q := &KeysRequest{}
	for _, i := range items {
		k := KeyItem{Name: i.Name, Kind: i.Kind, Certificate: i.Certificate, Key: i.Key, Algorithm: i.Algorithm, Reuse: i.Reused(), Cluster: i.Cluster, User: i.User, Server: i.Server}
		if i.Anchors != nil {
			k.Anchors, k.Rewrite = derOf(i.Anchors), true
		}
		q.Items = append(q.Items, k)
	}
	a, err := c.ask(ctx, Request{Keys: q})
	if err != nil {
		return nil, err
	}
	if len(a.Requests) != len(items) {
		return nil, fmt.Errorf("%s: %d requests for %d keys", c.Name, len(a.Requests), len(items))
	}
	var all []crypto.PublicKey
	for j, der := range a.Requests {
		r, err := x509.ParseCertificateRequest(der)
		if err == nil {
			err = r.CheckSignature()
		}
		if err == nil {
			err = issue.CheckPublicKey(r.PublicKey)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: the request: %w", items[j].ID(), err)
		}
		all = append(all, r.PublicKey)
	}
	return all, nil
}

// Sign has the node sign certificates for items by the authority that they all want,
// whose key it has, and compares what it gets with what was asked for.
func (c *Client) Sign(ctx context.Context, held *HeldKey, items []*renew.Item, keys []crypto.PublicKey) ([]*x509.Certificate, error) {
	q := &SignRequest{Certificate: items[0].Issuer, Key: held.Place}
	for j, i := range items {
		w, err := wantedOf(i.Template(), keys[j])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", i.ID(), err)
		}
		q.Wanted = append(q.Wanted, w)
	}
	a, err := c.ask(ctx, Request{Sign: q})
	if err != nil {
		return nil, err
	}
	signed, err := certificatesOf(a.Certificates)
	if err != nil || len(signed) != len(items) {
		return nil, fmt.Errorf("%s: %d certificates for %d requests: %w", c.Name, len(signed), len(items), err)
	}
	for j, i := range items {
		if err := checkSigned(i, keys[j], signed[j]); err != nil {
			return nil, fmt.Errorf("%s: what %s signed: %w", i.ID(), c.Name, err)
		}
	}
	return signed, nil
}

// checkSigned compares a certificate with what was asked for.
func checkSigned(i *renew.Item, public crypto.PublicKey, c *x509.Certificate) error {
	if err := issue.CheckAnswer(i.Template(), public, c); err != nil {
		return err
	}
	if by := i.Authority().Certificate; by == nil || !trust.SignedBy(c, by) {
		return errors.New("it is not of the authority that was asked")
	}
	return nil
}

// Written is what a node wrote.
type Written struct {
	Backup   string // folder, as on the node; empty where nothing was replaced
	Warnings []string
}

// Write brings the chains, the leaf first, for the keys of the last Keys, and has all
// files written. After a [CutError] or a [SlowError] nobody knows whether they were.
func (c *Client) Write(ctx context.Context, when time.Time, chains [][]*x509.Certificate) (*Written, error) {
	q := &WriteRequest{At: when}
	for _, chain := range chains {
		q.Chains = append(q.Chains, derOf(chain))
	}
	a, err := c.ask(ctx, Request{Write: q})
	if err != nil {
		return nil, err
	}
	return &Written{bounded(a.Backup), few(a.Warnings)}, nil
}

// bounded is a text of a node, no longer than people read.
func bounded(text string) string { return text[:min(len(text), maxSaid)] }

// few are texts of a node, no more than people read.
func few(all []string) []string {
	var texts []string
	for _, t := range all[:min(len(all), 50)] {
		texts = append(texts, bounded(t))
	}
	return texts
}

// Undo takes the last Write back, and returns the files that stay, for they were not
// there before.
func (c *Client) Undo(ctx context.Context) ([]string, error) {
	a, err := c.ask(ctx, Request{Undo: &UndoRequest{}})
	if err != nil {
		return nil, err
	}
	return few(a.Stay), nil
}

// HeldKey is a key that stands on another node, of which only the public half is here.
type HeldKey struct {
	Place trust.Place
	Half  crypto.PublicKey
}

// Public returns the public half.
func (k *HeldKey) Public() crypto.PublicKey { return k.Half }

// Sign refuses: whoever wants a signature asks the node for a certificate.
func (k *HeldKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, fmt.Errorf("the key in %s stays there", k.Place)
}
