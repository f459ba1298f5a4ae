package check

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// anchorsEmpty: nobody is trusted, or whom the machine of the API server trusts, which
// is never the authority of a name below .svc.
func anchorsEmpty(c *Case) []Finding {
	o := c.Objects()
	if o == nil {
		return nil
	}
	var out []Finding
	for i := range o.Bundles {
		b := &o.Bundles[i]
		m := c.Material(b.Place)
		switch {
		case b.Default && b.Service != "":
			f := Finding{Cause: fmt.Sprintf("%s is empty: kube-apiserver trusts the authorities of its own machine for service %s, whose name no public authority certifies", objectsNamed([]*trust.ObjectBundle{b}), b.Service),
				Fix: mendBundle(b, anyFile), Links: c.linksOfObject(b.Place), cascade: true}
			out = append(out, f.at(b.Place))
		case m.OK() && len(m.Certificates) == 0:
			f := Finding{Cause: fmt.Sprintf("%s holds no certificate, so nobody is trusted", objectsNamed([]*trust.ObjectBundle{b})), Fix: mendBundle(b, anyFile), Links: c.linksOfObject(b.Place), cascade: true}
			f = c.breaksOf(f.at(b.Place), trust.NoBundle)
			out = append(out, f)
		}
	}
	return out
}

// anchorsExpired: the certificates of objects that stand in no file. Of those that do
// cert-expired tells.
func anchorsExpired(c *Case) []Finding {
	o := c.Objects()
	if o == nil {
		return nil
	}
	var out []Finding
	for i := range o.Bundles {
		b := &o.Bundles[i]
		m := c.Material(b.Place)
		if !m.OK() || len(m.Certificates) == 0 {
			continue
		}
		expired := slices.DeleteFunc(slices.Clone(m.Certificates), func(x certificate) bool { return !c.At.After(x.NotAfter) || !c.onlyInObjects(x) })
		if len(expired) == 0 {
			continue
		}
		f := Finding{Cause: fmt.Sprintf("%s holds only expired anchors: the last ended at %s", objectsNamed([]*trust.ObjectBundle{b}), date(lastEnd(expired))),
			Fix: mendBundle(b, anyFile), Links: c.linksOfObject(b.Place), cascade: true}
		if slices.ContainsFunc(m.Certificates, func(x certificate) bool { return !c.At.After(x.NotAfter) }) {
			f.Severity, f.Cause, f.cascade, f.Links = Info, fmt.Sprintf("%s holds an expired anchor beside a good one", objectsNamed([]*trust.ObjectBundle{b})), false, nil
		}
		out = append(out, c.withBreaks(f.at(b.Place), func(x Break) bool {
			return x.Kind == trust.Expired && x.Place == b.Place || f.cascade && c.blamesObject(x) && x.Bundle.Anchors == b.Place
		}))
	}
	return sameAnchors(c, out)
}

// allExpired tells of anchors of which none is good any more.
func (c *Case) allExpired(at trust.Place) bool {
	m := c.Material(at)
	return m.OK() && len(m.Certificates) > 0 && !slices.ContainsFunc(m.Certificates, func(x certificate) bool { return !c.At.After(x.NotAfter) || !c.onlyInObjects(x) })
}

// sameAnchors joins findings of one severity about the same anchors: they ended at
// once wherever they stand.
func sameAnchors(c *Case, in []Finding) []Finding {
	var out []Finding
	for _, f := range in {
		i := slices.IndexFunc(out, func(o Finding) bool {
			return o.Severity == f.Severity && slices.EqualFunc(c.Material(o.places[0]).Certificates, c.Material(f.places[0]).Certificates, (*x509.Certificate).Equal)
		})
		if i < 0 {
			out = append(out, f)
			continue
		}
		links := out[i].Links
		for _, l := range f.Links {
			if !slices.Contains(links, l) {
				links = append(links, l)
			}
		}
		out[i].Links, out[i].breaks = links, append(out[i].breaks, f.breaks...)
		out[i] = out[i].at(append(out[i].places, f.places...)...)
	}
	return out
}

func lastEnd(certificates []certificate) (end time.Time) {
	for _, x := range certificates {
		if x.NotAfter.After(end) {
			end = x.NotAfter
		}
	}
	return end
}

// onlyInObjects tells whether a certificate stands in no file.
func (c *Case) onlyInObjects(x certificate) bool {
	for _, s := range c.standings {
		if s.Equal(x) {
			return c.objectAnchor(s)
		}
	}
	return true
}

// objectAnchor tells whether a certificate stands in objects alone, as an anchor.
func (c *Case) objectAnchor(s standing) bool {
	return c.Objects() != nil && !slices.ContainsFunc(s.places, func(p trust.Place) bool { return c.Objects().Bundle(p) == nil })
}

// objectsStale: anchors of objects that disagree with the authority itself.
func objectsStale(c *Case) []Finding {
	o := c.Objects()
	if o == nil {
		return nil
	}
	out, said := c.refusingTheServer(o)
	out = append(out, c.rootCAsDiffer(o, said)...)
	out = append(out, c.oldCopies(o)...)
	return append(out, c.publishedOtherwise(o, said)...)
}

// refusingTheServer are the bundles with which the API server does not verify: one
// finding for each use. Where kube-controller-manager's own --root-ca-file does not
// verify it either, root-ca-mismatch says so, and the copies follow.
func (c *Case) refusingTheServer(o *trust.Objects) (out []Finding, said map[trust.Place]bool) {
	said = map[trust.Place]bool{}
	breaks := map[trust.BundleUse][]int{}
	var uses []trust.BundleUse
	for i, b := range c.Breaks {
		if !c.blamesObject(b) || c.allExpired(b.Bundle.Anchors) {
			continue // of the expired anchorsExpired tells
		}
		use := o.Bundle(b.Bundle.Anchors).Use
		if breaks[use] == nil {
			uses = append(uses, use)
		}
		breaks[use] = append(breaks[use], i)
		said[b.Bundle.Anchors] = true
	}
	for _, use := range uses {
		var bundles []*trust.ObjectBundle
		var places []trust.Place
		for _, i := range breaks[use] {
			if at := c.Breaks[i].Bundle.Anchors; !slices.Contains(places, at) {
				places, bundles = append(places, at), append(bundles, o.Bundle(at))
			}
		}
		leaf := c.Breaks[breaks[use][0]].Credential
		f := Finding{breaks: breaks[use], cascade: true, Fix: mendObject(places[0].Path),
			Cause: fmt.Sprintf("%s holds an old or foreign authority: %s does not verify with it", objectsNamed(bundles), c.servingNamed(leaf))}
		if a := c.signer(c.authorityFor(leaf), c.Material(leaf.Certificate).Leaf(), leaf.Node); a != nil {
			f.Cause += fmt.Sprintf(", though it does with %s", base(a.Certificate.Path))
			f.needs = []trust.Place{a.Certificate}
		}
		out = append(out, c.rootCauseOf(use, f.at(places...)))
	}
	return out, said
}

// servingNamed names the API server's certificate.
func (c *Case) servingNamed(cred *trust.Credential) string {
	if o := c.Objects(); cred.Certificate == o.Presented {
		return "the API server at " + strings.TrimPrefix(o.Presented.Path, "https://")
	}
	return named(cred.Certificate)
}

// rootCauseOf makes what kube-controller-manager publishes a consequence of its flag,
// where that is as wrong.
func (c *Case) rootCauseOf(use trust.BundleUse, f Finding) Finding {
	if use != trust.RootCA && use != trust.TokenCA && use != trust.ServingCA {
		return f
	}
	for _, b := range c.Breaks {
		if b.Bundle != nil && b.Bundle.Setting.Field == rootCAFlag && (b.Kind == trust.OtherAuthority || b.Kind == trust.UnknownAuthority) {
			f.follows = b.Bundle.Setting
		}
	}
	return f
}

// rootCAsDiffer: one namespace does not have what the others have, though the API
// server verifies with both. Somebody wrote it who is faster than
// kube-controller-manager, or that does not run.
func (c *Case) rootCAsDiffer(o *trust.Objects, said map[trust.Place]bool) []Finding {
	var groups [][]*trust.ObjectBundle // of the same certificates, whatever the text around them
	for i := range o.Bundles {
		b := &o.Bundles[i]
		m := c.Material(b.Place)
		if b.Use != trust.RootCA || said[b.Place] || !m.OK() || len(m.Certificates) == 0 || c.allExpired(b.Place) {
			continue
		}
		same := func(g []*trust.ObjectBundle) bool { return sameAuthorities(c.Material(g[0].Place), m) }
		if g := slices.IndexFunc(groups, same); g >= 0 {
			groups[g] = append(groups[g], b)
		} else {
			groups = append(groups, []*trust.ObjectBundle{b})
		}
	}
	if len(groups) < 2 {
		return nil
	}
	size := func(g []*trust.ObjectBundle) (n int) {
		for _, b := range g {
			n += 1 + len(b.Copies)
		}
		return n
	}
	most := slices.MaxFunc(groups, func(x, y []*trust.ObjectBundle) int { return size(x) - size(y) })
	var odd []*trust.ObjectBundle
	var places []trust.Place
	for _, g := range groups {
		if g[0] != most[0] {
			odd = append(odd, g...)
		}
	}
	for _, b := range odd {
		places = append(places, b.Place)
	}
	f := Finding{Severity: Warning, Links: []int{17}, Fix: mendObject(places[0].Path), needs: places,
		Cause: fmt.Sprintf("%s differs from that of %d other namespaces: %s", objectsNamed(odd), size(most), c.difference(c.Material(places[0]), c.Material(most[0].Place)))}
	if c.presentedJudges(o) == nil && len(groups) == 2 && size(most) > size(odd) && disjoint(c.Material(places[0]), c.Material(most[0].Place)) {
		// Nothing verifies with both.
		f.Severity, f.cascade = Error, true
	}
	return []Finding{f.at(places...)}
}

// presentedJudges is what the API server presents, where pods are presented it too.
func (c *Case) presentedJudges(o *trust.Objects) *trust.Material {
	if !c.noAPIServer() {
		return c.Material(o.Presented)
	}
	if o.Inside && !o.Insecure {
		return c.Material(o.Presented)
	}
	return nil
}

func sameAuthorities(a, b *trust.Material) bool {
	within := func(x, y *trust.Material) bool {
		return !slices.ContainsFunc(x.Certificates, func(one certificate) bool { return !slices.ContainsFunc(y.Certificates, one.Equal) })
	}
	return within(a, b) && within(b, a)
}

func disjoint(a, b *trust.Material) bool {
	return !slices.ContainsFunc(a.Certificates, func(x certificate) bool { return hasKeyOf(b, x) })
}

// difference says which anchors one bundle has beyond another, and which it lacks.
func (c *Case) difference(m, other *trust.Material) string {
	var said []string
	for _, x := range m.Certificates {
		if !slices.ContainsFunc(other.Certificates, x.Equal) {
			said = append(said, fmt.Sprintf("it holds %s (serial %X)", subject(x), x.SerialNumber))
		}
	}
	for _, x := range other.Certificates {
		if !slices.ContainsFunc(m.Certificates, x.Equal) {
			said = append(said, fmt.Sprintf("it lacks %s (serial %X)", subject(x), x.SerialNumber))
		}
	}
	const most = 4
	return strings.Join(said[:min(len(said), most)], ", ")
}

// current are the authorities that are known to be the cluster's own: those of the
// files, or, without any, those by which the API server was verified.
func (c *Case) current(o *trust.Objects) []certificate {
	var all []certificate
	for _, a := range c.Authorities {
		if m := c.certificateOf(a); m != nil {
			all = append(all, m.Certificates...)
		}
	}
	if len(all) > 0 {
		return all
	}
	seen := c.presentedJudges(o)
	if seen.Leaf() == nil {
		return nil
	}
	trusted := []trust.Place{o.CA}
	for i := range o.Bundles {
		if o.Bundles[i].Use == trust.RootCA {
			trusted = append(trusted, o.Bundles[i].Place)
		}
	}
	for _, p := range trusted {
		m := c.Material(p)
		if m.OK() && slices.ContainsFunc(m.Certificates, func(x certificate) bool {
			return slices.ContainsFunc(seen.Certificates, func(y certificate) bool { return trust.SignedBy(y, x) })
		}) {
			all = append(all, m.Certificates...)
		}
	}
	return all
}

// oldCopies are anchors for extension API servers and webhooks that are nothing but
// copies of authorities of the cluster as they were: of the name, with another key.
// Those of others are theirs. Names are compared as texts: tools encode them in more
// than one way.
func (c *Case) oldCopies(o *trust.Objects) []Finding {
	current := c.current(o)
	old := func(x certificate) bool {
		return slices.ContainsFunc(current, func(a certificate) bool { return a.Subject.String() == x.Subject.String() })
	}
	var out []Finding
	for i := range o.Bundles {
		b := &o.Bundles[i]
		m := c.Material(b.Place)
		if b.Use != trust.ServiceCA && b.Use != trust.WebhookCA && b.Use != trust.ConversionCA || b.Available || !m.OK() || len(m.Certificates) == 0 || c.allExpired(b.Place) {
			continue
		}
		if slices.ContainsFunc(m.Certificates, func(x certificate) bool { return !old(x) }) || slices.ContainsFunc(current, func(a certificate) bool { return hasKeyOf(m, a) }) {
			continue
		}
		x := m.Certificates[0]
		f := Finding{Cause: fmt.Sprintf("%s holds an old %s: the authority of this name has another key now", objectsNamed([]*trust.ObjectBundle{b}), subject(x)),
			Fix: mendBundle(b, c.fileOf(x)), Links: c.linksOfObject(b.Place), cascade: true}
		out = append(out, f.at(b.Place))
	}
	return out
}

// fileOf is the file of the authority that has the name of a certificate.
func (c *Case) fileOf(x certificate) string {
	for _, a := range c.Authorities {
		if m := c.certificateOf(a); m != nil && m.Leaf().Subject.String() == x.Subject.String() {
			return a.Certificate.Path
		}
	}
	return anyFile
}

// publishedOtherwise compares what the API servers and kube-controller-managers
// publish with the files that it is made of, unless the look at the running
// components has done so.
func (c *Case) publishedOtherwise(o *trust.Objects, said map[trust.Place]bool) []Finding {
	var out []Finding
	for i := range o.Bundles {
		b := &o.Bundles[i]
		m := c.Material(b.Place)
		if said[b.Place] || !m.OK() || len(m.Certificates) == 0 || c.allExpired(b.Place) {
			continue
		}
		component, flag, seen := catalog.APIServer, "", func(p *trust.Published) []*x509.Certificate { return p.ClientCAs }
		switch b.Use {
		case trust.ClientCA:
			flag = "client-ca-file"
		case trust.RequestheaderCA:
			flag, seen = "requestheader-client-ca-file", func(p *trust.Published) []*x509.Certificate { return p.RequestheaderCAs }
		case trust.RootCA:
			component, flag, seen = catalog.ControllerManager, "root-ca-file", func(*trust.Published) []*x509.Certificate { return nil }
		default:
			continue
		}
		if c.sawPublished(func(p *trust.Published) bool { return seen(p) != nil }) {
			continue
		}
		if f, ok := c.comparedWithFlag(b, m, component, flag); ok {
			out = append(out, f)
		}
	}
	return out
}

// comparedWithFlag: what is published lacks an authority of the file, or, of what
// kube-apiserver adds to and takes nothing away from, holds one beyond it.
func (c *Case) comparedWithFlag(b *trust.ObjectBundle, m *trust.Material, component, flag string) (Finding, bool) {
	files := c.filesOfFlag(component, flag)
	name := objectsNamed([]*trust.ObjectBundle{b})
	var lacking []trust.Place
	for _, f := range files {
		if slices.ContainsFunc(f.Certificates, func(x certificate) bool { return !c.outlived(x) && !slices.ContainsFunc(m.Certificates, x.Equal) }) {
			lacking = append(lacking, f.Place)
		}
	}
	if len(lacking) > 0 && (component == catalog.APIServer || len(lacking) == len(files)) {
		f := Finding{Cause: fmt.Sprintf("%s lacks an authority of %s, which --%s names", name, base(lacking[0].Path), flag), Fix: mendBundle(b, anyFile), Links: c.linksOfObject(b.Place), needs: lacking}
		return f.at(b.Place), true
	}
	if component != catalog.APIServer || len(files) == 0 {
		return Finding{}, false
	}
	for _, x := range m.Certificates {
		if !c.outlived(x) && !slices.ContainsFunc(files, func(f *trust.Material) bool { return slices.ContainsFunc(f.Certificates, x.Equal) }) {
			f := Finding{Severity: Warning, Links: c.linksOfObject(b.Place), Cause: fmt.Sprintf("%s still holds %s (serial %X), which no --%s given here holds: extension API servers go on to trust it", name, subject(x), x.SerialNumber, flag),
				Fix: mendBundle(b, anyFile)}
			return f.at(b.Place), true
		}
	}
	return Finding{}, false
}

// clusterInfoElsewhere: nodes that join are sent to where nothing answers in the name.
func clusterInfoElsewhere(c *Case) []Finding {
	o := c.Objects()
	if o == nil || o.ClusterInfo == nil || o.ClusterInfo.Reason != "" {
		return nil
	}
	u, err := url.Parse(o.ClusterInfo.Server)
	if err != nil || u.Hostname() == "" {
		return nil
	}
	var shown []*trust.Material
	c.components("kube-apiserver", func(p *trust.Component) {
		file, _ := p.Flag("tls-cert-file")
		if m := c.Material(trust.Place{Node: p.Node, Path: file}); m.Leaf() != nil {
			shown = append(shown, m)
		}
	})
	if len(shown) == 0 && c.noAPIServer() && o.Inside && !o.Insecure {
		shown = append(shown, c.Material(o.Presented))
	}
	if len(shown) == 0 || slices.ContainsFunc(shown, func(m *trust.Material) bool { return m.Leaf().VerifyHostname(u.Hostname()) == nil }) {
		return nil
	}
	p := o.ClusterInfo.Place
	p.Field += ".server"
	f := Finding{Cause: fmt.Sprintf("cluster-info sends nodes that join to %s, which no certificate of an API server holds", u.Host), Fix: mendObject(p.Path), Links: []int{16}}
	return []Finding{f.at(p)}
}
