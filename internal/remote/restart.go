package remote

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kubepki/kubepki/internal/renew"
)

// Restarter restarts what runs on the machine of a [Server]. Its methods are called one
// at a time.
type Restarter interface {
	// Begin keeps other restarts of the machine away until the function is called that
	// it returns, and brings back what an interrupted one left, of which it tells.
	Begin() (end func(), said []string, err error)
	// Plan returns the components that take changed files up by a restart alone, in the
	// order in which they are to be restarted.
	Plan(ctx context.Context, node string, files []string, o RestartOptions) ([]Restart, error)
	// Restart restarts one component of the last plan, and returns when it is proved.
	Restart(ctx context.Context, component string, o RestartOptions) (*Restarted, error)
}

// RestartOptions are how components are restarted.
type RestartOptions struct {
	By      string        `json:"by,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"` // of one, with its proof, in nanoseconds
}

// Restart is a component that is to be restarted.
type Restart struct {
	Component string   `json:"component"`
	Of        string   `json:"of"` // manifest, unit or process
	Why       []string `json:"why"`
	// Cannot is why there is no way to, empty where there is one.
	Cannot string `json:"cannot,omitempty"`
}

// Restarted is one that was restarted and proved.
type Restarted struct {
	How  string        `json:"how"`
	Took time.Duration `json:"took"` // until it was proved, in nanoseconds
	Said []string      `json:"said,omitempty"`
}

// RestartsRequest asks which components are to be restarted for changed files.
type RestartsRequest struct {
	Files []string `json:"files"`
	RestartOptions
}

// RestartRequest has one of them restarted.
type RestartRequest struct {
	Component string `json:"component"`
	RestartOptions
}

// maxRestarts bounds the components of a node.
const maxRestarts = 100

// Restarts asks which components of the node take the files of items up by a restart
// alone, in order.
func (c *Client) Restarts(ctx context.Context, items []*renew.Item, o RestartOptions) ([]Restart, error) {
	q := &RestartsRequest{RestartOptions: o}
	for _, i := range items {
		q.Files = append(q.Files, i.Files()...)
	}
	a, err := c.ask(ctx, Request{Restarts: q})
	if err != nil {
		return nil, err
	}
	if len(a.Restarts) > maxRestarts {
		return nil, fmt.Errorf("%s: it tells of more than %d components", c.Name, maxRestarts)
	}
	for i := range a.Restarts {
		r := &a.Restarts[i]
		r.Component, r.Of, r.Why, r.Cannot = bounded(r.Component), bounded(r.Of), few(r.Why), bounded(r.Cannot)
	}
	return a.Restarts, nil
}

// Restart has one component of the last [Client.Restarts] restarted, and waits until
// the node has proved it. After a [CutError] or a [SlowError] nobody knows how that
// ended; the node goes on with it by itself.
func (c *Client) Restart(ctx context.Context, component string, o RestartOptions) (*Restarted, error) {
	a, err := c.askFor(ctx, Request{Restart: &RestartRequest{component, o}}, c.Patience+o.Timeout)
	switch {
	case err != nil:
		return nil, err
	case a.Restarted == nil:
		return nil, fmt.Errorf("%s: the answer does not tell how %s was restarted", c.Name, component)
	}
	a.Restarted.How, a.Restarted.Said = bounded(a.Restarted.How), few(a.Restarted.Said)
	return a.Restarted, nil
}

// lockRestarts keeps other restarts away, once.
func (n *node) lockRestarts() ([]string, error) {
	if n.restarter == nil {
		return nil, errors.New("nothing is restarted from here")
	}
	if n.unlock != nil {
		return nil, nil
	}
	end, said, err := n.restarter.Begin()
	if err == nil {
		n.unlock = end
	}
	return said, err
}

func (n *node) restarts(ctx context.Context, q *RestartsRequest) (*Answer, error) {
	if n.restarter == nil {
		return nil, errors.New("nothing is restarted from here")
	}
	all, err := n.restarter.Plan(ctx, n.name, q.Files, q.RestartOptions)
	return &Answer{Restarts: all}, err
}

func (n *node) restart(ctx context.Context, q *RestartRequest) (*Answer, error) {
	if n.unlock == nil {
		return nil, errors.New("other restarts were not kept away")
	}
	done, err := n.restarter.Restart(ctx, q.Component, q.RestartOptions)
	return &Answer{Restarted: done}, err
}
