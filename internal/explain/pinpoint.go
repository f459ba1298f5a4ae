package explain

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/trust"
)

// Found is what the files of one cluster say of an error.
type Found struct {
	// Explained tells that a finding accounts for the error; Says is the answer in
	// a sentence.
	Explained bool   `json:"explained"`
	Says      string `json:"says"`
	// Links are those that the line can be about, the broken ones alone where
	// there are some.
	Links []FoundLink `json:"links"`
	// Certificates are those that the line names, by serial, key id or names.
	Certificates []FoundCertificate `json:"certificates"`
	// Findings are those that explain the error, the likeliest first.
	Findings []check.Finding `json:"findings"`
}

// FoundLink is one link of the cluster.
type FoundLink struct {
	Number int    `json:"number"`
	Caller string `json:"caller"`
	Callee string `json:"callee"`
	Half   string `json:"half"`
	Broken bool   `json:"broken"`
	// Unseen tells that the half was not judged: a part of it was not in what was
	// given, or may not be read.
	Unseen bool `json:"unseen,omitempty"`
	// Credential is the place of what is shown, Bundle that of what it is judged
	// by, Setting the flag or field that names the bundle.
	Credential string `json:"credential,omitempty"`
	Bundle     string `json:"bundle,omitempty"`
	Setting    string `json:"setting,omitempty"`
}

// FoundCertificate is a certificate that stands in a file.
type FoundCertificate struct {
	Place    string    `json:"place"`
	Subject  string    `json:"subject"`
	Issuer   string    `json:"issuer"`
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"notAfter"`
}

// maxFound bounds the links and certificates that are listed.
const maxFound = 20

// Pinpoint looks for what an error is about in a cluster: the graph of its files,
// and what was found of them.
func (e *Explanation) Pinpoint(g *trust.Graph, r *check.Result) {
	p := &pinpoint{e: e, g: g, r: r}
	p.candidates()
	p.certificates()
	f := &Found{Links: []FoundLink{}, Certificates: []FoundCertificate{}, Findings: []check.Finding{}}
	f.Findings = append(f.Findings, p.findings()...)
	f.Explained = len(f.Findings) > 0
	for _, l := range p.links {
		f.Links = append(f.Links, p.link(l)...)
	}
	if slices.ContainsFunc(f.Links, func(l FoundLink) bool { return l.Broken }) {
		f.Links = slices.DeleteFunc(f.Links, func(l FoundLink) bool { return !l.Broken })
	}
	f.Links = f.Links[:min(len(f.Links), maxFound)]
	for _, c := range p.shown[:min(len(p.shown), maxFound)] {
		f.Certificates = append(f.Certificates, FoundCertificate{Place: c.place.String(), Subject: c.cert.Subject.String(), Issuer: c.cert.Issuer.String(),
			Serial: trust.SerialText(c.cert.SerialNumber), NotAfter: c.cert.NotAfter.UTC()})
	}
	f.Says = p.says(f)
	e.Found = f
}

type pinpoint struct {
	e     *Explanation
	g     *trust.Graph
	r     *check.Result
	links []*check.JudgedLink
	shown []standing // certificates that the line names
}

// standing is a certificate where it stands.
type standing struct {
	place trust.Place
	cert  *x509.Certificate
}

// candidates are the links that the line can be about. What it tells leaves out
// links as long as some remain: a line may tell what no file knows.
func (p *pinpoint) candidates() {
	e := p.e
	for i := range p.r.Links {
		if l := &p.r.Links[i]; slices.Contains(e.Links, l.Number) {
			p.links = append(p.links, l)
		}
	}
	p.keep(func(l *check.JudgedLink) bool { return e.Component == "" || p.writer(l, e.Component) })
	if node := p.nodeNamed(e.Node); node != "" {
		p.keep(func(l *check.JudgedLink) bool { return p.writerNode(l) == node })
	}
	if host := hostOf(e.Facts.Dialled); host != "" {
		p.keep(func(l *check.JudgedLink) bool { return l.Server != nil && dials(l.Server, host) })
	}
	if host := hostOf(e.Facts.Peer); host != "" && e.Direction == Serving {
		p.keep(func(l *check.JudgedLink) bool { return p.livesAt(nodeOf(l.Caller), host) })
	}
	if e.Facts.Name != "" && e.Class == "name-mismatch" {
		p.keep(func(l *check.JudgedLink) bool { return l.Server != nil && dials(l.Server, plainHost(e.Facts.Name)) })
	}
	if user, ok := strings.CutPrefix(e.Facts.User, "system:node:"); ok {
		p.keep(func(l *check.JudgedLink) bool { return nodeOf(l.Caller) == p.nodeNamed(user) })
	}
}

func (p *pinpoint) keep(fits func(*check.JudgedLink) bool) {
	var kept []*check.JudgedLink
	for _, l := range p.links {
		if fits(l) {
			kept = append(kept, l)
		}
	}
	if len(kept) > 0 {
		p.links = kept
	}
}

// writer tells whether a component is the end of a link that wrote the line.
func (p *pinpoint) writer(l *check.JudgedLink, component string) bool {
	_, caller := trust.SplitID(l.Caller)
	_, callee := trust.SplitID(l.Callee)
	switch p.e.Direction {
	case Serving:
		return callee == component
	case Dialling:
		return caller == component
	}
	return caller == component || callee == component
}

func (p *pinpoint) writerNode(l *check.JudgedLink) string {
	if p.e.Direction == Serving {
		return nodeOf(l.Callee)
	}
	return nodeOf(l.Caller)
}

func nodeOf(component string) string {
	node, _ := trust.SplitID(component)
	return node
}

// nodeNamed returns the name of the node that a host name stands for; empty when
// none does.
func (p *pinpoint) nodeNamed(host string) string {
	for i := range p.g.Nodes {
		n := &p.g.Nodes[i]
		if host != "" && (n.Name == host || n.NodeName == host || strings.HasPrefix(host, n.Name+".") && n.Name != "") {
			return n.Name
		}
	}
	return ""
}

// livesAt tells whether a server of a node is reached at a host.
func (p *pinpoint) livesAt(node, host string) bool {
	for i := range p.r.Links {
		if l := &p.r.Links[i]; nodeOf(l.Callee) == node && l.Server != nil && dials(l.Server, host) && !strings.HasPrefix(host, "127.") {
			return true
		}
	}
	return false
}

func dials(h *trust.ServerHalf, host string) bool {
	if h.Dialled != nil && plainHost(h.Dialled.Host) == host {
		return true
	}
	return slices.ContainsFunc(h.Names, func(n string) bool { return plainHost(n) == host })
}

// certificates finds what the line tells of a certificate in the files.
func (p *pinpoint) certificates() {
	f := p.e.Facts
	for _, place := range p.places() {
		for _, c := range p.g.Materials[place].Certificates {
			if names(c, &f) {
				p.shown = append(p.shown, standing{place, c})
			}
		}
	}
	if len(p.shown) == 0 {
		p.byDates()
	}
	if len(p.shown) > 0 {
		p.keep(func(l *check.JudgedLink) bool {
			return slices.ContainsFunc(p.credentials(l), func(at trust.Place) bool {
				return slices.ContainsFunc(p.shown, func(s standing) bool { return s.place == at })
			})
		})
	}
}

// byDates finds the certificate of a candidate by its end or begin, which alone
// is no proof.
func (p *pinpoint) byDates() {
	f := p.e.Facts
	if f.NotAfter == "" && f.NotBefore == "" {
		return
	}
	for _, l := range p.links {
		for _, at := range p.credentials(l) {
			if m := p.g.Material(at); m.OK() {
				for _, c := range m.Certificates {
					if f.NotAfter != "" && c.NotAfter.UTC().Format(time.RFC3339) == f.NotAfter || f.NotBefore != "" && c.NotBefore.UTC().Format(time.RFC3339) == f.NotBefore {
						p.shown = append(p.shown, standing{at, c})
					}
				}
			}
		}
	}
	seen := map[trust.Place]bool{}
	p.shown = slices.DeleteFunc(p.shown, func(s standing) bool {
		was := seen[s.place]
		seen[s.place] = true
		return was
	})
}

func (p *pinpoint) places() []trust.Place {
	var all []trust.Place
	for place := range p.g.Materials {
		all = append(all, place)
	}
	slices.SortFunc(all, trust.Place.Compare)
	return all
}

// names tells whether a line that tells f is about a certificate: by serial and
// key id where it tells those, by the list of names, or by the common name.
func names(c *x509.Certificate, f *Facts) bool {
	if f.Serial != "" {
		return trust.SerialText(c.SerialNumber) == f.Serial && (f.KeyID == "" || plainHex(hexOf(c.SubjectKeyId)) == f.KeyID || len(c.SubjectKeyId) == 0)
	}
	if len(f.Names) > 0 {
		if c.IsCA {
			return false // kubeadm's authorities hold their own name
		}
		held := slices.Clone(c.DNSNames)
		for _, ip := range c.IPAddresses {
			held = append(held, ip.String())
		}
		return slices.Equal(c.DNSNames, f.Names) || slices.Equal(held[len(c.DNSNames):], f.Names)
	}
	return f.CommonName != "" && c.Subject.CommonName == f.CommonName
}

func hexOf(b []byte) string { return fmt.Sprintf("%X", b) }

// credentials are the places of what the refused side shows; of both sides where
// the line does not tell.
func (p *pinpoint) credentials(l *check.JudgedLink) []trust.Place {
	var all []trust.Place
	if h := l.Server; p.e.Half != HalfClient && h != nil && h.Credential != nil {
		all = append(all, h.Credential.Certificate)
	}
	if h := l.Client; p.e.Half != HalfServer && h != nil && h.Credential != nil {
		all = append(all, h.Credential.Certificate)
	}
	return all
}

// bundles are the places of what the credentials are judged by.
func (p *pinpoint) bundles(l *check.JudgedLink) []trust.Place {
	var all []trust.Place
	if h := l.Server; p.e.Half != HalfClient && h != nil && h.Bundle != nil {
		all = append(all, h.Bundle.Anchors, h.Bundle.Setting)
	}
	if h := l.Client; p.e.Half != HalfServer && h != nil && h.Bundle != nil {
		all = append(all, h.Bundle.Anchors, h.Bundle.Setting)
	}
	if l.Signing != nil {
		all = append(append(all, l.Signing.Key), l.Signing.VerifyBy...)
	}
	return all
}

func (p *pinpoint) link(l *check.JudgedLink) []FoundLink {
	var all []FoundLink
	for _, h := range l.Halves {
		if p.e.Half != "" && h.Side != p.e.Half {
			continue
		}
		f := FoundLink{Number: l.Number, Caller: l.Caller, Callee: l.Callee, Half: h.Side, Broken: h.State == check.Broken, Unseen: h.State == check.Unseen}
		switch {
		case h.Side == HalfServer && l.Server != nil:
			f.fill(l.Server.Credential, l.Server.Bundle)
		case h.Side == HalfClient && l.Client != nil:
			f.fill(l.Client.Credential, l.Client.Bundle)
		case l.Signing != nil:
			f.Credential, f.Bundle = l.Signing.Key.String(), placesText(l.Signing.VerifyBy)
		}
		all = append(all, f)
	}
	return all
}

func (f *FoundLink) fill(c *trust.Credential, b *trust.Bundle) {
	if c != nil {
		f.Credential = c.Certificate.String()
	}
	if b != nil {
		f.Bundle, f.Setting = b.Anchors.String(), b.Setting.String()
	}
}

func placesText(places []trust.Place) string {
	var all []string
	for _, p := range places {
		all = append(all, p.String())
	}
	return strings.Join(all, ", ")
}

// findings are those that explain the error, the likeliest first. One explains
// it when its kind can, and it is about a broken half of a candidate or about a
// file that the line or the candidate names.
func (p *pinpoint) findings() []check.Finding {
	type ranked struct {
		finding check.Finding
		rank    [3]int
	}
	var all []ranked
	for _, f := range p.r.Findings {
		kind := p.kind(&f)
		if kind < 0 || f.Severity == check.Info && !p.kubeletsAlone() {
			continue
		}
		named, linked := p.namesPlace(&f), p.breaks(&f)
		if !named && !linked {
			continue
		}
		all = append(all, ranked{f, [3]int{yes(linked), yes(named), kind}})
	}
	slices.SortStableFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.rank[0]+a.rank[1], b.rank[0]+b.rank[1]), cmp.Compare(a.rank[2], b.rank[2]))
	})
	var out []check.Finding
	for _, r := range all {
		// What only the file or only the link shares is left out beside better.
		if len(out) > 0 && r.rank[0]+r.rank[1] > all[0].rank[0]+all[0].rank[1] {
			break
		}
		out = append(out, r.finding)
	}
	return out
}

// kubeletsAlone tells that the line is about a kubelet's serving certificate,
// where what is otherwise only worth knowing explains an error.
func (p *pinpoint) kubeletsAlone() bool {
	return len(p.e.Links) > 0 && p.e.Half == HalfServer && !slices.ContainsFunc(p.e.Links, func(n int) bool { return linkOf(n).callee != catalog.Kubelet })
}

func yes(b bool) int {
	if b {
		return 0
	}
	return 1
}

// kind is the place of a finding, or of what follows from it, among those that
// can explain the error; -1 when it cannot.
func (p *pinpoint) kind(f *check.Finding) int {
	if i := slices.Index(p.e.Findings, f.ID); i >= 0 {
		return i
	}
	for _, c := range f.Consequences {
		if i := slices.Index(p.e.Findings, c.ID); i >= 0 {
			return len(p.e.Findings) + i
		}
	}
	return -1
}

// breaks tells whether a finding breaks the half of a candidate.
func (p *pinpoint) breaks(f *check.Finding) bool {
	return slices.ContainsFunc(p.links, func(l *check.JudgedLink) bool {
		if !slices.Contains(l.Findings, f.ID) || !slices.Contains(f.Links, l.Number) {
			return false
		}
		if !slices.ContainsFunc(l.Halves, func(h check.Half) bool { return h.State == check.Broken && (p.e.Half == "" || h.Side == p.e.Half) }) {
			return false
		}
		// Of several findings of one kind, that which is of this link's nodes.
		return f.Node == "" || f.Node == nodeOf(l.Caller) || f.Node == nodeOf(l.Callee)
	})
}

// namesPlace tells whether a finding is about a file that the line names, that
// holds a certificate which it names, or, where the finding breaks no link, that
// a candidate uses.
func (p *pinpoint) namesPlace(f *check.Finding) bool {
	at := func(q trust.Place) bool {
		return slices.Contains(f.Paths, q.Path) && (f.Node == "" || f.Node == q.Node)
	}
	if p.e.Facts.Path != "" && slices.Contains(f.Paths, p.e.Facts.Path) {
		return p.nodeNamed(p.e.Node) == "" || f.Node == p.nodeNamed(p.e.Node)
	}
	if slices.ContainsFunc(p.shown, func(s standing) bool { return at(s.place) }) {
		return true
	}
	return slices.ContainsFunc(p.links, func(l *check.JudgedLink) bool {
		return slices.ContainsFunc(p.bundles(l), at) || slices.ContainsFunc(p.credentials(l), at)
	})
}

// says is the answer in a sentence.
func (p *pinpoint) says(f *Found) string {
	facts := p.e.Facts
	switch {
	case len(f.Findings) > 0:
		first := f.Findings[0]
		at := trust.Place{Node: first.Node, Path: first.Path, Field: first.Field}
		return fmt.Sprintf("%s at %s: %s", first.ID, at, first.Cause)
	case facts.Serial != "" && len(p.shown) == 0:
		return fmt.Sprintf("no file of what was given holds the certificate with serial %s%s: it was replaced since the line was written (then a process may still show it: kubepki verify --live), or it is of a node or cluster that was not given",
			facts.Serial, p.issuer())
	case len(p.e.Links) > 0 && len(p.links) == 0:
		return "no file of what was given explains it: none is of such a link; give the roots of all nodes concerned, or look at the running components with kubepki verify --live"
	case p.e.Class == "name-mismatch" && facts.Name != "":
		return p.saysName()
	case len(p.links) == 0:
		return "no file of what was given explains it; look at the running components with kubepki verify --live"
	}
	const none = "no file of what was given explains it: "
	switch k := classes[p.e.Class]; {
	case len(f.Links) > 0 && !slices.ContainsFunc(f.Links, func(l FoundLink) bool { return !l.Unseen }) && p.e.Class != "refused-internal" && p.e.Class != "no-serving-certificate":
		return none + "what such links use could not be judged, for it was not given or may not be read. Run it with sudo, or give the roots of all nodes concerned"
	case k.token:
		return none + "keys and issuers agree there, and tokens are not in these files. kubepki sa inspect shows what one says; compare the clocks of the nodes"
	case p.e.Class == "refused-internal" || p.e.Class == "no-serving-certificate":
		return none + "a kubelet that asks the API for its serving certificate keeps it elsewhere; kubectl get csr shows whether its request waits"
	case k.sense == ofWire:
		return none + "addresses and URLs agree there. Look at what runs: kubepki verify --live"
	}
	if slices.ContainsFunc(f.Links, func(l FoundLink) bool { return l.Unseen }) {
		return none + "what was seen of what the links use is good, and not all was seen (sudo, or the roots of more nodes, shows more)"
	}
	return none + "what the links use there is good. A process still holds older files (kubepki verify --live shows which), the line is older than the files, or it is about another cluster"
}

// saysName compares the name that was dialled with the file as it is now.
func (p *pinpoint) saysName() string {
	now := p.shown
	for _, l := range p.links {
		for _, at := range p.credentials(l) {
			if m := p.g.Material(at); len(now) == 0 && m.OK() && m.Leaf() != nil {
				now = []standing{{at, m.Leaf()}}
			}
		}
	}
	switch {
	case len(now) == 0:
		return "no certificate of such a server is in what was given; kubepki show HOST:PORT shows what it presents"
	case now[0].cert.VerifyHostname(p.e.Facts.Name) == nil:
		return fmt.Sprintf("%s holds %s now: the process that shows another certificate has not taken the file up (kubepki verify --live)", now[0].place, p.e.Facts.Name)
	}
	return fmt.Sprintf("%s does not hold %s, and nothing in these files says that it is to be reached there: dial one of its names, or issue it anew with that name", now[0].place, p.e.Facts.Name)
}

// issuer says who signed a certificate of which only the key ids are known.
func (p *pinpoint) issuer() string {
	id := p.e.Facts.AuthorityKeyID
	if id == "" {
		return ""
	}
	for _, a := range p.g.Authorities {
		if m := p.g.Material(a.Certificate); m.OK() && hexOf(m.Certificates[0].SubjectKeyId) == id {
			return ", signed by " + a.Certificate.String()
		}
	}
	return ", signed by an authority that none of these files holds (key id " + id + ")"
}
