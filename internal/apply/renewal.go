package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
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

	linked  bool     // a symbolic link is on the way to it
	current bool     // it is, or shall be, a kubelet's link to the newest of its files
	then    contents // what Data is to the rules, as far as it was read
}

// Renewal is what was made of a plan, in memory, ready to be written.
type Renewal struct {
	At    time.Time
	Items []*Renewed
	Files []*File
	// Answered are the keys and requests that waited for these certificates: they go in
	// the transaction that puts the certificates in place.
	Answered []*Pending
	Backup   string   // the folder, as on the nodes, for what is replaced
	Undoes   string   // the name of the backup that is brought back; empty: nothing is
	By       string   // [ByAgent], or empty: a person
	Warnings []string // what will be wrong that is not now, and what stays wrong
	// Breaks are the errors that there will be and that are not now: a program that
	// nobody watches does not go on then.
	Breaks []check.Finding

	early *early // what is staged already; nil: nothing is
}

// Make makes keys on all cores, has the certificates issued, and judges in memory
// what the nodes will be with them. before is the verdict on the nodes as they are.
// Nothing is written. An error names the item.
func Make(ctx context.Context, n *Nodes, items []*renew.Item, before *check.Result, at time.Time) (*Renewal, error) {
	return makeAll(ctx, n, items, before, at, func(int, prepared) {})
}

// makeAll calls each once for each item, from several goroutines.
func makeAll(ctx context.Context, n *Nodes, items []*renew.Item, before *check.Result, at time.Time, each func(int, prepared)) (*Renewal, error) {
	t := newTakeups(n)
	indexes := make([]int, len(items))
	for i := range indexes {
		indexes[i] = i
	}
	made := AtOnce(indexes, runtime.GOMAXPROCS(0), func(i int) prepared {
		p := makeOne(ctx, t, items[i])
		each(i, p)
		return p
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return assemble(n, made, before, at)
}

func makeOne(ctx context.Context, t *takeups, i *renew.Item) prepared {
	if ctx.Err() != nil {
		return prepared{Renewed: &Renewed{Item: i}, err: ctx.Err()}
	}
	made, err := i.Make(ctx)
	if err != nil {
		return prepared{Renewed: &Renewed{Item: i}, err: fmt.Errorf("%s: %w", i.ID(), err)}
	}
	return prepare(t, &Renewed{Item: i, Made: made})
}

// Assemble is [Make] for items whose keys and certificates are there already. It sets
// who takes them up.
func Assemble(n *Nodes, made []*Renewed, before *check.Result, at time.Time) (*Renewal, error) {
	t := newTakeups(n)
	return assemble(n, AtOnce(made, runtime.GOMAXPROCS(0), func(r *Renewed) prepared { return prepare(t, r) }), before, at)
}

// prepared is an item with the files that it changes. The error names the item.
type prepared struct {
	*Renewed
	files []*File
	err   error
}

// prepare does for one item what can be done while keys are made for others.
func prepare(t *takeups, r *Renewed) prepared {
	r.TakeUp = t.readers(r.Item)
	files, err := filesMade(t.Nodes, r)
	for _, f := range files {
		for i := range t.Nodes.Nodes {
			if t.Nodes.Nodes[i].Name == f.Place.Node {
				f.read(&t.Nodes.Nodes[i])
			}
		}
	}
	return prepared{r, files, err}
}

func assemble(n *Nodes, made []prepared, before *check.Result, at time.Time) (*Renewal, error) {
	r := &Renewal{At: at, Backup: backupFolder(at)}
	var errs []error
	for _, p := range made {
		r.Items = append(r.Items, p.Renewed)
		errs = append(errs, p.err)
	}
	err := errors.Join(errs...)
	if err != nil {
		return nil, err
	}
	if r.Files, err = filesOnce(made); err != nil {
		return nil, err
	}
	r.Warnings, r.Breaks = afterwards(n, r.Files, before, at)
	return r, nil
}
