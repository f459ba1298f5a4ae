package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/renew"
)

// MakeStaged is [Make] for who will write at once and without a question: what is made
// is staged under temporary names, and made durable, while keys are still searched for
// the rest and while all is judged. Nothing has its name before [Renewal.Write], which
// does the rest; who does not write calls [Renewal.Drop]. The node is locked until then.
// On an error nothing is left on the disk. Killed, the next run removes what there is.
//
// It stages early for one node alone. What it cannot stage early is an error of Write,
// which tries again.
func MakeStaged(ctx context.Context, n *Nodes, items []*renew.Item, before *check.Result, at time.Time) (*Renewal, error) {
	if len(n.Dirs) != 1 {
		return Make(ctx, n, items, before, at)
	}
	e := beginEarly(n, items, at)
	r, err := makeAll(ctx, n, items, before, at, e.made)
	staged := e.wait()
	switch {
	case err != nil:
		return nil, errors.Join(err, e.drop())
	case e.warning != "":
		r.Warnings = append(r.Warnings, e.warning)
	}
	if staged != nil {
		return r, e.drop() // the reason is what Write says
	}
	r.Backup, r.early = e.renewal.Backup, e
	return r, nil
}

// Drop takes back what was staged and not written. After Write it does nothing.
func (r *Renewal) Drop() error {
	if r.early == nil {
		return nil
	}
	return r.early.drop()
}

// early stages the files of a node in the order of the plan, each item as soon as it
// is made.
type early struct {
	nodes   *Nodes
	node    string
	renewal *Renewal // what it writes of it: backup and manifest
	ready   []chan prepared
	over    chan struct{}

	// Once over is closed:
	tx      *layout.Transaction // nil: not begun
	warning string
	err     error
}

func beginEarly(n *Nodes, items []*renew.Item, at time.Time) *early {
	e := &early{nodes: n, renewal: &Renewal{At: at, Backup: backupFolder(at)}, ready: make([]chan prepared, len(items)), over: make(chan struct{})}
	for node := range n.Dirs {
		e.node = node // the only one
	}
	for i := range e.ready {
		e.ready[i] = make(chan prepared, 1)
	}
	go e.run()
	return e
}

// made hands over an item. Each is handed over once, with its error where it has one.
func (e *early) made(i int, p prepared) { e.ready[i] <- p }

func (e *early) wait() error {
	<-e.over
	return e.err
}

func (e *early) drop() error {
	<-e.over
	if e.tx == nil {
		return nil
	}
	return e.tx.Rollback()
}

func (e *early) run() {
	defer close(e.over)
	var files []*File
	e.err = e.begin()
	for _, ready := range e.ready {
		p := <-ready
		if e.err = cmp.Or(e.err, p.err); e.err != nil {
			continue // the others are waited for, so that nobody waits for us
		}
		e.renewal.Items, files = append(e.renewal.Items, p.Renewed), append(files, p.files...)
		e.err = e.renewal.stageFiles(e.tx, p.files)
		e.tx.Flush()
	}
	if e.err == nil {
		e.err = e.renewal.stageManifest(e.tx, e.node, files)
	}
	if e.err == nil {
		e.err = e.tx.Durable()
	}
}

func (e *early) begin() (err error) {
	if err := e.renewal.ownBackup(e.nodes, map[string][]*File{e.node: nil}); err != nil {
		return err
	}
	if e.tx, e.warning, err = beginNode(e.nodes.Dirs[e.node]); err != nil {
		return err
	}
	return e.renewal.stageFolders(e.tx)
}

// beginNode begins a transaction on a node whose backups nobody else may read. The
// warning says that somebody could.
func beginNode(dir string) (tx *layout.Transaction, warning string, err error) {
	closed, err := closeBackups(dir)
	if err != nil {
		return nil, "", err
	}
	if closed {
		warning = fmt.Sprintf("others could read %s: it has mode 0700 now", filepath.Join(dir, BackupsDir))
	}
	tx, err = layout.Begin(dir)
	return tx, warning, err
}
