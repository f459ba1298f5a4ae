package check

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// conflicts are the settings that a component refuses, as the reader of its
// flags and configuration files found them.
func conflicts(c *Case) []Finding {
	var out []Finding
	for i := range c.Nodes {
		for j := range c.Nodes[i].Components {
			for _, x := range c.Nodes[i].Components[j].Conflicts {
				out = append(out, Finding{Cause: x.Reason, Fix: settleConflict(x)}.at(x.Place))
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

// verifyServer lets a kubeconfig verify its server, a webhook's with an authority
// that no file here tells.
func (c *Case) verifyServer(k trust.Kubeconfig) string {
	if k.Remote {
		return know(setCluster(k.Place, k.Cluster, "--insecure-skip-tls-verify=false", "--certificate-authority="+filePart, "--embed-certs=true"), "%s: the certificate of the authority that signed the webhook's", filePart)
	}
	return c.trustOwn(k.Place, k.Cluster, "--insecure-skip-tls-verify=false")
}

// settleConflict is the mend of a setting that is refused: a flag that is to go goes
// by a command where it has a line of its own, and words name the place.
func settleConflict(x trust.Conflict) string {
	if flag, ok := strings.CutPrefix(x.Place.Field, "--"); ok && x.Fix == "take --"+flag+" out" {
		return dropFlag(x.Place, flag)
	}
	if strings.Contains(x.Fix, "/etc/") || x.Place.Path == "" || strings.Contains(x.Fix, x.Place.Path) {
		return x.Fix
	}
	at := x.Place
	at.Node = ""
	return fmt.Sprintf("%s (%s)", x.Fix, said(at))
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
				f := Finding{Cause: fmt.Sprintf("%s reaches its %s without TLS (%s)", p.Name, r.Name, u.Host), Fix: fmt.Sprintf("use https in %s%s", r.Setting.Field, in(r.Setting)), Severity: plainSeverity(u)}
				out = append(out, f.at(r.Setting))
			}
		}
	}
	return out
}

// takesHeaded tells whether all who trust by a file take its blocks with headers.
func (c *Case) takesHeaded(p trust.Place) bool {
	of := slices.DeleteFunc(slices.Clone(c.Bundles), func(b *trust.Bundle) bool { return b.Anchors != p || b.Setting == p })
	return len(of) > 0 && !slices.ContainsFunc(of, func(b *trust.Bundle) bool { return !b.Headed })
}

// passedOver tells whether the authority that is missed in a bundle stands there
// in a block with headers.
func (c *Case) passedOver(b *trust.Bundle, missed certificate) bool {
	m := c.Material(b.Anchors)
	return m != nil && !b.Headed && slices.ContainsFunc(m.Headed, func(a certificate) bool { return trust.SignedBy(missed, a) })
}

// passedOverAnchors are the bundles in which an authority stands that nobody
// reads.
func (c *Case) passedOverAnchors() []Finding {
	var out []Finding
	for _, g := range c.ofClass(headed, byPlace) {
		b := c.Breaks[g[0].at]
		cause := fmt.Sprintf("the authority of %s is in %s, but in a PEM block with headers, which is passed over", named(b.Credential.Certificate), named(b.Bundle.Anchors))
		fix := fmt.Sprintf("take the headers (the lines between BEGIN and the first empty line) out of the blocks of %s", b.Bundle.Anchors.Path)
		f := c.finding(g, placesOf(g), cause, fix)
		f.cascade = true
		out = append(out, f)
	}
	return out
}

// beside tells whether a place is of a connection to a server beside the cluster,
// or of a pair that is shown by name: kubepki makes none of them.
func (c *Case) beside(p trust.Place) bool {
	if c.foreign(p) {
		return true
	}
	return slices.ContainsFunc(c.Links, func(l trust.Link) bool {
		var cred *trust.Credential
		switch {
		case l.Client != nil && (l.Number == 14 || l.Number == 21):
			cred = l.Client.Credential
		case l.Server != nil && l.Server.Credential != nil && (l.Number == 19 || strings.HasSuffix(l.Server.Credential.Name, "-sni")):
			cred = l.Server.Credential
		}
		return cred != nil && (cred.Certificate == p || cred.Key == p)
	})
}

func fromElsewhere(p trust.Place) string {
	if p.Field != "" {
		return fmt.Sprintf("put a current one into %s of %s", p.Field, p.Path)
	}
	return fmt.Sprintf("restore %s from a backup, or get another from whoever issued it", p.Path)
}

// mendKubeconfig is how, for a kubeconfig of the cluster, or for a webhook's.
func (c *Case) mendKubeconfig(k *trust.Kubeconfig, usual string) string {
	if !k.Remote {
		return usual
	}
	if k.Field != "" {
		return fmt.Sprintf("mend %s in %s", k.Field, k.Place.Path)
	}
	return fmt.Sprintf("restore %s from a backup, or take what names it out", k.Place.Path)
}
