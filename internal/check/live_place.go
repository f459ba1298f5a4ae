package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// notDialled says once for each reason what was not proved live.
func (c *Case) notDialled() []Finding {
	var reasons []string
	who, at := map[string][]string{}, map[string]trust.Place{}
	add := func(o *trust.Observation, name, reason string) {
		if len(who[reason]) == 0 {
			reasons, at[reason] = append(reasons, reason), settingOf(o)
		}
		if !slices.Contains(who[reason], name) {
			who[reason] = append(who[reason], name)
		}
	}
	for i := range c.Observations {
		o := &c.Observations[i]
		if o.Outcome == trust.NotDialled {
			add(o, label(o.Server.Component), o.Reason)
		}
		if o.Server.Kind == trust.ServesNode && o.Outcome == trust.Unreachable {
			add(o, label(o.Server.Component), "cannot be reached from here")
		}
		for _, call := range o.Calls {
			if call.Outcome == trust.NotDialled {
				add(o, fmt.Sprintf("%s as %s", label(o.Server.Component), call.Credential.ID), call.Reason)
			}
		}
	}
	var out []Finding
	for _, reason := range reasons {
		f := Finding{Cause: fmt.Sprintf("not proved live: %s: %s", few(who[reason]), reason)}
		if !strings.Contains(reason, "no such node") {
			f.Fix = know("kubepki verify --live", "on the node itself")
		}
		out = append(out, f.at(at[reason]))
	}
	return out
}

// few names the first of many.
func few(names []string) string {
	const most = 6
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// where names a server with its address.
func where(o *trust.Observation) string {
	if strings.HasSuffix(o.Server.Component, " "+o.Server.Address) {
		return o.Server.Component
	}
	return label(o.Server.Component) + " at " + o.Server.Address
}

func settingOf(o *trust.Observation) trust.Place {
	if len(o.Server.Settings) == 0 {
		return trust.Place{}
	}
	return o.Server.Settings[0]
}

// label is a component's ID as people say it.
func label(id string) string {
	if node, name, ok := strings.Cut(id, "/"); ok {
		return name + " of " + node
	}
	return id
}
