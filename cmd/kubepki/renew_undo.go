package main

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// renewUndoFlags are about what earlier renewals have kept.
type renewUndoFlags struct {
	undo    string
	backups bool
}

func (f *renewUndoFlags) add(flags *pflag.FlagSet, force *bool) {
	flags.StringVar(&f.undo, "undo", "", "bring back what a renewal replaced, by the TIME that --backups lists, or latest")
	flags.Lookup("undo").NoOptDefVal = apply.Latest
	flags.BoolVar(&f.backups, "backups", false, "list what is kept of earlier renewals")
	flags.BoolVar(force, "force", false, "with --undo: even where files were changed since; with --due: even where something would be wrong then that is right now")
}

func (f *renewUndoFlags) given() bool { return f.undo != "" || f.backups }

// time takes the argument behind --undo for the backup that is meant: a flag whose value
// may be left out takes it by = alone.
func (f *renewUndoFlags) time(args []string) []string {
	if f.undo == apply.Latest && len(args) == 1 && apply.IsBackupName(args[0]) {
		f.undo = args[0]
		return nil
	}
	return args
}

// check refuses flags that do not go together.
func (f *renewUndoFlags) check(o *renewOptions, ids []string) error {
	switch {
	case f.undo != "" && f.backups:
		return usagef("--undo: does not go with --backups")
	case f.given() && (len(ids) > 0 || o.all || o.plan.due):
		return usagef("--undo and --backups are about whole renewals: they take the TIME of one, as kubepki renew --backups lists them, and no credential")
	case o.force && f.undo == "" && !o.plan.due:
		return usagef("--force: goes with --undo or --due")
	}
	return o.checkOutput("table", "json", "yaml", "name")
}

// backupItem is a backup in machine output.
type backupItem struct {
	Node   string     `json:"node,omitempty"`
	Name   string     `json:"name"`
	Folder string     `json:"folder"`
	Time   *time.Time `json:"time,omitempty"`
	Undoes string     `json:"undoes,omitempty"`
	Items  []string   `json:"items"`
	Files  []string   `json:"files"`
	Reason string     `json:"reason,omitempty"` // why it cannot be brought back
}

// list prints what is kept.
func (f *renewUndoFlags) list(o *renewOptions, s streams) error {
	n, err := readTrustNodes(o.roots, o.layout)
	if err != nil {
		return err
	}
	all, err := apply.Backups(n.Nodes)
	if err != nil {
		return err
	}
	items := []backupItem{}
	var rows [][]string
	for _, b := range all {
		i := backupItem{Node: b.Node, Name: b.Name, Folder: filepath.Join(n.Dirs[b.Node], apply.BackupsDir, b.Name), Items: []string{}, Files: []string{}, Reason: b.Reason}
		what := "cannot be brought back: " + b.Reason
		if m := b.Manifest; m != nil {
			i.Time, i.Undoes, i.Items = &m.Time, m.Undoes, m.Items
			for _, file := range m.Files {
				i.Files = append(i.Files, file.Path)
			}
			what = cmp.Or(strings.Join(m.Items, ", "), "undo of "+m.Undoes)
		}
		items = append(items, i)
		rows = append(rows, []string{i.Name, report.Plain(cmp.Or(b.Node, "-")), fmt.Sprint(len(i.Files)), report.Plain(what)})
	}
	switch o.output {
	case "table":
		if len(rows) == 0 {
			fmt.Fprintf(s.err, "nothing is kept below %s\n", apply.BackupsDir)
			return nil
		}
		return report.Table(s.out, []string{"TIME", "NODE", "FILES", "RENEWED"}, rows)
	case "name":
		for _, i := range items {
			if _, err := fmt.Fprintln(s.out, i.Name); err != nil {
				return err
			}
		}
		return nil
	}
	return report.Document(s.out, o.output, struct {
		APIVersion string       `json:"apiVersion"`
		Kind       string       `json:"kind"`
		Items      []backupItem `json:"items"`
	}{report.APIVersion, "RenewalBackups", items})
}

// undoneFile is a file in the machine output of an undo.
type undoneFile struct {
	Node   string `json:"node,omitempty"`
	Path   string `json:"path"`
	Action string `json:"action"` // restored, removed, made or led
}

// run brings a backup back.
func (f *renewUndoFlags) run(ctx context.Context, o *renewOptions, s streams) error {
	n, err := readMendedNodes(s, o.roots, o.layout, o.dryRun)
	if err != nil {
		return err
	}
	at := clock()
	r, err := apply.Undo(n.Nodes, f.undo, o.force, check.Run(n.Graph, check.Options{At: at}), at)
	if err != nil {
		return err
	}
	files := []undoneFile{}
	var rows [][]string
	for _, file := range r.Files {
		u := undoneFile{Node: file.Place.Node, Path: file.Place.Path, Action: file.Action()}
		files = append(files, u)
		rows = append(rows, []string{report.Plain(file.Place.String()), u.Action})
	}
	if err := report.Table(s.err, []string{"FILE", "IS"}, rows); err != nil {
		return err
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(s.err, "kubepki: warning: %s\n", report.Plain(w))
	}
	fmt.Fprintln(s.err, "whatever took the new files up goes on with them until it takes up the old ones: kubepki verify --live tells")
	if !o.dryRun {
		if err := cmp.Or(o.confirm(s), ctx.Err()); err != nil {
			return err
		}
		if err := writeRenewal(s, n, r); err != nil {
			return err
		}
		fmt.Fprintf(s.err, "what stood there is kept as %s: kubepki renew --undo brings it back\n", path.Base(r.Backup))
	}
	return o.answerUndo(s, r, files)
}

func (o *renewOptions) answerUndo(s streams, r *apply.Renewal, files []undoneFile) error {
	switch o.output {
	case "table":
		did := "is undone"
		if o.dryRun {
			did = "would be undone"
		}
		_, err := fmt.Fprintf(s.out, "%s %s: %s\n", r.Undoes, did, counted(len(files), "file"))
		return err
	case "name":
		for _, f := range files {
			if _, err := fmt.Fprintln(s.out, report.Plain(trust.Place{Node: f.Node, Path: f.Path}.String())); err != nil {
				return err
			}
		}
		return nil
	}
	return report.Document(s.out, o.output, struct {
		APIVersion string       `json:"apiVersion"`
		Kind       string       `json:"kind"`
		DryRun     bool         `json:"dryRun"`
		Undoes     string       `json:"undoes"`
		Backup     string       `json:"backup"`
		Warnings   []string     `json:"warnings"`
		Files      []undoneFile `json:"files"`
	}{report.APIVersion, "RenewalUndo", o.dryRun, r.Undoes, path.Base(r.Backup), append([]string{}, r.Warnings...), files})
}
