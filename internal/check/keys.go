package check

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

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
	var out []Finding
	for _, a := range c.Authorities {
		m, k := c.certificateOf(a), c.Material(a.Key)
		if m == nil || !k.OK() || slices.ContainsFunc(m.Keys, func(p crypto.PublicKey) bool { return hasKey(k, p) }) || hasKey(k, m.Leaf().PublicKey) {
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
			Fix:     fmt.Sprintf("restore %s from a backup or from another control-plane node", places[0].Path),
			needs:   []trust.Place{a.Certificate},
			cascade: true,
		}
		out = append(out, f.at(places...))
	}
	return append(out, c.signingKeyMismatch()...)
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
			if m.Leaf() == nil || !k.OK() || hasKey(k, m.Leaf().PublicKey) || stem(cert) == stem(file) {
				continue
			}
			setting, wrong, right := "--cluster-signing-"+s+"key-file", k.Place, stem(cert)+".key"
			if a := c.ownFile(m.Place); a == nil || a.Name != "ca" && a.Name != "kubelet-ca" {
				setting, wrong, right = "--cluster-signing-"+s+"cert-file", m.Place, stem(file)+".crt"
			}
			f := Finding{Cause: fmt.Sprintf("%s names %s; %s and %s do not belong together: kube-controller-manager cannot sign", setting, base(wrong.Path), cert, file),
				Fix: fmt.Sprintf("set %s to %s", setting, right), cascade: true}
			out = append(out, f.at(p.Source.In(setting), wrong))
		}
	})
	return out
}

// signedAnything tells whether the certificate of an authority verifies a
// credential of its own node and role.
func (c *Case) signedAnything(name string, authority *trust.Material) bool {
	return slices.ContainsFunc(c.Credentials, func(cred *trust.Credential) bool {
		leaf := c.Material(cred.Certificate).Leaf()
		return cred.Node == authority.Place.Node && c.authorityFor(cred) == name && leaf != nil && trust.SignedBy(leaf, authority.Leaf())
	})
}

// keySigned tells whether the key beside an authority's certificate signed a
// credential of its node, whatever the certificate says.
func (c *Case) keySigned(a trust.Authority, key *trust.Material) bool {
	return slices.ContainsFunc(c.Credentials, func(cred *trust.Credential) bool {
		leaf := c.Material(cred.Certificate).Leaf()
		return cred.Node == a.Node && leaf != nil && slices.ContainsFunc(key.Keys, func(k crypto.PublicKey) bool { return trust.SignedWith(leaf, k) })
	})
}

func keyMismatch(c *Case) []Finding {
	var out []Finding
	for _, cred := range c.Credentials {
		m, k := c.Material(cred.Certificate), c.Material(cred.Key)
		if m.Leaf() == nil || !k.OK() || hasKey(k, m.Leaf().PublicKey) || c.misordered(cred) {
			continue // chain-order says the last more exactly
		}
		f := Finding{
			Cause: fmt.Sprintf("%s does not belong to the certificate in %s", named(cred.Key), named(cred.Certificate)),
			Fix:   replace(cred.Certificate.Path),
		}.at(cred.Key, cred.Certificate)
		if c.beside(cred.Certificate) {
			f.Fix = fromElsewhere(cred.Certificate)
		}
		if other := c.ownerOf(k); other != nil && !cred.KeySetting.IsZero() {
			f.Cause = fmt.Sprintf("%s names the key of %s, not that of %s", cred.KeySetting.Field, base(other.Certificate.Path), base(cred.Certificate.Path))
			f.Fix = fmt.Sprintf("set %s to %s", cred.KeySetting.Field, stem(cred.Certificate.Path)+".key")
			f = c.breaksOf(f, trust.KeyMismatch).at(cred.KeySetting, cred.Key)
			out = append(out, f)
			continue
		}
		out = append(out, c.breaksOf(f, trust.KeyMismatch))
	}
	return out
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
				Fix:     fmt.Sprintf("openssl pkey -in %s -pubout -out %s, then restart kube-apiserver (if %[1]s is the cluster's signing key)", s.Key.Path, v.Path),
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
				Fix:   fmt.Sprintf("add the public key of %s to %s and restart kube-apiserver there", s.Key, b.Place.Path),
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
	return out
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
		if k == nil || !k.HasPrivateKey || !c.isWorker(a.Node) {
			continue
		}
		f := Finding{
			Cause: fmt.Sprintf("the key of an authority (%s) is on a worker: whoever takes the worker takes the cluster", base(a.Key.Path)),
			Fix:   "shred -u " + a.Key.Path,
		}
		out = append(out, f.at(a.Key))
	}
	return out
}

func (c *Case) isWorker(node string) bool {
	for i := range c.Nodes {
		if c.Nodes[i].Name != node {
			continue
		}
		return !slices.ContainsFunc(c.Nodes[i].Components, func(p trust.Component) bool {
			return p.Name != "kubelet" && p.Name != "kube-proxy"
		})
	}
	return false
}
