package apply

import (
	"fmt"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/renew"
)

// TakesUp says which components of the nodes read an item, and when they take it up.
func (n *Nodes) TakesUp(i *renew.Item) []string { return newTakeups(n).readers(i) }

// Finish makes a renewal of keys that were made here and certificates that were issued
// elsewhere. Who issued them judges them too. Nothing is written.
func Finish(n *Nodes, items []*Renewed, at time.Time) (*Renewal, error) {
	files, err := filesOf(n, items)
	if err != nil {
		return nil, err
	}
	return &Renewal{At: at, Items: items, Files: files, Backup: backupFolder(at)}, nil
}

// TakeBack puts back what [Renewal.Write] replaced, in one transaction per node. Files
// that were not there before stay, and are returned: nobody names them any more.
func (r *Renewal) TakeBack(n *Nodes) (stay []string, err error) {
	for node, dir := range n.Dirs {
		ofNode := slices.DeleteFunc(slices.Clone(r.Files), func(f *File) bool { return f.Place.Node != node })
		if len(ofNode) == 0 {
			continue
		}
		left, err := takeBack(dir, ofNode)
		if err != nil {
			return nil, fmt.Errorf("putting back what was replaced: %w", err)
		}
		stay = append(stay, left...)
	}
	return stay, nil
}

func takeBack(dir string, files []*File) (stay []string, err error) {
	tx, err := layout.Begin(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	for _, f := range files {
		if f.Old == nil {
			stay = append(stay, f.Place.Path)
			continue
		}
		if err := tx.Replace(f.Place.Path, f.Data, f.Old); err != nil {
			return nil, err
		}
	}
	return stay, tx.Commit()
}
