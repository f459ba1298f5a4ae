package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/remote"
	"github.com/kubepki/kubepki/internal/report"
)

// restartOptions are how components of nodes elsewhere are restarted.
func (o *renewRestart) options() remote.RestartOptions {
	return remote.RestartOptions{By: o.by, Timeout: o.timeout}
}

// planRestarts asks each node what takes its new files up by a restart alone.
func (r *sshRun) planRestarts(ctx context.Context) error {
	if r.restart.on && len(r.items) > 0 {
		return usagef("--restart: %s is a folder here: reach the node by --ssh too, or leave it out with --nodes", strings.Join(r.localNames(), ", "))
	}
	type result struct {
		all []remote.Restart
		err error
	}
	var errs []error
	for i, got := range apply.AtOnce(r.order, max(r.ssh.parallel, 16), func(n *remote.FarNode) result {
		all, err := n.Client.Restarts(ctx, n.Items, r.restart.options())
		return result{all, err}
	}) {
		errs = append(errs, got.err)
		r.restarts[r.order[i].Name] = got.all
	}
	return errors.Join(errs...)
}

// printRestarts shows them on stderr, in their order.
func (r *sshRun) printRestarts() error {
	var rows [][]string
	for _, n := range r.order {
		for _, t := range r.restarts[n.Name] {
			rows = append(rows, []string{report.Plain(n.Name + "/" + t.Component), report.Plain(t.Of), report.Plain(strings.Join(t.Why, "; "))})
			if t.Cannot != "" && r.restart.on {
				r.warn(fmt.Sprintf("%s/%s is to be restarted, and cannot be from here: %s", n.Name, t.Component, t.Cannot))
			}
		}
	}
	what := "TO BE RESTARTED"
	switch {
	case r.restart.on && len(rows) == 0:
		fmt.Fprintln(r.s.err, "nothing is to be restarted: what reads these files takes them up by itself")
		return nil
	case len(rows) == 0:
		return nil
	case r.restart.on:
		what = "RESTART"
	}
	return report.Table(r.s.err, []string{what, "OF", "WHY"}, rows)
}

// restartOne restarts the components of a node whose files are written, one after the
// other. What is begun is ended; none is begun once another node has failed.
func (r *sshRun) restartOne(ctx context.Context, n *remote.FarNode, result *nodeResult) error {
	begun := context.WithoutCancel(ctx)
	all, err := n.Client.Restarts(begun, n.Items, r.restart.options()) // anew: the connection may be
	if err != nil {
		result.left = r.restarts[n.Name]
		return fmt.Errorf("%w; nothing was restarted there", err)
	}
	for k, t := range all {
		id := n.Name + "/" + t.Component
		switch {
		case t.Cannot != "":
			result.left = append(result.left, t)
			continue
		case r.stopped(ctx):
			result.left = append(result.left, all[k:]...)
			return nil
		}
		r.talk("restarting %s: at most %s", id, r.restart.timeout)
		done, err := n.Client.Restart(begun, t.Component, r.restart.options())
		if err != nil {
			result.failed, result.left = &remote.Restart{Component: t.Component, Of: t.Of, Why: t.Why, Cannot: oneLine(err)}, append(result.left, all[k:]...)
			if !errors.As(err, new(*remote.FarError)) {
				return fmt.Errorf("%s: whether it came back is not known: %w", id, err)
			}
			return err
		}
		for _, said := range done.Said {
			r.talk("%s: %s", n.Name, said)
		}
		result.restarted = append(result.restarted, restartedThere{t, done})
		r.talk("%s restarted and proved after %s: %s", id, done.Took.Round(100*time.Millisecond), done.How)
	}
	return nil
}

// restartedThere is a component that was restarted on a node.
type restartedThere struct {
	remote.Restart
	done *remote.Restarted
}

// talk says a line on stderr, one at a time.
func (r *sshRun) talk(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintln(r.s.err, report.Plain(fmt.Sprintf(format, args...)))
}

// stopped tells that nothing more is begun.
func (r *sshRun) stopped(ctx context.Context) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.failures) > 0 || ctx.Err() != nil
}

// byHand are the commands that restart what is left on a node that is written.
func (r *sshRun) byHand() []string {
	var all []string
	for _, n := range r.order {
		result := r.results[n.Name]
		if result == nil || result.outcome.State != remote.Done {
			continue
		}
		left := r.restarts[n.Name]
		if r.restart.on {
			left = result.left
		}
		left = slices.DeleteFunc(slices.Clone(left), func(t remote.Restart) bool { return r.restart.on && t.Cannot != "" }) // nor can it be there
		if len(left) > 0 {
			all = append(all, "on "+n.Name+": sudo kubepki node restart "+strings.Join(componentsOf(left), " "))
		}
	}
	return all
}

func componentsOf(all []remote.Restart) []string {
	var names []string
	for _, t := range all {
		names = append(names, report.Plain(t.Component))
	}
	return names
}

// notRestarted are the nodes that go on with old files though --restart was given.
func (r *sshRun) notRestarted() []string {
	var nodes []string
	for _, n := range r.order {
		if result := r.results[n.Name]; r.restart.on && result != nil && result.outcome.State == remote.Done && len(result.left) > 0 {
			nodes = append(nodes, n.Name+" ("+strings.Join(componentsOf(result.left), ", ")+")")
		}
	}
	return nodes
}

// addRestarts adds to a node in machine output what was and is to be restarted there.
func (n *renewedNode) addRestarts(planned []remote.Restart, result *nodeResult, on bool) {
	process := func(t *remote.Restart) restartedProcess {
		return restartedProcess{ID: n.Name + "/" + t.Component, Of: t.Of, Why: append([]string{}, t.Why...), Error: t.Cannot}
	}
	if on && result != nil && result.outcome.State == remote.Done {
		planned = result.left
	}
	if result != nil {
		for _, d := range result.restarted {
			p := process(&d.Restart)
			p.How, p.Seconds = d.done.How, d.done.Took.Seconds()
			n.Restarted = append(n.Restarted, p)
		}
	}
	for i := range planned {
		p := process(&planned[i])
		if result != nil && result.failed != nil && result.failed.Component == planned[i].Component {
			p.Error = result.failed.Cannot
		}
		n.ToRestart = append(n.ToRestart, p)
	}
}
