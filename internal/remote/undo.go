package remote

import (
	"context"
	"errors"
	"time"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/check"
)

// BackupRequest asks what bringing a backup back would change, or has it done.
type BackupRequest struct {
	Name  string    `json:"name"` // as apply.Undo takes it
	Force bool      `json:"force,omitempty"`
	At    time.Time `json:"at"`
	// Do writes what the last one planned.
	Do bool `json:"do,omitempty"`
}

// Back is what bringing a backup back changes on a node.
type Back struct {
	Undoes   string     `json:"undoes"` // the backup; empty where the node has none of that name
	Files    []BackFile `json:"files,omitempty"`
	Backup   string     `json:"backup"` // folder of what stands there now
	Warnings []string   `json:"warnings,omitempty"`
}

// BackFile is one file of it.
type BackFile struct {
	Path   string `json:"path"`
	Action string `json:"action"` // restored, removed, made or led
}

// PlanBack asks what bringing a backup of an earlier renewal back would change, by its
// name or [apply.Latest]; the node is read already.
func (c *Client) PlanBack(ctx context.Context, name string, force bool, at time.Time) (*Back, error) {
	return c.back(ctx, &BackupRequest{Name: name, Force: force, At: at})
}

// BringBack does what the last [Client.PlanBack] told, in one transaction. After a
// [CutError] or a [SlowError] nobody knows whether it did.
func (c *Client) BringBack(ctx context.Context) (*Back, error) {
	return c.back(ctx, &BackupRequest{Do: true})
}

func (c *Client) back(ctx context.Context, q *BackupRequest) (*Back, error) {
	a, err := c.ask(ctx, Request{Back: q})
	if err != nil {
		return nil, err
	}
	b := a.Back
	if b == nil || len(b.Files) > MaxMaterials {
		return nil, errors.New(c.Name + ": the answer does not tell what is brought back")
	}
	b.Undoes, b.Backup, b.Warnings = bounded(b.Undoes), bounded(b.Backup), few(b.Warnings)
	for i := range b.Files {
		b.Files[i].Path, b.Files[i].Action = bounded(b.Files[i].Path), bounded(b.Files[i].Action)
	}
	return b, nil
}

// back plans it, or does what was planned.
func (n *node) back(q *BackupRequest) (*Answer, error) {
	r := n.bringing
	n.bringing = nil
	switch {
	case q.Do && r == nil:
		return nil, errors.New("nothing was planned to be brought back")
	case q.Do:
		if err := r.Write(n.read); err != nil {
			return nil, err
		}
	default:
		var err error
		r, err = apply.Undo(n.read, q.Name, q.Force, check.Run(n.read.Graph, check.Options{At: q.At}), q.At)
		if errors.As(err, new(*apply.NoBackupError)) {
			return &Answer{Back: &Back{}}, nil
		}
		if err != nil {
			return nil, err
		}
		n.bringing = r
	}
	b := &Back{Undoes: r.Undoes, Backup: r.Backup, Warnings: r.Warnings}
	for _, f := range r.Files {
		b.Files = append(b.Files, BackFile{f.Place.Path, f.Action()})
	}
	return &Answer{Back: b}, nil
}
