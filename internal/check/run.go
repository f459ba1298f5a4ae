package check

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// Options of [Run].
type Options struct {
	At time.Time
	// Expiring is the window of cert-expiring; 0: 30 days or a tenth of a
	// certificate's life, whichever is shorter.
	Expiring time.Duration
}

// State tells how one half of a link was judged.
type State string

// The states of a half.
const (
	OK     State = "ok"
	Broken State = "broken"
	Unseen State = "unseen" // a part of it is not in what was given
)

// Half is one judged half of a link.
type Half struct {
	Side  string // client or server
	State State
	Proof Proof
}

// Proof tells how the state of a half is known.
type Proof string

// The proofs.
const (
	ByHandshake Proof = "handshake" // a true TLS handshake with the keys at hand
	ByChain     Proof = "chain"     // chain, names and identity alone: a key is not at hand
	BySignature Proof = "signature" // the keys that sign and verify tokens are a pair
	ByLive      Proof = "live"      // the running components were seen to do it
	NoProof     Proof = "none"      // the half was not seen
)

// JudgedLink is a link with its halves.
type JudgedLink struct {
	*trust.Link
	Halves   []Half
	Findings []string // ids, each once
}

// OK tells that no half is broken.
func (l *JudgedLink) OK() bool {
	return !slices.ContainsFunc(l.Halves, func(h Half) bool { return h.State == Broken })
}

// Result is what [Run] found.
type Result struct {
	Links    []JudgedLink
	Findings []Finding
}

// Healthy tells that no finding is an error.
func (r *Result) Healthy() bool { return !r.Any(Error) }

// Any tells whether a finding is at least as severe as s.
func (r *Result) Any(s Severity) bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity.AtLeast(s) })
}

// Break is a [trust.Break] with the half that it breaks.
type Break struct {
	trust.Break
	Link   int // index in the graph's links
	Server bool
	// Bundle is the verifier's, zero when none is concerned.
	Bundle *trust.Bundle
	// Credential is the one judged.
	Credential *trust.Credential
	// seen and call are, of a live break, what was observed; call is nil when
	// the server itself is what breaks.
	seen *trust.Observation
	call *trust.Call
}

// Case is what a rule judges.
type Case struct {
	*trust.Graph
	Options
	Breaks    []Break
	trust     []trustFault
	standings []standing
	// judgement remembers the signatures that were verified.
	judgement *trust.Judgement
	// signers are the certificates of authorities by their subject.
	signers map[string][]*signer
	// breaking are the breaks of each half, by their index.
	breaking map[reach][]int
	// controlPlanes are the nodes that run what holds authorities of its own, held the
	// names of the authorities that these hold; each is found once.
	controlPlanes, held map[string]bool
}

// Run judges every link of the graph and applies all rules.
func Run(g *trust.Graph, o Options) *Result {
	c := &Case{Graph: g, Options: o, judgement: trust.NewJudgement(g, o.At)}
	c.judge()
	c.trust, c.standings = c.trustFaults(), c.findStandings()
	var findings []Finding
	for _, r := range slices.Concat(rules, objectRules) {
		for _, f := range r.Judge(c) {
			f.ID = cmp.Or(f.ID, r.ID)
			if f.Severity == "" {
				f.Severity = r.Severity
			}
			findings = append(findings, c.byDesign(f))
		}
	}
	findings = c.roots(findings)
	c.copies(findings)
	for i := range findings {
		findings[i] = c.inItsTerms(findings[i])
	}
	c.settle(findings)
	return &Result{Links: c.links(findings), Findings: findings}
}

func (c *Case) judge() {
	for i := range c.Links {
		l := &c.Links[i]
		for _, b := range c.judgement.Server(l.Server) {
			c.Breaks = append(c.Breaks, Break{Break: b, Link: i, Server: true, Bundle: l.Server.Bundle, Credential: l.Server.Credential})
		}
		for _, b := range c.judgement.Client(l.Client) {
			c.Breaks = append(c.Breaks, Break{Break: b, Link: i, Bundle: l.Client.Bundle, Credential: l.Client.Credential})
		}
		for _, b := range c.judgeSigning(l.Signing) {
			c.Breaks = append(c.Breaks, Break{Break: b, Link: i})
		}
	}
	c.judgeLive()
}

// judgeSigning compares the key that signs tokens with those that verify them.
func (c *Case) judgeSigning(s *trust.SigningHalf) []trust.Break {
	if s == nil || c.signingUnseen(s) {
		return nil
	}
	key := c.Material(s.Key)
	if !key.OK() || len(key.Keys) == 0 {
		return []trust.Break{{Kind: trust.NoKey, Place: s.Key}}
	}
	for _, p := range s.VerifyBy {
		m := c.Material(p)
		if !m.OK() {
			return []trust.Break{{Kind: trust.NoBundle, Place: p}}
		}
		if hasKey(m, key.Keys[0]) || hasKeyOf(m, &x509.Certificate{PublicKey: key.Keys[0]}) {
			return nil
		}
	}
	return []trust.Break{{Kind: trust.UnknownAuthority, Place: s.VerifyBy[0], Name: s.Key.Path}}
}

func (c *Case) signingUnseen(s *trust.SigningHalf) bool {
	return slices.ContainsFunc(append(slices.Clone(s.VerifyBy), s.Key), func(p trust.Place) bool {
		m := c.Material(p)
		return m == nil || m.State == trust.NotGiven || m.State == trust.Denied
	})
}

// links states each half and gathers the findings that break it.
func (c *Case) links(findings []Finding) []JudgedLink {
	out := make([]JudgedLink, len(c.Links))
	c.breaking = map[reach][]int{}
	for i, b := range c.Breaks {
		half := reach{b.Link, b.Server}
		c.breaking[half] = append(c.breaking[half], i)
	}
	for i := range c.Links {
		l := &c.Links[i]
		out[i] = JudgedLink{Link: l, Halves: c.halves(i, l)}
	}
	for i := range findings {
		f := &findings[i]
		for _, b := range f.breaks {
			f.reaches = append(f.reaches, reach{c.Breaks[b].Link, c.Breaks[b].Server})
			l := &out[c.Breaks[b].Link]
			if !slices.Contains(l.Findings, f.ID) {
				l.Findings = append(l.Findings, f.ID)
			}
		}
	}
	return out
}

func (c *Case) halves(i int, l *trust.Link) []Half {
	var halves []Half
	if h := l.Client; h != nil {
		halves = append(halves, c.half(i, "client", ByChain, h.Bundle == nil || c.Unseen(h.Credential, h.Bundle)))
	}
	if h := l.Server; h != nil {
		halves = append(halves, c.half(i, "server", ByChain, h.Unverified || h.Bundle == nil || c.Unseen(h.Credential, h.Bundle)))
	}
	if h := l.Signing; h != nil {
		halves = append(halves, c.half(i, "client", BySignature, c.signingUnseen(h)))
	}
	return halves
}

// half states one half: what breaks it comes first, then what was seen of the
// running components, then what the files show.
func (c *Case) half(link int, side string, p Proof, unseen bool) Half {
	h := Half{Side: side, State: OK, Proof: p}
	for _, i := range c.breaking[reach{link, side == "server"}] {
		h.State = Broken
		if c.Breaks[i].seen != nil {
			h.Proof = ByLive
		}
	}
	switch {
	case h.State == Broken:
	case c.provedLive(link, side), c.provedByAPI(link, side):
		h.Proof = ByLive
	case unseen:
		h.State, h.Proof = Unseen, NoProof
	}
	return h
}

// Refused notes that a half which was judged good failed a true handshake: the
// half becomes broken, and a finding says with which error.
func (r *Result) Refused(link int, side string, err error) {
	l := &r.Links[link]
	for i := range l.Halves {
		if l.Halves[i].Side == side {
			l.Halves[i].State = Broken
		}
	}
	place := placeOf(l.Link, side)
	f := Finding{ID: "refused", Severity: Error, Links: []int{l.Number}, Cause: fmt.Sprintf("the handshake from %s to %s fails: %v", l.Caller, l.Callee, err)}.at(place)
	f.reaches = []reach{{link, side == "server"}}
	r.Findings = append([]Finding{f}, r.Findings...)
	l.Findings = append(l.Findings, f.ID)
}

// placeOf is the certificate that a side shows.
func placeOf(l *trust.Link, side string) trust.Place {
	switch {
	case side == "server" && l.Server != nil && l.Server.Credential != nil:
		return l.Server.Credential.Certificate
	case side == "client" && l.Client != nil && l.Client.Credential != nil:
		return l.Client.Credential.Certificate
	}
	return trust.Place{}
}
