package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/remote"
	"github.com/kubepki/kubepki/internal/report"
)

// sshUndo brings back, on nodes that are reached over SSH, what a renewal replaced.
type sshUndo struct {
	*renewOptions
	s     streams
	nodes []*remote.FarNode
	back  map[string]*remote.Back // what is planned, and then what was done; by node
	state map[string]remote.State
}

// undoOverSSH plans on all nodes before the first is changed, and stops at the first
// that fails: control planes one after the other, then workers.
func (o *renewOptions) undoOverSSH(c *cobra.Command, s streams) error {
	if err := o.ssh.parse(s, nil); err != nil {
		return err
	}
	login, err := o.ssh.login()
	if err != nil {
		return err
	}
	ctx := c.Context()
	far, down, err := login.far(ctx, s, !o.dryRun)
	if err != nil {
		return err
	}
	defer func() {
		for _, n := range far {
			n.Client.Close()
		}
	}()
	u := &sshUndo{renewOptions: o, s: s, back: map[string]*remote.Back{}, state: map[string]remote.State{}}
	if err := u.planBack(ctx, far); err != nil {
		return err
	}
	if !o.dryRun {
		if err := cmp.Or(o.confirm(s), ctx.Err()); err != nil {
			return err
		}
		err = u.bringBack(ctx)
	}
	return cmp.Or(u.answer(), u.verdict(c, down, err))
}

func (u *sshUndo) planBack(ctx context.Context, far []*remote.FarNode) error {
	at := clock().UTC()
	var rows [][]string
	slices.SortStableFunc(far, byPlane)
	for _, n := range far {
		if len(u.ssh.nodes) > 0 && !slices.Contains(u.ssh.nodes, n.Name) {
			continue
		}
		b, err := n.Client.PlanBack(ctx, u.kept.undo, u.force, at)
		if err != nil {
			return err
		}
		if b.Undoes == "" {
			fmt.Fprintf(u.s.err, "%s: no backup %q is kept there\n", n.Name, u.kept.undo)
			continue
		}
		u.nodes, u.back[n.Name] = append(u.nodes, n), b
		for _, f := range b.Files {
			rows = append(rows, []string{report.Plain(n.Name + ":" + f.Path), report.Plain(f.Action), report.Plain(b.Undoes)})
		}
		for _, w := range b.Warnings {
			fmt.Fprintf(u.s.err, "kubepki: warning: %s: %s\n", n.Name, report.Plain(w))
		}
	}
	if len(u.nodes) == 0 {
		return advise(fmt.Errorf("no backup %q is kept on these nodes", u.kept.undo), "kubepki renew --backups, on a node, lists what is kept there")
	}
	if err := report.Table(u.s.err, []string{"FILE", "IS", "UNDOES"}, rows); err != nil {
		return err
	}
	fmt.Fprintln(u.s.err, "whatever took the new files up goes on with them until it takes up the old ones: kubepki verify --live tells")
	return nil
}

func (u *sshUndo) bringBack(ctx context.Context) error {
	for _, n := range u.nodes {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := n.Client.BringBack(context.WithoutCancel(ctx))
		var said *remote.FarError
		switch {
		case err == nil:
			u.state[n.Name], u.back[n.Name] = remote.Done, b
			fmt.Fprintf(u.s.err, "%s: what stood there is kept as %s: kubepki renew --undo brings it back\n", n.Name, report.Plain(path.Base(b.Backup)))
			continue
		case errors.As(err, &said):
			u.state[n.Name] = remote.Same
		default:
			u.state[n.Name] = remote.Unknown
		}
		return err
	}
	return nil
}

// verdict tells what is done and what not. Where it is not known nothing is to be
// undone again: that would undo the undo.
func (u *sshUndo) verdict(c *cobra.Command, down []string, err error) error {
	if err == nil && len(down) == 0 {
		return nil
	}
	if err == nil {
		err = errors.New("not all nodes could be reached")
	}
	of := map[remote.State][]string{}
	again := slices.Clone(down)
	for _, n := range u.nodes {
		state := cmp.Or(u.state[n.Name], "not begun")
		of[state] = append(of[state], n.Name)
		if state != remote.Done && state != remote.Unknown {
			again = append(again, n.Name)
		}
	}
	of["down"] = down
	for _, p := range []struct {
		state remote.State
		what  string
	}{{remote.Done, "undone"}, {remote.Same, "failed and unchanged"}, {remote.Unknown, "not known"}, {"not begun", "not begun"}, {"down", "down"}} {
		if len(of[p.state]) > 0 {
			err = fmt.Errorf("%w; %s: %s", err, p.what, strings.Join(of[p.state], ", "))
		}
	}
	for _, name := range of[remote.Unknown] {
		err = advise(err, "see on %s before you undo anything there again: kubepki renew --backups", name)
	}
	if len(again) == 0 {
		return err
	}
	return advise(err, "mend that, and go on with what is left: %s", goOn(c, nil, again))
}

// undoneNode is a node in the machine output of an undo over SSH.
type undoneNode struct {
	Name   string       `json:"name"`
	State  string       `json:"state"` // done, same, unknown, left (not begun), planned
	Undoes string       `json:"undoes"`
	Backup string       `json:"backup"`
	Files  []undoneFile `json:"files"`
}

func (u *sshUndo) answer() error {
	nodes := []undoneNode{}
	for _, n := range u.nodes {
		b := u.back[n.Name]
		v := undoneNode{Name: n.Name, State: cmp.Or(string(u.state[n.Name]), "left"), Undoes: b.Undoes, Backup: path.Base(b.Backup), Files: []undoneFile{}}
		did := "is undone"
		if u.dryRun {
			v.State, did = "planned", "would be undone"
		}
		for _, f := range b.Files {
			v.Files = append(v.Files, undoneFile{Node: n.Name, Path: f.Path, Action: f.Action})
		}
		nodes = append(nodes, v)
		if v.State != string(remote.Done) && !u.dryRun {
			continue
		}
		var lines []string
		switch u.output {
		case "table":
			lines = []string{fmt.Sprintf("%s: %s %s: %s", n.Name, b.Undoes, did, counted(len(b.Files), "file"))}
		case "name":
			for _, f := range b.Files {
				lines = append(lines, n.Name+":"+f.Path)
			}
		}
		for _, line := range lines {
			if _, err := fmt.Fprintln(u.s.out, report.Plain(line)); err != nil {
				return err
			}
		}
	}
	if u.output == "table" || u.output == "name" {
		return nil
	}
	return report.Document(u.s.out, u.output, struct {
		APIVersion string       `json:"apiVersion"`
		Kind       string       `json:"kind"`
		DryRun     bool         `json:"dryRun"`
		Nodes      []undoneNode `json:"nodes"`
	}{report.APIVersion, "RenewalUndo", u.dryRun, nodes})
}
