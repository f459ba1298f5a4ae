package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// Renewed is one item with what was made of it.
type Renewed struct {
	*renew.Item
	Made   renew.Made
	TakeUp []string // which components read it, and when they take it up
}

// File is one file of a node with what it shall hold.
type File struct {
	Place   trust.Place
	Old     []byte // nil: it is not there
	Data    []byte // nil: it is removed
	Private bool
	Mode    fs.FileMode // of Old, or for a file that is not there; 0: by Private
	// Link and OldLink are of a symbolic link that is led elsewhere: where it shall
	// lead, which is a file that is there or another of these, and where it leads.
	// Old and Data are what is read through it.
	Link, OldLink string

	linked  bool // a symbolic link is on the way to it
	current bool // it is, or shall be, a kubelet's link to the newest of its files
}

// Renewal is what was made of a plan, in memory, ready to be written.
type Renewal struct {
	At       time.Time
	Items    []*Renewed
	Files    []*File
	Backup   string   // the folder, as on the nodes, for what is replaced
	Undoes   string   // the name of the backup that is brought back; empty: nothing is
	By       string   // [ByAgent], or empty: a person
	Warnings []string // what will be wrong that is not now, and what stays wrong
	// Breaks are the errors that there will be and that are not now: a program that
	// nobody watches does not go on then.
	Breaks []check.Finding
}

// Make makes keys on all cores, has the certificates issued, and judges in memory
// what the nodes will be with them. before is the verdict on the nodes as they are.
// Nothing is written. An error names the item.
func Make(ctx context.Context, n *Nodes, items []*renew.Item, before *check.Result, at time.Time) (*Renewal, error) {
	made, err := makeAll(ctx, items)
	if err != nil {
		return nil, err
	}
	return Assemble(n, made, before, at)
}

// Assemble is [Make] for items whose keys and certificates are there already. It sets
// who takes them up.
func Assemble(n *Nodes, made []*Renewed, before *check.Result, at time.Time) (*Renewal, error) {
	r := &Renewal{At: at, Items: made, Backup: backupFolder(at)}
	for _, i := range made {
		i.TakeUp = n.takesUp(i.Item)
	}
	var err error
	if r.Files, err = filesOf(n, made); err != nil {
		return nil, err
	}
	r.Warnings, r.Breaks = afterwards(n, r.Files, before, at)
	return r, nil
}

func makeAll(ctx context.Context, items []*renew.Item) ([]*Renewed, error) {
	type result struct {
		*Renewed
		err error
	}
	var all []*Renewed
	var errs []error
	for _, r := range onAllCores(items, func(i *renew.Item) result {
		if ctx.Err() != nil {
			return result{&Renewed{Item: i}, ctx.Err()}
		}
		made, err := i.Make(ctx)
		return result{&Renewed{Item: i, Made: made}, err}
	}) {
		if r.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.ID(), r.err))
			continue
		}
		all = append(all, r.Renewed)
	}
	return all, cmp.Or(ctx.Err(), errors.Join(errs...))
}
