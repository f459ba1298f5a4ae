package check

import (
	"fmt"
	"net/url"
	"slices"

	"github.com/kubepki/kubepki/internal/trust"
)

// conflicts are the settings that a component refuses, as the reader of its
// flags and configuration files found them.
func conflicts(c *Case) []Finding {
	var out []Finding
	for i := range c.Nodes {
		for j := range c.Nodes[i].Components {
			for _, x := range c.Nodes[i].Components[j].Conflicts {
				out = append(out, Finding{Cause: x.Reason, Fix: x.Fix}.at(x.Place))
			}
		}
	}
	return out
}

// foreign tells whether a place holds anchors for servers beside the cluster's
// components alone: there a server's own certificate may stand, which need not be
// an authority.
func (c *Case) foreign(p trust.Place) bool {
	of := slices.DeleteFunc(slices.Clone(c.Bundles), func(b *trust.Bundle) bool { return b.Anchors != p })
	return len(of) > 0 && !slices.ContainsFunc(of, func(b *trust.Bundle) bool { return !b.Foreign })
}

// leadsTo names the server of a kubeconfig.
func leadsTo(k trust.Kubeconfig) string {
	if k.Remote {
		return "its webhook"
	}
	return "the apiserver"
}

// authorityFileFor is what a kubeconfig should verify its server with.
func authorityFileFor(k trust.Kubeconfig) string {
	if k.Remote {
		return "FILE" // the webhook's own authority, which no file here tells
	}
	return "/etc/kubernetes/pki/ca.crt"
}

// plainRemotes are proxies that are reached without TLS. Webhooks are said with
// their kubeconfigs.
func plainRemotes(c *Case) []Finding {
	var out []Finding
	for i := range c.Nodes {
		for _, p := range c.Nodes[i].Components {
			for _, r := range p.Remotes {
				u, err := url.Parse(r.URL)
				if err != nil || u.Scheme != "http" || r.Number == 0 {
					continue
				}
				f := Finding{Cause: fmt.Sprintf("%s reaches its %s without TLS (%s)", p.Name, r.Name, u.Host), Fix: "use https in " + r.Setting.Field, Severity: plainSeverity(u)}
				out = append(out, f.at(r.Setting))
			}
		}
	}
	return out
}
