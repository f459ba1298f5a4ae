package check

import (
	"crypto/x509"
	"slices"

	"github.com/kubepki/kubepki/internal/trust"
)

// judgeLive adds what the observations break. A half that the files break is
// broken already: what was seen of it merely follows.
func (c *Case) judgeLive() {
	offline := len(c.Breaks)
	broken := func(link int, server bool) bool {
		return slices.ContainsFunc(c.Breaks[:offline], func(b Break) bool { return b.Link == link && b.Server == server })
	}
	for i := range c.Observations {
		o := &c.Observations[i]
		for _, link := range o.Server.Links {
			if !broken(link, true) && c.breaksServer(link, o) && !c.saidBehind(o, nil) {
				c.liveBreak(link, true, o, nil)
			}
			if call, breaks := c.breaksClient(link, o); breaks && !broken(link, false) && !c.saidBehind(o, call) {
				c.liveBreak(link, false, o, call)
			}
		}
		c.judgePublished(o, broken)
	}
}

// saidBehind tells whether what is seen at an endpoint was seen of a server that
// stands behind it: it is said there.
func (c *Case) saidBehind(o *trust.Observation, call *trust.Call) bool {
	return o.Server.Kind == trust.ServesEndpoint && slices.ContainsFunc(c.Breaks, func(b Break) bool {
		switch {
		case b.seen == nil || b.seen == o:
			return false
		case call != nil:
			return b.call != nil && b.call.Credential == call.Credential && b.call.Outcome == call.Outcome
		}
		return o.Outcome == trust.Answered && b.call == nil && trust.SameChain(b.seen.Chain, o.Chain)
	})
}

func (c *Case) liveBreak(link int, server bool, o *trust.Observation, call *trust.Call) {
	l := &c.Links[link]
	b := Break{Break: trust.Break{Kind: trust.Live, Place: settingOf(o)}, Link: link, Server: server, seen: o, call: call}
	switch {
	case server && l.Server != nil:
		b.Bundle, b.Credential = l.Server.Bundle, l.Server.Credential
	case !server && l.Client != nil:
		b.Bundle, b.Credential = l.Client.Bundle, l.Client.Credential
	}
	c.Breaks = append(c.Breaks, b)
}

// breaksServer tells whether a server was not to be reached, or presents what
// the caller of a link does not accept.
func (c *Case) breaksServer(link int, o *trust.Observation) bool {
	h := c.Links[link].Server
	switch {
	case h == nil:
		return false
	case o.Outcome == trust.Unreachable, o.Outcome == trust.Refused:
		return true
	}
	return len(c.JudgePresented(o.Chain, h, c.At)) > 0
}

// breaksClient tells whether a server did not let the caller of a link in, or
// takes it for another.
func (c *Case) breaksClient(link int, o *trust.Observation) (*trust.Call, bool) {
	h := c.Links[link].Client
	if h == nil || h.Credential == nil {
		return nil, false
	}
	if o.Outcome == trust.Unreachable || o.Outcome == trust.Refused {
		return nil, true
	}
	if o.Server.Kind == trust.ServesEndpoint && c.breaksServer(link, o) {
		return nil, false // no caller calls it
	}
	call := callWith(o, h.Credential)
	if call == nil || call.Outcome == trust.NotDialled {
		return nil, false
	}
	return call, call.Outcome != trust.Answered || c.mistaken(call)
}

func callWith(o *trust.Observation, cred *trust.Credential) *trust.Call {
	for i := range o.Calls {
		if o.Calls[i].Credential == cred {
			return &o.Calls[i]
		}
	}
	return nil
}

// mistaken tells whether a server says that a caller is somebody else than its
// certificate says: CN is the user and each O a group.
func (c *Case) mistaken(call *trust.Call) bool {
	leaf := c.Material(call.Credential.Certificate).Leaf()
	if call.User == "" || leaf == nil {
		return false
	}
	return call.User != leaf.Subject.CommonName ||
		slices.ContainsFunc(leaf.Subject.Organization, func(o string) bool { return !slices.Contains(call.Groups, o) })
}

// provedLive tells whether a half that nothing breaks was seen to work.
func (c *Case) provedLive(link int, side string) bool {
	l, proved := &c.Links[link], false
	for i := range c.Observations {
		o := &c.Observations[i]
		switch {
		case l.Signing != nil:
			proved = proved || c.verifies(o, l)
		case l.Number == aggregation:
			proved = proved || c.aggregates(o, l)
		case !slices.Contains(o.Server.Links, link) || o.Outcome != trust.Answered:
		case side == "server":
			proved = proved || c.presentsWell(l.Server, o)
		default:
			call := callWith(o, l.Client.Credential)
			proved = proved || call != nil && call.Outcome == trust.Answered
		}
	}
	return proved
}

// presentsWell tells whether what a server presented is proof for its half: the
// caller verifies it, or, where no caller does, it is what the file holds.
func (c *Case) presentsWell(h *trust.ServerHalf, o *trust.Observation) bool {
	if h.Bundle == nil {
		return h.Dialled == nil && h.Credential != nil && trust.SameChain(o.Chain, c.chainOf(h.Credential))
	}
	return !h.Unverified && c.Material(h.Bundle.Anchors).OK()
}

func (c *Case) chainOf(cred *trust.Credential) []*x509.Certificate {
	if cred == nil || !c.Material(cred.Certificate).OK() {
		return nil
	}
	return c.Material(cred.Certificate).Certificates
}
