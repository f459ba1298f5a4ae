package check

import (
	"cmp"
	"crypto/ed25519"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// base names a file in a sentence: etcd's with its folder, for its names are those of
// other files too.
func base(p string) string {
	if folder := path.Base(path.Dir(p)); folder == "etcd" {
		return path.Join(folder, path.Base(p))
	}
	return path.Base(p)
}

// materials calls f for each material of all nodes, in their order.
func (c *Case) materials(f func(*trust.Material)) {
	for i := range c.Nodes {
		for _, m := range c.Nodes[i].Materials {
			f(m)
		}
	}
}

// broken makes a finding of each material in a state, which explains all that
// needed its content.
func (c *Case) broken(pick func(*trust.Material) bool, cause func(*trust.Material) string, fix func(*trust.Material) string) []Finding {
	var out []Finding
	c.materials(func(m *trust.Material) {
		if !pick(m) {
			return
		}
		f := Finding{Cause: cause(m), Fix: fix(m), cascade: true, Links: c.linksOfObject(m.Place)}.at(m.Place)
		out = append(out, c.breaksOf(f, trust.NoCertificate, trust.NoKey, trust.NoBundle))
	})
	return out
}

func fileMissing(c *Case) []Finding {
	out := c.joinPairs(c.broken(
		func(m *trust.Material) bool { return m.State == trust.Missing },
		func(m *trust.Material) string {
			return fmt.Sprintf("%s is missing%s", base(m.Place.Path), because(m.Reason))
		},
		func(m *trust.Material) string { return c.mendOver(m) }))
	out = append(out, c.kubeconfigs(trust.Missing, func(k *trust.Kubeconfig) (string, string) {
		return fmt.Sprintf("%s is missing%s", base(k.Place.Path), because(k.Reason)), c.mendKubeconfig(k, overLink(k))
	})...)
	return append(out, c.adminAbsent()...)
}

// joinPairs makes one finding of a certificate and a key that are both missing.
func (c *Case) joinPairs(missing []Finding) []Finding {
	at := map[trust.Place]int{}
	for i, f := range missing {
		at[f.places[0]] = i
	}
	gone := map[int]bool{}
	for _, cred := range c.Credentials {
		i, certificate := at[cred.Certificate]
		j, key := at[cred.Key]
		if !certificate || !key || i == j || gone[i] || gone[j] {
			continue
		}
		f := missing[i].at(cred.Certificate, cred.Key)
		f.Cause = fmt.Sprintf("%s and %s are missing", base(cred.Certificate.Path), base(cred.Key.Path))
		f.Fix = c.mend(cred.Certificate)
		f.breaks = append(f.breaks, missing[j].breaks...)
		missing[i], gone[j] = f, true
	}
	var out []Finding
	for i, f := range missing {
		if !gone[i] {
			out = append(out, f)
		}
	}
	return out
}

// adminAbsent: kubeadm makes admin.conf on each control plane, but operators
// take it away on purpose, and no component needs it.
func (c *Case) adminAbsent() []Finding {
	var out []Finding
	for i := range c.Nodes {
		n := &c.Nodes[i]
		has := func(name string) bool {
			return slices.ContainsFunc(n.Kubeconfigs, func(k trust.Kubeconfig) bool {
				return k.Place.Path == "/etc/kubernetes/"+name && k.State != trust.NotGiven
			})
		}
		if has("controller-manager.conf") && has("scheduler.conf") && !has("admin.conf") {
			f := Finding{Severity: Info, Cause: "admin.conf is missing: no component needs it, but kubectl on this node does", Fix: renew("/etc/kubernetes/admin.conf")}
			out = append(out, f.at(trust.Place{Node: n.Name, Path: "/etc/kubernetes/admin.conf"}))
		}
	}
	return out
}

func because(reason string) string {
	switch {
	case reason == "", reason == "does not exist":
		return ""
	case strings.HasPrefix(reason, "is ") || strings.HasPrefix(reason, "leads ") || strings.HasPrefix(reason, "holds ") || strings.HasPrefix(reason, "begins "):
		return ": it " + reason
	}
	return ": " + reason
}

// mend says what to do about a file that cannot be used. init refuses half of
// a pair, and an authority made anew would fit nothing that is there.
func (c *Case) mend(p trust.Place) string {
	if m := c.Material(p); m != nil && m.Role == trust.RoleConfiguration {
		return fmt.Sprintf("restore %s from a backup, or take the flag that names it out", p.Path)
	}
	if b := c.Objects().Bundle(p); b != nil {
		return mendBundle(b, anyFile)
	}
	if c.isAuthority(p) || c.isSigningKey(p) {
		return restore(p.Path)
	}
	if c.beside(p) {
		return fromElsewhere(p)
	}
	if path.Ext(p.Path) == ".pub" {
		return publicKey(stem(p.Path)+".key", p.Path)
	}
	if m := c.Material(p); m != nil && m.Role == trust.RoleBundle && p.Field == "" {
		return c.bundleAgain(p)
	}
	return replace(p.Path)
}

func (c *Case) isAuthority(p trust.Place) bool {
	return slices.ContainsFunc(c.Authorities, func(a trust.Authority) bool { return a.Certificate == p.File() || a.Key == p.File() })
}

func (c *Case) isSigningKey(p trust.Place) bool {
	return slices.ContainsFunc(c.Links, func(l trust.Link) bool { return l.Signing != nil && l.Signing.Key == p })
}

// replace is the mend of a pair, or of a kubeconfig, that is wrong as a whole.
func replace(file string) string {
	switch {
	case trust.Place{Path: file}.InAPI():
		return mendObject(file)
	case path.Base(file) == "bootstrap-kubelet.conf":
		return know(sh("install", "-m", "600", filePart, file), "%s: what kubepki kubeconfig bootstrap makes on a control-plane node, with a fresh token; or none, where the node has joined", filePart)
	case strings.HasPrefix(file, "/server/"), strings.HasPrefix(file, "/client/"):
		return fmt.Sprintf("move %s and the .csr away and make them anew: kubepki init --layout service --root DIR --name NAME", pair(file))
	}
	return renew(file)
}

// pair names the certificate with its key, which go together.
func pair(file string) string {
	if ext := path.Ext(file); ext == ".crt" || ext == ".key" {
		stem := file[:len(file)-len(ext)]
		return stem + ".crt and " + path.Base(stem) + ".key"
	}
	return file
}

func fileUnreadable(c *Case) []Finding {
	out := c.broken(
		func(m *trust.Material) bool { return m.State == trust.Unreadable },
		func(m *trust.Material) string {
			return fmt.Sprintf("%s cannot be read%s", base(m.Place.Path), because(m.Reason))
		},
		func(m *trust.Material) string { return c.mendOver(m) })
	return append(out, c.kubeconfigs(trust.Unreadable, func(k *trust.Kubeconfig) (string, string) {
		return fmt.Sprintf("%s cannot be read%s", base(k.Place.Path), because(k.Reason)), c.mendKubeconfig(k, outOfTheWay(k.State, k.Place.Path, replace(k.Place.Path)))
	})...)
}

func kubeconfigBroken(c *Case) []Finding {
	return c.kubeconfigs(trust.Malformed, func(k *trust.Kubeconfig) (string, string) {
		return fmt.Sprintf("kubeconfig %s is broken%s", base(k.Place.Path), because(k.Reason)), c.mendKubeconfig(k, replace(k.Place.Path))
	})
}

func (c *Case) kubeconfigs(s trust.State, say func(*trust.Kubeconfig) (cause, fix string)) []Finding {
	var out []Finding
	for i := range c.Nodes {
		for j := range c.Nodes[i].Kubeconfigs {
			k := &c.Nodes[i].Kubeconfigs[j]
			if k.State != s {
				continue
			}
			cause, fix := say(k)
			f := c.breaksOf(Finding{Cause: cause, Fix: fix, cascade: true}.at(k.Place), trust.NoCertificate, trust.NoKey, trust.NoBundle)
			f.Field = k.Field
			out = append(out, f)
		}
	}
	return out
}

func isKeyRole(r trust.Role) bool { return r == trust.RoleKey || r == trust.RoleVerifyKeys }

func certMalformed(c *Case) []Finding {
	return c.broken(
		func(m *trust.Material) bool {
			return m.State == trust.Malformed && !isKeyRole(m.Role) && len(c.misnamed(m.Place)) == 0
		},
		func(m *trust.Material) string {
			return fmt.Sprintf("%s is not a certificate in PEM form%s", named(m.Place), because(m.Reason))
		},
		func(m *trust.Material) string { return c.mend(m.Place) })
}

func keyMalformed(c *Case) []Finding {
	return append(c.unfitSigningKeys(), c.broken(
		func(m *trust.Material) bool {
			return m.State == trust.Malformed && isKeyRole(m.Role) && len(c.misnamed(m.Place)) == 0
		},
		func(m *trust.Material) string {
			return fmt.Sprintf("%s is not a key in PEM form%s", named(m.Place), because(m.Reason))
		},
		func(m *trust.Material) string { return c.mend(m.Place) })...)
}

// unfitSigningKeys are service-account keys of a kind that Kubernetes neither
// signs nor verifies with (k8s.io/kubernetes/pkg/serviceaccount/jwt.go,
// JWTTokenGenerator).
func (c *Case) unfitSigningKeys() []Finding {
	var out []Finding
	for _, l := range c.Links {
		if l.Signing == nil {
			continue
		}
		m := c.Material(l.Signing.Key)
		if !m.OK() || len(m.Keys) == 0 {
			continue
		}
		if _, edwards := m.Keys[0].(ed25519.PublicKey); edwards {
			f := Finding{Cause: fmt.Sprintf("%s is an Ed25519 key: Kubernetes signs tokens with RSA and ECDSA alone, and does not start", named(m.Place)), Fix: c.mend(m.Place), Links: []int{l.Number}}
			out = mergeFinding(out, f.at(m.Place))
		}
	}
	return out
}

// named names a file, and the field in it, for a sentence.
func named(p trust.Place) string {
	field := p.Field[strings.LastIndexByte(p.Field, '.')+1:]
	switch {
	case p.Field == "":
		return base(p.Path)
	case !strings.HasPrefix(p.Field, "users[") && !strings.HasPrefix(p.Field, "clusters["):
		field = p.Field
	case field == "client-certificate-data":
		field = "the client certificate"
	case field == "client-key-data":
		field = "the client key"
	}
	return field + " of " + base(p.Path)
}

func bundleEmpty(c *Case) []Finding {
	return c.broken(
		func(m *trust.Material) bool {
			return m.OK() && len(m.Certificates) == 0 && (m.Role == trust.RoleBundle || m.Role == trust.RoleAuthority) && !(len(m.Headed) > 0 && c.takesHeaded(m.Place))
		},
		func(m *trust.Material) string {
			if n := len(m.Headed); n > 0 {
				return fmt.Sprintf("%s holds no certificate that is read: all %d stand in PEM blocks with headers, which are passed over, so nobody is trusted", named(m.Place), n)
			}
			return fmt.Sprintf("%s holds no certificate, so nobody is trusted", named(m.Place))
		},
		func(m *trust.Material) string { return c.mend(m.Place) })
}

func notSeen(c *Case) []Finding {
	var out []Finding
	for i := range c.Nodes {
		for _, n := range c.Nodes[i].NotSeen {
			if c.joinUnseen(out, n) {
				continue
			}
			f := Finding{Cause: n.Reason}.at(n.Place)
			if n.Denied {
				f.Severity, f.ID = Error, "file-unreadable"
				f.Fix = "run again with sudo"
			}
			if n.Stops != "" {
				f.Severity, f.ID = Error, "file-unreadable"
				f.Cause = fmt.Sprintf("%s does not run, for the kubelet cannot use its manifest: %s (its flags are taken to be kubeadm's)", n.Stops, n.Reason)
				f.Fix = "mend " + n.Place.Path
			}
			out = append(out, f)
		}
	}
	return slices.Concat(out, c.manifestsNotGiven(), c.pluginsNotJudged(), c.notDialled())
}

// manifestsNotGiven: where some components of a node have manifests and others have
// none, the others' flags are kubeadm's, as long as nobody says otherwise.
func (c *Case) manifestsNotGiven() []Finding {
	var out []Finding
	for i := range c.Nodes {
		n := &c.Nodes[i]
		var folder string
		var without []string
		for _, p := range n.Components {
			switch {
			case !slices.Contains(catalog.Components(), p.Name):
			case p.Source.IsZero() && slices.ContainsFunc(n.NotSeen, func(x trust.NotSeen) bool { return x.Stops == p.Name }): // said of its manifest
			case p.Source.IsZero():
				without = append(without, p.Name)
			default:
				folder = path.Dir(p.Source.Path)
			}
		}
		if folder == "" || len(without) == 0 || n.Layout != "kubeadm" {
			continue
		}
		f := Finding{Cause: fmt.Sprintf("no manifest of %s is in what was given: its flags are taken to be kubeadm's", strings.Join(without, ", "))}
		out = append(out, f.at(trust.Place{Node: n.Name, Path: folder}))
	}
	return out
}

// pluginsNotJudged: what a program or a token gives for a credential is not in the
// file.
func (c *Case) pluginsNotJudged() []Finding {
	var out []Finding
	for i := range c.Nodes {
		for _, k := range c.Nodes[i].Kubeconfigs {
			if k.Plugin == "" {
				continue
			}
			f := Finding{Cause: fmt.Sprintf("%s gets its credential from a program (%s), which is not run: it is not judged", base(k.Place.Path), k.Plugin)}
			out = append(out, f.at(k.Place.In("users["+k.User+"].user."+k.Plugin)))
		}
	}
	return out
}

// Permission bits.
const (
	othersReadWrite = 0o006
	groupReadWrite  = 0o060
	othersWrite     = 0o002
)

func keyPermissions(c *Case) []Finding {
	var out []Finding
	for i := range c.Nodes {
		var ofNode []Finding
		for _, f := range c.Nodes[i].Files {
			if d := catalog.DistributionNamed(c.Nodes[i].Layout); d != nil && !f.IsDir {
				f.Mode &^= d.Modes
			}
			if finding, ok := c.owned(&c.Nodes[i], f); ok {
				out = append(out, finding)
			}
			if f.Private && (kindOf(f.Place.Path) == trust.RoleKey || len(c.misnamed(f.Place)) == 0) {
				ofNode = append(ofNode, permissions(f)...)
			}
		}
		private := 0
		for _, f := range c.Nodes[i].Files {
			if f.Private && !f.IsDir {
				private++
			}
		}
		out = append(out, joinModes(ofNode, private)...)
	}
	return out
}

// firstUser is the least number that systems give to people; services have less
// (login.defs UID_MIN). kubeadm's rootless control plane and etcd's own user are below.
const firstUser = 1000

// owned judges the owner of a private file, on a live root alone: a copy belongs to
// whoever made it.
func (c *Case) owned(n *trust.Node, f trust.File) (Finding, bool) {
	if !n.Live || !f.Private || f.UID < firstUser {
		return Finding{}, false
	}
	what := "use this private key"
	if f.IsDir {
		what = "replace the keys in it"
	}
	return Finding{Severity: Warning, Cause: fmt.Sprintf("%s belongs to user %d, who may %s", f.Place.Path, f.UID, what), Fix: "chown root:root " + f.Place.Path}.at(f.Place), true
}

// several files of a node with the same wrong mode, and the half of its private
// files, were changed at one stroke: by a copy or a chmod -R.
const several = 4

// joinModes makes one finding of several that have the same cause.
func joinModes(findings []Finding, private int) []Finding {
	groups := map[string][]Finding{}
	for _, f := range findings {
		groups[modeOf(f)] = append(groups[modeOf(f)], f)
	}
	var out []Finding
	for _, f := range findings {
		g := groups[modeOf(f)]
		switch {
		case len(g) < several || 2*len(g) < private:
			out = append(out, f)
		case g[0].Path == f.Path:
			var places []trust.Place
			for _, o := range g {
				places = append(places, o.places...)
			}
			f.Cause = fmt.Sprintf("%d files with private keys are open to others (%s)", len(g), modeOf(f))
			f.Fix = chmodAll(g)
			out = append(out, f.at(places...))
		}
	}
	return out
}

// modeOf takes "mode 0644" out of a finding's cause.
func modeOf(f Finding) string {
	_, rest, _ := strings.Cut(f.Cause, " has ")
	mode, _, _ := strings.Cut(rest, ":")
	return string(f.Severity) + mode
}

func permissions(f trust.File) []Finding {
	mode := fmt.Sprintf("%04o", f.Mode)
	holds := cmp.Or(f.Holds, "this private key")
	finding := Finding{Fix: sh("chmod", "600", f.Place.Path)}
	switch {
	case f.IsDir && f.Mode&othersWrite == 0, !f.IsDir && f.Mode&(othersReadWrite|groupReadWrite) == 0:
		return nil
	case f.IsDir:
		finding.Cause = fmt.Sprintf("folder %s has mode %s: anybody may replace the keys in it", f.Place.Path, mode)
		finding.Fix = sh("chmod", "go-w", f.Place.Path)
	case f.Mode&othersReadWrite != 0:
		finding.Cause = fmt.Sprintf("%s has mode %s: any user of the machine may use %s", base(f.Place.Path), mode, holds)
	default:
		finding.Severity = Warning
		finding.Cause = fmt.Sprintf("%s has mode %s: its group may use %s", base(f.Place.Path), mode, holds)
	}
	return []Finding{finding.at(f.Place)}
}

// sortedPlaces returns the places in order.
func sortedPlaces(in []trust.Place) []trust.Place {
	out := slices.Clone(in)
	slices.SortFunc(out, trust.Place.Compare)
	return slices.Compact(out)
}
