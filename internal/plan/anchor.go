package plan

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"slices"

	"github.com/kubepki/kubepki/internal/trust"
)

// set is a sorted list of anchors, each once. An anchor is a name with a key:
// two certificates of one authority are one anchor, two authorities of one name
// are two (which is how crypto/x509 tells them apart: it tries each candidate
// of the name).
type set []int

func (s set) meets(t set) bool {
	for _, a := range s {
		if slices.Contains(t, a) {
			return true
		}
	}
	return false
}

func (s set) with(t set) set {
	all := slices.Concat(s, t)
	slices.Sort(all)
	return slices.Compact(all)
}

// addSet adds a set to a list of sets, each once.
func addSet(list []set, s set) []set {
	for _, known := range list {
		if slices.Equal(known, s) {
			return list
		}
	}
	return append(list, s)
}

// anchors numbers the anchors of a cluster and knows the certificates of
// authorities that stand anywhere.
type anchors struct {
	numbers map[string]int
	known   map[string][]*x509.Certificate // by subject
	seen    map[string]bool                // by DER
	reached map[string]set                 // by DER of the chain
	signed  map[string][]*x509.Certificate // issuers by DER, once all are known
}

func newAnchors() *anchors {
	return &anchors{numbers: map[string]int{}, known: map[string][]*x509.Certificate{}, seen: map[string]bool{}, reached: map[string]set{}, signed: map[string][]*x509.Certificate{}}
}

func (a *anchors) number(id string) int {
	n, ok := a.numbers[id]
	if !ok {
		n = len(a.numbers)
		a.numbers[id] = n
	}
	return n
}

func (a *anchors) of(c *x509.Certificate) int {
	return a.number(string(c.RawSubject) + "\x00" + string(c.RawSubjectPublicKeyInfo))
}

// ofKey numbers a key that verifies tokens. An error of the encoding is a key
// that nobody else has.
func (a *anchors) ofKey(k crypto.PublicKey) int {
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		return a.number("unknown kind of key")
	}
	return a.number("\x00" + string(der))
}

func (a *anchors) learn(certificates []*x509.Certificate) {
	for _, c := range certificates {
		if !a.seen[string(c.Raw)] {
			a.seen[string(c.Raw)] = true
			a.known[string(c.RawSubject)] = append(a.known[string(c.RawSubject)], c)
		}
	}
}

// setOf is the set of the anchors of a bundle.
func (a *anchors) setOf(certificates []*x509.Certificate, keys []crypto.PublicKey) set {
	var s set
	for _, c := range certificates {
		s = append(s, a.of(c))
	}
	for _, k := range keys {
		s = append(s, a.ofKey(k))
	}
	return s.with(nil)
}

// reach is the set of the anchors by any of which a chain verifies: those that
// signed the leaf, or what of the chain hangs above it.
func (a *anchors) reach(chain []*x509.Certificate) set {
	if len(chain) == 0 {
		return nil
	}
	var id bytes.Buffer
	for _, c := range chain {
		id.Write(c.Raw)
	}
	if s, ok := a.reached[id.String()]; ok {
		return s
	}
	var s set
	if a.seen[string(chain[0].Raw)] {
		s = set{a.of(chain[0])} // somebody trusts the leaf itself
	}
	for todo := []*x509.Certificate{chain[0]}; len(todo) > 0; todo = todo[1:] {
		for _, issuer := range a.issuers(todo[0]) {
			n := a.of(issuer)
			if slices.Contains(s, n) {
				continue
			}
			s = append(s, n)
			if i := slices.IndexFunc(chain[1:], func(c *x509.Certificate) bool { return a.of(c) == n }); i >= 0 {
				todo = append(todo, chain[i+1])
			}
		}
	}
	s = s.with(nil)
	a.reached[id.String()] = s
	return s
}

// issuers are the known certificates whose key signed c.
func (a *anchors) issuers(c *x509.Certificate) []*x509.Certificate {
	out, ok := a.signed[string(c.Raw)]
	if ok {
		return out
	}
	for _, i := range a.known[string(c.RawIssuer)] {
		if trust.SignedBy(c, i) {
			out = append(out, i)
		}
	}
	a.signed[string(c.Raw)] = out
	return out
}

// reachIssued is what reach will be of a leaf that the authority shall sign.
func (a *anchors) reachIssued(by *Authority) set {
	return a.reach(by.Chain).with(set{a.of(by.Certificate)})
}
