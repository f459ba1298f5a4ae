package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// processStale: a component runs with other flags than what configures it says
// now, or sees other files: it was not started again after a change. Serving
// tells whether those of its serving pair alone are asked for, or all else.
func (c *Case) processStale(serving bool) []Finding {
	var out []Finding
	for i := range c.Nodes {
		n := &c.Nodes[i]
		for j := range n.Components {
			p := &n.Components[j]
			flags, said := staleFlags(n, p)
			if len(flags) == 0 || onlyServing(p, flags) != serving {
				continue
			}
			f := Finding{Cause: said, Fix: restart(p), live: true, processes: []string{p.ID()}}
			var places []trust.Place
			for _, flag := range flags {
				places = append(places, p.Setting(flag))
			}
			out = append(out, c.withBreaks(f.at(places...), func(b Break) bool { return b.seen != nil && b.seen.Server.Component == p.ID() }))
		}
	}
	return out
}

// startedOtherwise tells whether the process of a component differs from what is
// written: what it presents and whom it trusts follows from that.
func (c *Case) startedOtherwise(component string) bool {
	for i := range c.Nodes {
		n := &c.Nodes[i]
		for j := range n.Components {
			if p := &n.Components[j]; p.ID() == component {
				flags, _ := staleFlags(n, p)
				return len(flags) > 0
			}
		}
	}
	return false
}

func onlyServing(p *trust.Component, flags []string) bool {
	return !slices.ContainsFunc(flags, func(flag string) bool { return !slices.Contains(catalog.ServingFlags(p.Name), flag) })
}

// staleFlags compares a component with the processes that run it. Where one of
// several is as it is written, that is the one.
func staleFlags(n *trust.Node, p *trust.Component) (flags []string, said string) {
	for i := range n.Processes {
		run := &n.Processes[i]
		if run.Component != p.Name {
			continue
		}
		differ, text := differences(p, run)
		if len(differ) == 0 {
			return nil, ""
		}
		if flags == nil {
			flags, said = differ, fmt.Sprintf("%s runs (process %d) %s", label(p.ID()), run.PID, text)
		}
	}
	return flags, said
}

func differences(p *trust.Component, run *trust.Process) (flags []string, text string) {
	var parts []string
	for _, flag := range catalog.CredentialFlags(p.Name) {
		written, running := run.Written[flag], run.Flags[flag]
		switch {
		case run.Written == nil || slices.Equal(written, running):
			continue
		case len(running) == 0 && (fromFile(p, flag) || p.Name == catalog.Etcd && !run.Environment):
			continue // on no command line, or in variables that may not be read
		case strings.Contains(strings.Join(written, ""), "$"):
			continue // of a value that the file does not tell
		}
		flags = append(flags, flag)
		parts = append(parts, fmt.Sprintf("%s, while %s has %s", withFlag(flag, running), base(p.Setting(flag).Path), strings.TrimPrefix(strings.Replace(withFlag(flag, written), "without", "no", 1), "with ")))
	}
	for _, flag := range run.OtherFiles {
		if !slices.Contains(flags, flag) {
			flags = append(flags, flag)
			value, _ := p.Flag(flag)
			parts = append(parts, fmt.Sprintf("with another %s than now stands there (--%s)", value, flag))
		}
	}
	return flags, strings.Join(parts, "; ")
}

// fromFile tells whether a setting is of a configuration file.
func fromFile(p *trust.Component, flag string) bool {
	field := p.Setting(flag).Field
	return !strings.HasPrefix(field, "--") && !strings.HasPrefix(field, "ETCD_")
}

func withFlag(flag string, values []string) string {
	if len(values) == 0 {
		return "without --" + flag
	}
	return fmt.Sprintf("with --%s=%s", flag, strings.Join(values, ","))
}

// restart says how a component is started with what is written now.
func restart(p *trust.Component) string {
	if unit := unitOf(p.Source.Path); unit != "" {
		return "systemctl daemon-reload && systemctl restart " + unit
	}
	if p.Name == "kubelet" {
		return "systemctl daemon-reload && systemctl restart kubelet"
	}
	return restartCommand(p.Name)
}

// restartCommand starts a component of the finding's node again, and proves that it
// is back.
func restartCommand(component string) string {
	_, name := trust.SplitID(component)
	return sh("kubepki", "node", "restart", name, "--yes")
}
