package check

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// authorityOf returns the certificate of an authority's own file, nil when it
// cannot be read.
func (c *Case) certificateOf(a trust.Authority) *trust.Material {
	if m := c.Material(a.Certificate); m.OK() && len(m.Certificates) > 0 {
		return m
	}
	return nil
}

func hasKey(m *trust.Material, key crypto.PublicKey) bool {
	return slices.ContainsFunc(m.Keys, func(k crypto.PublicKey) bool { return trust.SameKey(k, key) })
}

// caKeyMismatch is at the certificate: what was issued before tells which of
// the two was replaced.
func caKeyMismatch(c *Case) []Finding {
	out, said := c.swappedAuthorities()
	for i, a := range c.Authorities {
		m, k := c.certificateOf(a), c.Material(a.Key)
		if said[i] || !c.caMismatched(a) {
			continue
		}
		places := []trust.Place{a.Key, a.Certificate}
		cause := "does not belong to %[2]s: it was replaced"
		if c.keySigned(a, k) || !c.signedAnything(a.Name, m) {
			places = []trust.Place{a.Certificate, a.Key}
			cause = "does not belong to %[2]s: the certificate was replaced, for it signed none of its certificates here"
		}
		f := Finding{
			Cause:   fmt.Sprintf("%[1]s "+cause, base(a.Key.Path), base(a.Certificate.Path)),
			Fix:     restore(a.Certificate.Path, a.Key.Path),
			needs:   []trust.Place{a.Certificate},
			cascade: true,
		}
		out = append(out, f.at(places...))
	}
	return append(out, c.signingKeyMismatch()...)
}

// caMismatched tells whether the key beside an authority belongs to none of the
// certificates of its file: during a rotation that holds two.
func (c *Case) caMismatched(a trust.Authority) bool {
	m, k := c.certificateOf(a), c.Material(a.Key)
	return m != nil && k.OK() && !slices.ContainsFunc(m.Certificates, func(x certificate) bool { return hasKey(k, x.PublicKey) })
}

// swappedAuthorities finds pairs of authorities of which each has the other's key,
// which is one fault: of the certificates where these signed nothing of their own.
func (c *Case) swappedAuthorities() ([]Finding, map[int]bool) {
	var out []Finding
	said := map[int]bool{}
	for i, a := range c.Authorities {
		for j, b := range c.Authorities[i+1:] {
			j += i + 1
			if said[i] || said[j] || a.Node != b.Node || !c.caMismatched(a) || !c.caMismatched(b) ||
				!hasKey(c.Material(a.Key), c.certificateOf(b).Leaf().PublicKey) || !hasKey(c.Material(b.Key), c.certificateOf(a).Leaf().PublicKey) {
				continue
			}
			said[i], said[j] = true, true
			both := sortedPlaces([]trust.Place{a.Certificate, b.Certificate})
			if c.signs(&a) || c.signs(&b) {
				both = sortedPlaces([]trust.Place{a.Key, b.Key})
			}
			f := Finding{Cause: fmt.Sprintf("%s and %s are swapped: each belongs to the other authority", both[0].Path, both[1].Path),
				Fix: exchange(both[0], both[1], false), needs: []trust.Place{a.Certificate, b.Certificate}, cascade: true}
			out = append(out, f.at(both...))
		}
	}
	return out, said
}

// signingKeyMismatch: the flags of the controller-manager name a certificate
// and a key that do not belong together, though each is right where it stands.
func (c *Case) signingKeyMismatch() []Finding {
	var out []Finding
	c.components("kube-controller-manager", func(p *trust.Component) {
		for _, s := range allSigners {
			cert, _ := p.Flag("cluster-signing-" + s + "cert-file")
			file, _ := p.Flag("cluster-signing-" + s + "key-file")
			m, k := c.Material(trust.Place{Node: p.Node, Path: cert}), c.Material(trust.Place{Node: p.Node, Path: file})
			if m.Leaf() == nil || !k.OK() || hasKey(k, m.Leaf().PublicKey) || stem(cert) == stem(file) || c.pairOfAuthority(m.Leaf(), k.Place) {
				continue
			}
			setting, wrong, right := "cluster-signing-"+s+"key-file", k.Place, stem(cert)+".key"
			if a := c.ownFile(m.Place); a == nil || a.Name != "ca" && a.Name != "kubelet-ca" {
				setting, wrong, right = "cluster-signing-"+s+"cert-file", m.Place, stem(file)+".crt"
			}
			f := Finding{Cause: fmt.Sprintf("--%s names %s; %s and %s do not belong together: kube-controller-manager cannot sign", setting, base(wrong.Path), cert, file),
				Fix: setFlag(p.Setting(setting), setting, right), cascade: true}
			out = append(out, f.at(p.Setting(setting), wrong))
		}
	})
	return out
}

// pairOfAuthority tells whether a certificate and a key stand in an authority's
// own files, which are judged by themselves: the certificate may be a copy.
func (c *Case) pairOfAuthority(cert certificate, key trust.Place) bool {
	return slices.ContainsFunc(c.Authorities, func(a trust.Authority) bool {
		m := c.certificateOf(a)
		return a.Key == key && m != nil && m.Leaf().Equal(cert)
	})
}

// signedAnything tells whether the certificate of an authority verifies a
// credential of its own node and role.
func (c *Case) signedAnything(name string, authority *trust.Material) bool {
	return slices.ContainsFunc(c.Credentials, func(cred *trust.Credential) bool {
		leaf := c.Material(cred.Certificate).Leaf()
		return cred.Node == authority.Place.Node && c.authorityFor(cred) == name && leaf != nil && c.signed(leaf, authority.Leaf())
	})
}

// keySigned tells whether the key beside an authority's certificate signed a
// credential of its node, whatever the certificate says.
func (c *Case) keySigned(a trust.Authority, key *trust.Material) bool {
	return slices.ContainsFunc(c.Credentials, func(cred *trust.Credential) bool {
		leaf := c.Material(cred.Certificate).Leaf()
		return cred.Node == a.Node && c.authorityFor(cred) == a.Name && leaf != nil && slices.ContainsFunc(key.Keys, func(k crypto.PublicKey) bool { return trust.SignedWith(leaf, k) })
	})
}

// mismatched tells whether the key of a credential is another certificate's.
// Where it is that of a later certificate of the file, chain-order says more.
func (c *Case) mismatched(cred *trust.Credential) bool {
	m, k := c.Material(cred.Certificate), c.Material(cred.Key)
	return m.Leaf() != nil && k.OK() && !hasKey(k, m.Leaf().PublicKey) && !c.misordered(cred)
}

func keyMismatch(c *Case) []Finding {
	out, said := c.swapped()
	for _, cred := range c.Credentials {
		k := c.Material(cred.Key)
		if !c.mismatched(cred) || said[cred] {
			continue
		}
		f := Finding{
			Cause:   fmt.Sprintf("%s does not belong to the certificate in %s", named(cred.Key), named(cred.Certificate)),
			Fix:     replace(cred.Certificate.Path),
			cascade: true, // a certificate in the place of another has more that is wrong
		}.at(cred.Key, cred.Certificate)
		if c.beside(cred.Certificate) {
			f.Fix = fromElsewhere(cred.Certificate)
		}
		if cred.Key == cred.Certificate {
			f.Cause = fmt.Sprintf("the key in %s does not belong to the certificate in it", base(cred.Key.Path))
		}
		if other := c.ownerOf(k); other != nil && !cred.KeySetting.IsZero() {
			f.Cause = fmt.Sprintf("%s names the key of %s, not that of %s", cred.KeySetting.Field, base(other.Certificate.Path), base(cred.Certificate.Path))
			f.Fix = setFlag(cred.KeySetting, cred.KeySetting.Field, stem(cred.Certificate.Path)+".key")
			f = c.breaksOf(f, trust.KeyMismatch).at(cred.KeySetting, cred.Key)
			out = append(out, f)
			continue
		}
		out = append(out, c.misfitByFlag(c.breaksOf(f, trust.KeyMismatch)))
	}
	return out
}

// misfitByFlag: a flag names the certificate of another pair, whose own key is
// beside it.
func (c *Case) misfitByFlag(f Finding) Finding {
	if len(f.places) < 2 {
		return f
	}
	cert := f.places[1]
	leaf := c.Material(cert).Leaf()
	own := c.Material(trust.Place{Node: cert.Node, Path: stem(cert.Path) + ".key"})
	if f.places[0].Path == stem(cert.Path)+".key" || !own.OK() || !hasKey(own, leaf.PublicKey) {
		return f
	}
	for _, i := range f.breaks {
		b := c.Breaks[i]
		setting := c.settingOf(b.Link, b.Server)
		if setting.IsZero() || b.Credential.KeySetting.Path != setting.Path {
			continue
		}
		f.Cause = fmt.Sprintf("%s names %s, whose key is not %s", setting.Field, base(cert.Path), base(f.places[0].Path))
		f.Fix = setFlag(setting, setting.Field, stem(f.places[0].Path)+".crt")
		return f.at(append([]trust.Place{setting}, f.places...)...)
	}
	return f
}

// swapped finds pairs of credentials of which each holds the other's key: two
// files were exchanged, which is one fault. It is the certificates where these
// do not fit their roles, else the keys.
func (c *Case) swapped() ([]Finding, map[*trust.Credential]bool) {
	var out []Finding
	said := map[*trust.Credential]bool{}
	var mismatched []*trust.Credential // few of many, so that pairs of them are few
	for _, cred := range c.Credentials {
		if c.mismatched(cred) {
			mismatched = append(mismatched, cred)
		}
	}
	for i, a := range mismatched {
		for _, b := range mismatched[i+1:] {
			if said[a] || said[b] || a.Key == b.Key ||
				!hasKey(c.Material(a.Key), c.Material(b.Certificate).Leaf().PublicKey) || !hasKey(c.Material(b.Key), c.Material(a.Certificate).Leaf().PublicKey) {
				continue
			}
			said[a], said[b] = true, true
			both, others := sortedPlaces([]trust.Place{a.Key, b.Key}), sortedPlaces([]trust.Place{a.Certificate, b.Certificate})
			if c.misfits(a) || c.misfits(b) {
				both, others = others, both
			}
			f := Finding{Cause: fmt.Sprintf("%s and %s are swapped: each belongs to the other's pair", named(both[0]), named(both[1])),
				Fix: exchange(both[0], both[1], false), cascade: true}.at(both...)
			f.breaks = c.breaksOf(Finding{places: append(both, others...)}, trust.KeyMismatch).breaks
			out = append(out, f)
		}
	}
	return out, said
}

// misfits tells whether a certificate is refused for more than its key.
func (c *Case) misfits(cred *trust.Credential) bool {
	return slices.ContainsFunc(c.Breaks, func(b Break) bool {
		return b.Credential == cred && b.Place == cred.Certificate && b.Kind != trust.KeyMismatch
	})
}

// ownerOf returns the credential that a key truly belongs to, nil when it
// belongs to none that is here.
func (c *Case) ownerOf(key *trust.Material) *trust.Credential {
	for _, cred := range c.Credentials {
		leaf := c.Material(cred.Certificate).Leaf()
		if leaf != nil && cred.Key == key.Place && hasKey(key, leaf.PublicKey) {
			return cred
		}
	}
	return nil
}

// saKeyMismatch: sa.key signs tokens that nobody verifies with sa.pub. It is
// judged for the pair of one node, by name.
func saKeyMismatch(c *Case) []Finding {
	var out []Finding
	seen := map[trust.Place]bool{}
	for i, l := range c.Links {
		s := l.Signing
		if s == nil || seen[s.Key] {
			continue
		}
		for _, v := range s.VerifyBy {
			if v.Node != s.Key.Node || stem(v.Path) != stem(s.Key.Path) || v == s.Key {
				continue
			}
			key, pub := c.Material(s.Key), c.Material(v)
			if !key.OK() || !pub.OK() || len(key.Keys) == 0 || hasKey(pub, key.Keys[0]) || c.verifiedElsewhere(i) {
				continue
			}
			seen[s.Key] = true
			f := Finding{
				Cause:   fmt.Sprintf("%s and %s are not a pair: tokens signed with the one are refused by the other", base(s.Key.Path), base(v.Path)),
				Fix:     know(publicKey(s.Key.Path, v.Path), "if %s is the cluster's signing key, else restore that; then restart kube-apiserver", s.Key.Path),
				cascade: true,
			}.at(v, s.Key)
			out = append(out, c.withBreaks(f, func(b Break) bool {
				t := c.Links[b.Link].Signing
				return t != nil && b.Kind == trust.UnknownAuthority && (t.Key == s.Key || slices.Contains(t.VerifyBy, v))
			}))
		}
	}
	return out
}

// verifiedElsewhere tells whether the link's verifier holds the key in another file.
func (c *Case) verifiedElsewhere(link int) bool {
	return !slices.ContainsFunc(c.Breaks, func(b Break) bool { return b.Link == link && b.Kind == trust.UnknownAuthority })
}

func stem(p string) string {
	for i := len(p) - 1; i >= 0 && p[i] != '/'; i-- {
		if p[i] == '.' {
			return strings.TrimSuffix(p[:i], "-key") // cfssl's name for the key
		}
	}
	return p
}

// saVerifyKeyMissing: one node signs what others cannot verify. It is one
// fault for each key that signs, at the files that should hold it.
func saVerifyKeyMissing(c *Case) []Finding {
	var out []Finding
	signer := map[string]int{} // index in out by the signing key
	for i, b := range c.Breaks {
		s := c.Links[b.Link].Signing
		if s == nil || b.Kind != trust.UnknownAuthority {
			continue
		}
		at, seen := signer[keyID(c.Material(s.Key).Keys[0])]
		if !seen {
			at = len(out)
			signer[keyID(c.Material(s.Key).Keys[0])] = at
			out = append(out, Finding{
				Cause: fmt.Sprintf("%s does not hold the public key of %s, with which %s signs service-account tokens", base(b.Place.Path), s.Key, c.Links[b.Link].Caller),
				Fix:   c.addPublicKey(s.Key, b.Place),
			})
		}
		out[at] = out[at].at(append(out[at].places, b.Place)...)
		out[at].breaks = append(out[at].breaks, i)
		out[at].needs = append(append(out[at].needs, s.Key), s.VerifyBy...)
		out[at].needs = append(out[at].needs, c.verifiersOf(s.Key.Node)...)
		out[at].cascade = true
	}
	// Two nodes that do not know each other's keys are one fault, of the node
	// that stands alone: what it lacks comes first.
	slices.SortStableFunc(out, func(a, b Finding) int { return len(a.places) - len(b.places) })
	return c.tokensByFlag(out)
}

// verifiersOf are the files that the apiservers of a node verify tokens with.
func (c *Case) verifiersOf(node string) []trust.Place {
	var out []trust.Place
	for _, l := range c.Links {
		if l.Signing == nil {
			continue
		}
		for _, v := range l.Signing.VerifyBy {
			if v.Node == node {
				out = append(out, v)
			}
		}
	}
	return uniquePlaces(out)
}

// keyID tells keys apart.
func keyID(key crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return fmt.Sprint(key)
	}
	return string(der)
}

// mergeFinding adds a finding, or its breaks and needs to the one that stands
// at the same first place already.
func mergeFinding(all []Finding, f Finding) []Finding {
	for i := range all {
		if all[i].places[0] == f.places[0] {
			all[i].breaks = append(all[i].breaks, f.breaks...)
			all[i].needs = append(all[i].needs, f.needs...)
			return all
		}
	}
	return append(all, f)
}

// caKeyPresent: a worker signs nothing.
func caKeyPresent(c *Case) []Finding {
	var out []Finding
	for _, a := range c.Authorities {
		k := c.Material(a.Key)
		if k == nil || !k.HasPrivateKey {
			continue
		}
		f := Finding{Fix: sh("shred", "-u", a.Key.Path)}
		switch {
		case c.isWorker(a.Node):
			f.Cause = fmt.Sprintf("the key of an authority (%s) is on a worker: whoever takes the worker takes the cluster", base(a.Key.Path))
		case a.Name != "etcd-ca" && c.etcdAlone(a.Node) && !c.signs(&a):
			f.Cause = fmt.Sprintf("the key of an authority (%s) is on a node with nothing but etcd, which it signs nothing for", base(a.Key.Path))
		default:
			continue
		}
		out = append(out, f.at(a.Key))
	}
	return append(out, c.signsElsewhere()...)
}

// signsElsewhere: a controller-manager that is told to sign with nothing needs no
// authority's key on its node.
func (c *Case) signsElsewhere() []Finding {
	var out []Finding
	c.components("kube-controller-manager", func(p *trust.Component) {
		a := c.authority("ca", p.Node)
		if p.Source.IsZero() || a == nil || a.Node != p.Node {
			return
		}
		if k := c.Material(a.Key); k == nil || !k.HasPrivateKey {
			return
		}
		for _, s := range allSigners {
			if v, _ := p.Flag("cluster-signing-" + s + "key-file"); v != "" {
				return
			}
		}
		f := Finding{
			Cause: fmt.Sprintf("kube-controller-manager signs nothing (--cluster-signing-key-file is not set), and yet the authority's key (%s) is here: whoever takes the node takes the cluster", base(a.Key.Path)),
			Fix:   know(sh("shred", "-u", a.Key.Path), "once it is kept elsewhere"),
		}
		out = append(out, f.at(a.Key))
	})
	return out
}

// etcdAlone tells of a node that has a member of etcd and no control plane.
func (c *Case) etcdAlone(node string) bool {
	etcd := false
	for i := range c.Nodes {
		for _, p := range c.Nodes[i].Components {
			switch {
			case c.Nodes[i].Name != node:
			case p.Name == "etcd":
				etcd = true
			case p.Name != "etcdctl" && p.Name != "kubelet" && p.Name != "kube-proxy":
				return false
			}
		}
	}
	return etcd
}

func (c *Case) isWorker(node string) bool {
	for i := range c.Nodes {
		if c.Nodes[i].Name != node {
			continue
		}
		return !slices.ContainsFunc(c.Nodes[i].Components, func(p trust.Component) bool {
			return p.Name != "kubelet" && p.Name != "kube-proxy" && p.Name != catalog.NodeController
		})
	}
	return false
}
