package check

import (
	"cmp"
	"fmt"
	"path"
	"slices"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// roleFlags are the flags that name what one half of a link shows: of its caller
// for clients, of its callee for servers.
var roleFlags = []struct {
	number int // of the link; 0: any other
	server bool
	flag   string
}{
	{1, true, "peer-cert-file"}, {1, false, "peer-cert-file"},
	{2, true, "cert-file"}, {3, true, "cert-file"}, {15, true, "cert-file"},
	{3, false, "etcd-certfile"}, {11, false, "kubelet-client-certificate"}, {13, false, "proxy-client-cert-file"},
	{0, true, "tls-cert-file"}, {0, false, "kubeconfig"},
}

// settingOf returns the flag by which a half of a link shows what it shows; zero
// when no manifest names it.
func (c *Case) settingOf(link int, server bool) trust.Place {
	l := &c.Links[link]
	flag := ""
	for _, r := range roleFlags {
		if r.server == server && (r.number == l.Number || r.number == 0) {
			flag = r.flag
			break
		}
	}
	component := l.Caller
	if server {
		component = l.Callee
	}
	node, name := trust.SplitID(component)
	var at trust.Place
	c.components(name, func(p *trust.Component) {
		if _, set := p.Flag(flag); set && p.Node == node && !p.Source.IsZero() {
			at = p.Source.In("--" + flag)
		}
	})
	return at
}

// borrowed tells whether what a break is about does well in another role: then the
// flag is wrong that names it in this one, and the flag is returned.
func (c *Case) borrowed(b Break) (trust.Place, bool) {
	if b.Credential == nil {
		return trust.Place{}, false
	}
	if n := c.nodeNamed(b.Credential.Node); n != nil && n.Layout != catalog.LayoutKubeadm {
		return trust.Place{}, false // one pair for several roles is usual elsewhere
	}
	setting := c.settingOf(b.Link, b.Server)
	if setting.IsZero() {
		return trust.Place{}, false
	}
	good := false
	for i := range c.Links {
		l := &c.Links[i]
		for _, server := range []bool{true, false} {
			shown := l.Client != nil && l.Client.Credential == b.Credential
			if server {
				shown = l.Server != nil && l.Server.Credential == b.Credential && l.Server.Bundle != nil
			}
			if other := c.settingOf(i, server); shown && other != setting && !c.misfit(i, server) {
				good = true
			}
		}
	}
	return setting, good
}

// misfit tells whether a half is broken for more than its dates.
func (c *Case) misfit(link int, server bool) bool {
	return slices.ContainsFunc(c.Breaks, func(b Break) bool {
		return b.Link == link && b.Server == server && b.Kind != trust.Expired && b.Kind != trust.NotYetValid
	})
}

// byFlag moves a finding to the flag that is to be mended, where what it is about
// does well in another role.
func (c *Case) byFlag(f Finding) Finding {
	if len(f.breaks) == 0 {
		return f
	}
	for _, i := range f.breaks {
		if _, ok := c.borrowed(c.Breaks[i]); !ok {
			return f
		}
	}
	setting, _ := c.borrowed(c.Breaks[f.breaks[0]])
	f.Cause = fmt.Sprintf("%s names %s, which is of another role: %s", setting.Field, base(f.Path), f.Cause)
	f.Fix = fmt.Sprintf("set %s in %s to the file of its own role", setting.Field, setting.Path)
	f.needs = append(f.needs, f.places...)
	return f.at(append([]trust.Place{setting}, f.places...)...)
}

// kindOf tells what a file holds by how its name ends, as all layouts name theirs;
// empty when the name does not tell.
func kindOf(file string) trust.Role {
	switch path.Ext(file) {
	case ".key":
		return trust.RoleKey
	case ".crt":
		return trust.RoleCertificate
	case ".pub":
		return trust.RoleVerifyKeys
	}
	return ""
}

// fitsKind tells whether a file of a kind may stand where a flag needs a role.
func fitsKind(kind, role trust.Role) bool {
	switch role {
	case trust.RoleKey:
		return kind != trust.RoleCertificate && kind != trust.RoleVerifyKeys
	case trust.RoleCertificate, trust.RoleBundle, trust.RoleAuthority:
		return kind != trust.RoleKey && kind != trust.RoleVerifyKeys
	}
	return true
}

// misnamed are the flags of manifests that name a file of another kind: a key where
// a certificate is needed, and the like.
func (c *Case) misnamed(p trust.Place) []trust.Place {
	var out []trust.Place
	for i := range c.Nodes {
		for j := range c.Nodes[i].Components {
			k := &c.Nodes[i].Components[j]
			if k.Node != p.Node || k.Source.IsZero() {
				continue
			}
			for _, u := range catalog.FlagUses(k.Name) {
				if v, _ := k.Flag(u.Flag); v != "" && path.Clean(v) == p.Path && !fitsKind(kindOf(v), u.Role) {
					out = append(out, k.Source.In("--"+u.Flag))
				}
			}
		}
	}
	return out
}

// otherKind: the file is right where it stands, the flag is not.
func (c *Case) otherKind() []Finding {
	var out []Finding
	c.materials(func(m *trust.Material) {
		flags := c.misnamed(m.Place)
		if len(flags) == 0 {
			return
		}
		f := Finding{Cause: fmt.Sprintf("%s names %s, which holds something else than the flag needs", flags[0].Field, base(m.Place.Path)),
			Fix: fmt.Sprintf("set %s in %s to the file of its own role", flags[0].Field, flags[0].Path), cascade: true}.at(append(flags, m.Place)...)
		if f = c.breaksOf(f, trust.NoCertificate, trust.NoKey, trust.NoBundle); m.State == trust.Malformed || len(f.breaks) > 0 {
			out = append(out, f)
		}
	})
	return out
}

// leafSigns: the controller-manager is told to sign with what is no authority's.
func (c *Case) leafSigns() []Finding {
	var out []Finding
	c.components("kube-controller-manager", func(p *trust.Component) {
		for _, s := range allSigners {
			flag := "cluster-signing-" + s + "cert-file"
			v, _ := p.Flag(flag)
			at := trust.Place{Node: p.Node, Path: v}
			leaf := c.Material(at).Leaf()
			if leaf == nil || leaf.IsCA || c.credentialAt(at) == nil || p.Source.IsZero() {
				continue
			}
			f := Finding{Cause: fmt.Sprintf("--%s names %s, which is no authority: nobody takes what it signs", flag, base(v)),
				Fix: fmt.Sprintf("set --%s in %s to the cluster's authority, and its key with it", flag, p.Source.Path), cascade: true}
			out = append(out, f.at(p.Source.In("--"+flag), at))
		}
	})
	return out
}

// tokenFlag returns the flag that names a key for tokens which belongs to something
// else; zero when the key is one for tokens.
func (c *Case) tokenFlag(s *trust.SigningHalf, signer, verifier string) trust.Place {
	find := func(component string, of trust.Place, flags ...string) trust.Place {
		node, name := trust.SplitID(component)
		var at trust.Place
		c.components(name, func(p *trust.Component) {
			for _, flag := range flags {
				if v, _ := p.Flag(flag); v == of.Path && p.Node == node && !p.Source.IsZero() {
					at = p.Source.In("--" + flag)
				}
			}
		})
		return at
	}
	of := c.Material(s.Key)
	if c.ownerOf(of) != nil || slices.ContainsFunc(c.Authorities, func(a trust.Authority) bool { return a.Key == s.Key }) {
		return find(signer, s.Key, "service-account-signing-key-file", "service-account-private-key-file")
	}
	for _, v := range s.VerifyBy {
		if c.ownFile(v) != nil || c.credentialAt(v) != nil {
			return find(verifier, v, "service-account-key-file")
		}
	}
	return trust.Place{}
}

// tokensByFlag moves the findings of tokens to the flag that names another's key.
func (c *Case) tokensByFlag(found []Finding) []Finding {
	for i, f := range found {
		l := c.Links[c.Breaks[f.breaks[0]].Link]
		setting := c.tokenFlag(l.Signing, l.Caller, l.Callee)
		if setting.IsZero() {
			continue
		}
		file := cmp.Or(l.Signing.Key, f.places[0])
		if setting.Field == "--service-account-key-file" {
			file = f.places[0]
		}
		found[i].Cause = fmt.Sprintf("%s names %s, which is of another role: %s", setting.Field, base(file.Path), f.Cause)
		found[i].Fix = fmt.Sprintf("set %s in %s to the service-account key", setting.Field, setting.Path)
		found[i] = found[i].at(append([]trust.Place{setting}, f.places...)...)
	}
	return found
}
