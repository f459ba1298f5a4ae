package check

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// class tells why a leaf does not verify with a bundle.
type class int

const (
	recreated  class = iota // the authority was made anew, the leaf is of the old one
	unknown                 // the leaf is of an authority that is not trusted
	wrongFlag               // the verifier's flag names the file of another authority
	renamed                 // the authority's own certificate has the key, and another name
	misplaced               // the verifier's flag names a file that is no authority's
	stale                   // the verifier's copy is of an old or foreign authority
	incomplete              // the leaf's file lacks an intermediate
	diverged                // the nodes have authorities of their own
	headed                  // the authority is in the bundle, in a block that is passed over
)

// trustFault is a break of trust with its reason. Where the mend is made
// follows from whom the leaf belongs to:
//
//	leaf signed by its own authority?  no  → the leaf is old (recreated) or foreign (unknown)
//	                                   yes → the bundle is wrong: of another authority by flag
//	                                         (wrongFlag), no authority's at all (misplaced), of another control plane (diverged), or
//	                                         an old copy (stale)
type trustFault struct {
	class
	at    int // index of the break
	place trust.Place
	// own is the authority that the link should be about, nil when not here.
	own *trust.Authority
}

func (c *Case) trustFaults() []trustFault {
	var out []trustFault
	for i, b := range c.Breaks {
		switch b.Kind {
		case trust.OtherAuthority, trust.UnknownAuthority, trust.ChainIncomplete:
			// What a kubelet made itself has a finding of its own.
			ofKubelet := b.Credential != nil && b.Credential.Name == "kubelet-server" && selfMade(c.Material(b.Credential.Certificate).Leaf())
			if b.Bundle != nil && !ofKubelet && !c.blamesObject(b) {
				out = append(out, c.classify(i, b))
			}
		}
	}
	return out
}

func (c *Case) classify(i int, b Break) trustFault {
	name := c.authorityOf(b)
	leaf := c.Material(b.Credential.Certificate).Leaf()
	own := c.authority(name, b.Credential.Node)
	if own == nil {
		own = c.authority(name, b.Bundle.Anchors.Node)
	}
	f := trustFault{at: i, place: b.Credential.Certificate, own: own}
	home := c.signer(name, leaf, b.Credential.Node)
	switch {
	case c.passedOver(b.Bundle, b.Certificate):
		f.class, f.place = headed, b.Bundle.Anchors
	case b.Kind == trust.ChainIncomplete:
		f.class = incomplete
	case home == nil && own != nil && !bytes.Equal(c.certificateOf(*own).Leaf().RawSubject, leaf.RawIssuer) && trust.SignedWith(leaf, c.certificateOf(*own).Leaf().PublicKey):
		f.class = renamed
	case home == nil && own != nil && c.sameName(own, leaf) && !c.altered(own, leaf):
		f.class = recreated
	case home == nil:
		f.class = unknown
	default:
		f.own = cmp.Or(f.own, home)
		f.class, f.place = c.blameBundle(b, name, home)
		if theirs := c.ownFile(b.Bundle.Anchors); f.class == recreated && theirs != nil {
			f.own = theirs
		}
	}
	return f
}

// blameBundle: the leaf is of the right authority, so the bundle is wrong.
func (c *Case) blameBundle(b Break, name string, home *trust.Authority) (class, trust.Place) {
	anchors := b.Bundle.Anchors
	theirs := c.ownFile(anchors)
	switch {
	case theirs == nil && b.Bundle.Setting != anchors && c.credentialAt(anchors) != nil:
		return misplaced, b.Bundle.Setting
	case theirs != nil && theirs.Name != name && theirs.Name != "root-ca":
		return wrongFlag, b.Bundle.Setting
	case theirs != nil && theirs.Node != home.Node && c.controlPlane(theirs.Node) && c.signs(theirs):
		return diverged, anchors
	case c.agrees(anchors, name):
		return diverged, anchors
	case theirs != nil && theirs.Node != home.Node && c.Material(theirs.Key).OK():
		// A control plane's authority that signed nothing of its node is newer
		// than all that it should verify.
		if b.Credential.Node != theirs.Node {
			return recreated, anchors
		}
		return recreated, b.Credential.Certificate
	}
	return stale, anchors
}

// credentialAt returns the credential whose certificate stands at a place.
func (c *Case) credentialAt(p trust.Place) *trust.Credential {
	i := slices.IndexFunc(c.Credentials, func(cred *trust.Credential) bool { return cred.Certificate == p })
	if i < 0 {
		return nil
	}
	return c.Credentials[i]
}

// authorityFor names the authority that a credential should be of: where the
// layout says which signs it, that one, else by its role.
func (c *Case) authorityFor(cred *trust.Credential) string {
	if name := catalog.SignerOf(c.Authorities, cred); name != "" {
		return name
	}
	switch cred.Name {
	case "etcd-server", "etcd-peer", "etcd-healthcheck-client", "apiserver-etcd-client", "etcd-peer-client", "etcd-client":
		return "etcd-ca"
	case "front-proxy-client":
		return "front-proxy-ca"
	case "kubelet-server", "kubelet.conf":
		if c.authority("kubelet-ca", cred.Node) != nil {
			return "kubelet-ca"
		}
	}
	// The kubeconfigs of users stand on no node of the cluster.
	if i := slices.IndexFunc(c.Authorities, func(a trust.Authority) bool { return slices.Contains(a.Signs, catalog.Clients) }); i >= 0 && cred.Client && c.authority("ca", cred.Node) == nil {
		return c.Authorities[i].Name
	}
	return "ca"
}

// authorityOf names the authority that a half of a link is about, whichever file a
// flag names for it.
func (c *Case) authorityOf(b Break) string {
	switch n := c.Links[b.Link].Number; {
	case c.signsByTable():
		return c.authorityFor(b.Credential)
	case n == 1 || n == 2 || n == 3 || n == 15:
		return "etcd-ca"
	case n == aggregation:
		return "front-proxy-ca"
	case (n == 10 || n == 11) && b.Server || n == 8 && !b.Server:
		return c.authorityFor(b.Credential)
	}
	return "ca"
}

// signsByTable tells whether the layout says which authority signs what.
func (c *Case) signsByTable() bool {
	return slices.ContainsFunc(c.Authorities, func(a trust.Authority) bool { return len(a.Signs) > 0 })
}

// authority returns an authority of a node, or, when the node has none of the
// name, that of another, one whose key is at hand before others; nil when there
// is none.
func (c *Case) authority(name, node string) *trust.Authority {
	var other *trust.Authority
	for i := range c.Authorities {
		a := &c.Authorities[i]
		if a.Name != name || c.certificateOf(*a) == nil || c.onlyCopy(a) {
			continue
		}
		if a.Node == node {
			return a
		}
		if other == nil || !c.Material(other.Key).OK() && c.Material(a.Key).OK() {
			other = a
		}
	}
	return other
}

// onlyCopy tells whether the file is a worker's copy of an authority that a
// control plane holds.
func (c *Case) onlyCopy(a *trust.Authority) bool {
	if c.held == nil {
		c.held = map[string]bool{}
		for _, o := range c.Authorities {
			c.held[o.Name] = c.held[o.Name] || c.controlPlane(o.Node) && c.certificateOf(o) != nil
		}
	}
	return !c.controlPlane(a.Node) && c.held[a.Name]
}

// signer returns the authority of a name that signed the leaf, that of its own
// node first; nil when none did.
func (c *Case) signer(name string, leaf certificate, node string) *trust.Authority {
	var found *trust.Authority
	for i := range c.Authorities {
		a := &c.Authorities[i]
		m := c.certificateOf(*a)
		if a.Name != name || m == nil || c.onlyCopy(a) || !c.signed(leaf, m.Leaf()) {
			continue
		}
		if a.Node == node {
			return a
		}
		if found == nil {
			found = a
		}
	}
	return found
}

// altered tells whether a leaf claims the authority's very key and yet is not
// signed by it.
func (c *Case) altered(a *trust.Authority, leaf certificate) bool {
	id := c.certificateOf(*a).Leaf().SubjectKeyId
	return len(id) > 0 && bytes.Equal(id, leaf.AuthorityKeyId)
}

// controlPlane tells whether a node runs what holds an authority of its own.
func (c *Case) controlPlane(node string) bool {
	if c.controlPlanes == nil {
		c.controlPlanes = map[string]bool{}
		for _, name := range []string{"kube-apiserver", "etcd"} {
			c.components(name, func(p *trust.Component) { c.controlPlanes[p.Node] = true })
		}
	}
	return c.controlPlanes[node]
}

// sameName tells whether a certificate says that an authority of the name signed it,
// in whatever encoding.
func (c *Case) sameName(a *trust.Authority, leaf certificate) bool {
	own := c.certificateOf(*a).Leaf()
	return own.Subject.String() == leaf.Issuer.String() || sameAuthorityName(own.Subject.CommonName, leaf.Issuer.CommonName)
}

// ownFile returns the authority whose own file stands at a place.
func (c *Case) ownFile(p trust.Place) *trust.Authority {
	for i := range c.Authorities {
		if c.Authorities[i].Certificate == p {
			return &c.Authorities[i]
		}
	}
	return nil
}

// signs tells whether the authority signed a credential of its own node.
func (c *Case) signs(a *trust.Authority) bool {
	m := c.certificateOf(*a)
	return m != nil && c.signedAnything(a.Name, m)
}

// agrees tells whether a bundle holds the key of some control plane's authority
// of a name, which signs there.
func (c *Case) agrees(anchors trust.Place, name string) bool {
	return slices.ContainsFunc(c.Authorities, func(a trust.Authority) bool {
		return a.Name == name && c.controlPlane(a.Node) && c.signs(&a) && hasKeyOf(c.Material(anchors), c.certificateOf(a).Leaf())
	})
}

func hasKeyOf(m *trust.Material, want certificate) bool {
	return m != nil && slices.ContainsFunc(m.Certificates, func(o certificate) bool { return trust.SameKey(o.PublicKey, want.PublicKey) })
}

// ofClass groups the faults of a class by key, in order.
func (c *Case) ofClass(k class, key func(trustFault) string) [][]trustFault {
	var groups [][]trustFault
	index := map[string]int{}
	for _, f := range c.trust {
		if f.class != k {
			continue
		}
		id := key(f)
		i, seen := index[id]
		if !seen {
			i = len(groups)
			index[id] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], f)
	}
	return groups
}

func byPlace(f trustFault) string { return f.place.String() }

// finding makes one finding of a group of faults.
func (c *Case) finding(group []trustFault, places []trust.Place, cause, fix string) Finding {
	f := Finding{Cause: cause, Fix: fix}
	for _, t := range group {
		f.breaks = append(f.breaks, t.at)
		f.bundles = append(f.bundles, c.Breaks[t.at].Bundle.Anchors)
		if t.own != nil {
			f.needs = append(f.needs, t.own.Certificate)
		}
	}
	return f.at(places...)
}

func placesOf(group []trustFault) []trust.Place {
	var out []trust.Place
	for _, t := range group {
		out = append(out, t.place)
	}
	return sortedPlaces(out)
}

func authorityRecreated(c *Case) []Finding {
	groups := c.ofClass(recreated, func(f trustFault) string {
		return f.own.Certificate.String() + string(c.Breaks[f.at].Certificate.AuthorityKeyId)
	})
	var out []Finding
	for _, g := range groups {
		own := g[0].own
		leaves := slices.DeleteFunc(placesOf(g), func(p trust.Place) bool { return p == own.Certificate })
		if len(leaves) == 0 {
			leaves = placesOf(g)
		}
		places := leaves
		cause := fmt.Sprintf("%s was signed by an older authority of the same name as %s, with another key", names(leaves), base(own.Certificate.Path))
		fix := renewEach(leaves)
		if len(leaves) > 1 && !c.signs(own) {
			cause = fmt.Sprintf("authority %s was made anew: %d certificates are of the old one, which it does not verify any more", base(own.Certificate.Path), len(leaves))
			fix = c.restorePair(own) + "; or keep the new one and make all that is of it anew, on every node: kubepki renew --all"
			places = append([]trust.Place{own.Certificate}, leaves...)
		}
		f := c.finding(g, places, cause, fix)
		f.needs = append(append(f.needs, leaves...), c.staleBeside(places)...)
		f.cascade = true
		out = append(out, f)
	}
	return out
}

// staleBeside are the stale bundles in the files of places: a kubeconfig that
// is old as a whole is said once.
func (c *Case) staleBeside(places []trust.Place) []trust.Place {
	var out []trust.Place
	for _, f := range c.trust {
		if f.class == stale && slices.ContainsFunc(places, func(p trust.Place) bool { return p.File() == f.place.File() }) {
			out = append(out, f.place)
		}
	}
	return out
}

// oldBeside tells whether a certificate in the file of a place is of an old or
// foreign authority too.
func (c *Case) oldBeside(p trust.Place) bool {
	return slices.ContainsFunc(c.trust, func(f trustFault) bool {
		return (f.class == recreated || f.class == unknown) && f.place != p && f.place.File() == p.File()
	})
}

func names(places []trust.Place) string {
	s := named(places[0])
	if n := len(places) - 1; n > 0 {
		s += fmt.Sprintf(" (and %d more)", n)
	}
	return s
}

func authorityUnknown(c *Case) []Finding {
	var out []Finding
	for _, g := range c.ofClass(unknown, c.byWrongAuthority) {
		b := c.Breaks[g[0].at]
		if len(placesOf(g)) > 1 {
			out = append(out, c.wrongAuthority(g))
			continue
		}
		who := "an authority unknown here"
		if issuer := b.Certificate.Issuer.CommonName; issuer != "" {
			who = fmt.Sprintf("authority %q", issuer)
		}
		cause := fmt.Sprintf("%s is signed by %s, which %s does not hold", named(g[0].place), who, named(b.Bundle.Anchors))
		if g[0].own != nil && c.altered(g[0].own, b.Certificate) {
			cause = fmt.Sprintf("the signature of %s does not verify: the certificate was altered after %s signed it", named(g[0].place), base(g[0].own.Certificate.Path))
			if b.Certificate.SignatureAlgorithm == x509.UnknownSignatureAlgorithm {
				cause = fmt.Sprintf("the signature of %s is of a kind that Go, and so Kubernetes, does not know", named(g[0].place))
			}
		}
		f := c.finding(g, placesOf(g), cause, replace(g[0].place.Path))
		f.needs = append(append(f.needs, g[0].place), c.staleBeside(placesOf(g))...)
		f.cascade = true
		out = append(out, c.byFlag(f))
	}
	out = slices.Concat(c.exchangedPairs(out), c.passedOverAnchors(), c.renamedAuthority(), c.verifiesByMachine())
	for _, g := range c.ofClass(wrongFlag, byPlace) {
		b := c.Breaks[g[0].at]
		if b.Bundle.Setting.Field == rootCAFlag {
			continue // root-ca-mismatch says it more exactly
		}
		setting := cmp.Or(g[0].place.Field, "the default of "+c.Links[b.Link].Callee)
		cause := fmt.Sprintf("%s names %s, which is another authority's: %s does not verify with it", setting, base(b.Bundle.Anchors.Path), named(b.Credential.Certificate))
		fix := setFlag(g[0].place, setting, g[0].own.Certificate.Path)
		f := c.finding(g, placesOf(g), cause, fix)
		f.cascade = true
		out = append(out, f)
	}
	return out
}

// exchangedPairs makes one finding of two whose certificates, or authorities, are
// each the other's: they were swapped with their keys.
func (c *Case) exchangedPairs(found []Finding) []Finding {
	role := func(f Finding) string { // the authority that should have signed
		if a := c.ownFile(f.places[0]); a != nil {
			return a.Name
		}
		if cred := c.credentialAt(f.places[0]); cred != nil {
			return c.authorityFor(cred)
		}
		return ""
	}
	signed := func(f Finding, by string) bool { // by the authority of a role
		b := c.Breaks[f.breaks[0]]
		if own := c.ownFile(f.places[0]); own != nil {
			other := c.authority(by, own.Node)
			return other != nil && c.signed(c.Material(b.Credential.Certificate).Leaf(), c.certificateOf(*other).Leaf())
		}
		return c.signer(by, b.Certificate, f.Node) != nil
	}
	gone := map[int]bool{}
	for i := range found {
		for j := i + 1; j < len(found); j++ {
			a, b := found[i], found[j]
			if gone[i] || gone[j] || a.Node != b.Node || role(a) == role(b) || !signed(a, role(b)) || !signed(b, role(a)) {
				continue
			}
			both := sortedPlaces([]trust.Place{a.places[0], b.places[0]})
			f := Finding{Cause: fmt.Sprintf("%s and %s are swapped, with their keys: each is of the other's authority", both[0].Path, both[1].Path),
				Fix:    exchange(both[0], both[1], true),
				breaks: append(a.breaks, b.breaks...), needs: append(a.needs, b.needs...), cascade: true}
			found[i], gone[j] = f.at(append(both, append(a.places, b.places...)...)...), true
		}
	}
	var out []Finding
	for i, f := range found {
		if !gone[i] {
			out = append(out, f)
		}
	}
	return out
}

// byWrongAuthority groups what an authority should have signed and did not by
// that authority, when it signed nothing of its own: then its file is wrong,
// not the leaves.
func (c *Case) byWrongAuthority(f trustFault) string {
	if f.own != nil && !c.signs(f.own) {
		return f.own.Certificate.String()
	}
	return f.place.String()
}

func (c *Case) wrongAuthority(g []trustFault) Finding {
	own := g[0].own.Certificate
	cause := fmt.Sprintf("%s signed none of the certificates that should be of it (%s and %d more): it is another authority's", base(own.Path), named(g[0].place), len(placesOf(g))-1)
	f := c.finding(g, append([]trust.Place{own}, placesOf(g)...), cause, c.restorePair(g[0].own))
	f.cascade = true
	return f
}

// rootCAFlag is the flag that every pod's trust comes from.
const rootCAFlag = "--root-ca-file"

// bundleStale joins the stale copies of one old authority: they grew old by
// one and the same change.
func bundleStale(c *Case) []Finding {
	groups := c.ofClass(stale, func(f trustFault) string {
		if c.Breaks[f.at].Bundle.Setting.Field == rootCAFlag {
			return rootCAFlag
		}
		return string(c.Material(f.place).Leaf().Raw)
	})
	var out []Finding
	for _, g := range groups {
		if c.Breaks[g[0].at].Bundle.Setting.Field == rootCAFlag {
			continue
		}
		places := placesOf(g)
		cause := fmt.Sprintf("%s holds an old or foreign authority: %s does not verify with it", names(places), named(c.Breaks[g[0].at].Credential.Certificate))
		fix := "put the current authority there"
		if g[0].own != nil {
			cause += fmt.Sprintf(", though it does with %s", base(g[0].own.Certificate.Path))
			fix = c.freshCopy(places, g[0].own)
		}
		if c.oldBeside(places[0]) {
			cause += "; its client certificate is as old"
			fix = replace(places[0].Path)
		}
		f := c.finding(g, places, cause, fix)
		f.cascade = true
		out = append(out, f)
	}
	return out
}

func rootCAMismatch(c *Case) []Finding {
	var out []Finding
	for _, g := range append(c.ofClass(stale, byPlace), c.ofClass(wrongFlag, byPlace)...) {
		b := c.Breaks[g[0].at]
		if b.Bundle.Setting.Field != rootCAFlag {
			continue
		}
		cause := fmt.Sprintf("%s names %s, which does not verify %s: no pod can reach the apiserver", rootCAFlag, base(b.Bundle.Anchors.Path), named(b.Credential.Certificate))
		out = append(out, c.finding(g, []trust.Place{b.Bundle.Setting, b.Bundle.Anchors}, cause, c.rootCAFix(b.Bundle.Setting)))
	}
	return out
}

func chainIncomplete(c *Case) []Finding {
	var out []Finding
	for _, g := range c.ofClass(incomplete, byPlace) {
		b := c.Breaks[g[0].at]
		cause := fmt.Sprintf("%s lacks the intermediate %q between the leaf and the root that is trusted", named(g[0].place), b.Certificate.Issuer.CommonName)
		fix := c.completeChain(g[0].place, b.Certificate)
		out = append(out, c.finding(g, placesOf(g), cause, fix))
	}
	return out
}

func bundleExpired(c *Case) []Finding {
	var out []Finding
	seen, same := map[trust.Place]bool{}, map[string]int{}
	for _, b := range c.Bundles {
		m := c.Material(b.Anchors)
		if seen[b.Anchors] || !m.OK() || len(m.Certificates) == 0 || b.Anchors.InAPI() {
			continue
		}
		seen[b.Anchors] = true
		expired := slices.DeleteFunc(slices.Clone(m.Certificates), func(x certificate) bool { return !c.At.After(x.NotAfter) })
		if len(expired) == 0 || c.authorityItself(b.Anchors) && len(expired) == len(m.Certificates) || c.saidExpired(expired) {
			continue
		}
		f := Finding{Cause: fmt.Sprintf("%s holds only expired anchors", named(b.Anchors)), Fix: "copy the current certificate of the authority there", cascade: true}
		if len(expired) < len(m.Certificates) {
			f.Severity, f.cascade, f.Cause = Info, false, fmt.Sprintf("%s holds an expired anchor beside a good one", named(b.Anchors))
			f.Fix = c.pruneExpired(b)
		}
		f = f.at(b.Anchors)
		f = c.withBreaks(f, func(x Break) bool { return x.Kind == trust.Expired && x.Place == b.Anchors && x.Certificate.IsCA })
		id := string(f.Severity)
		for _, x := range m.Certificates {
			id += string(x.Raw)
		}
		if i, said := same[id]; said {
			out[i].breaks = append(out[i].breaks, f.breaks...)
			out[i] = out[i].at(sortedPlaces(append(out[i].places, f.places...))...)
			continue
		}
		same[id] = len(out)
		out = append(out, f)
	}
	return out
}

// authorityItself tells whether a place is an authority's own file, and no worker's copy.
func (c *Case) authorityItself(p trust.Place) bool {
	a := c.ownFile(p)
	return a != nil && !c.onlyCopy(a)
}

// saidExpired tells whether cert-expired speaks of the certificates already.
func (c *Case) saidExpired(expired []certificate) bool {
	return !slices.ContainsFunc(expired, func(x certificate) bool {
		var places []trust.Place
		for _, s := range c.standings {
			if s.Equal(x) {
				places = s.places
			}
		}
		return c.unneeded(standing{x, places})
	})
}
