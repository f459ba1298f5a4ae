package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"time"
)

// Judgement judges the halves of a graph's links at one time, as
// [Graph.JudgeServer] and [Graph.JudgeClient] do, and remembers each signature
// and each chain: of a large cluster thousands of links ask the same. Certificates
// are the same by their content, not by where they stand. Not for concurrent use.
type Judgement struct {
	graph *Graph
	at    time.Time

	numbers    map[string]int  // of certificates, by their DER
	signatures map[[2]int]bool // by the numbers of both certificates
	verdicts   map[chainQuestion]chainVerdict
}

// NewJudgement returns a judgement of a graph at a time. The graph's materials
// must stay as they are.
func NewJudgement(g *Graph, at time.Time) *Judgement {
	return &Judgement{graph: g, at: at, numbers: map[string]int{}, signatures: map[[2]int]bool{}, verdicts: map[chainQuestion]chainVerdict{}}
}

// chainQuestion is a chain judged by anchors, both as the numbers of their
// certificates.
type chainQuestion struct {
	chain, anchors string
	usage          x509.ExtKeyUsage
}

// chainVerdict is what holds for a chain wherever it stands.
type chainVerdict struct {
	path   []*x509.Certificate // from the leaf to an anchor
	broken *Break              // why there is no path, without its place
	kind   Kind                // what crypto/x509 says against it, dates aside; empty: nothing
}

// SignedBy tells whether a's name and key are the issuer's of c, as [SignedBy] does.
func (j *Judgement) SignedBy(c, a *x509.Certificate) bool {
	if !bytes.Equal(a.RawSubject, c.RawIssuer) {
		return false
	}
	pair := [2]int{j.numberOf(c), j.numberOf(a)}
	known, asked := j.signatures[pair]
	if !asked {
		known = signedBy(c, a)
		j.signatures[pair] = known
	}
	return known
}

func (j *Judgement) numberOf(c *x509.Certificate) int {
	n, seen := j.numbers[string(c.Raw)]
	if !seen {
		n = len(j.numbers)
		j.numbers[string(c.Raw)] = n
	}
	return n
}

func (j *Judgement) numbersOf(certificates []*x509.Certificate) string {
	var text []byte
	for _, c := range certificates {
		text = binary.AppendUvarint(text, uint64(j.numberOf(c)))
	}
	return string(text)
}

// verdict judges a chain, which is not empty, by anchors.
func (j *Judgement) verdict(chain, anchors []*x509.Certificate, usage x509.ExtKeyUsage) chainVerdict {
	q := chainQuestion{j.numbersOf(chain), j.numbersOf(anchors), usage}
	v, asked := j.verdicts[q]
	if asked {
		return v
	}
	v.path, v.broken = j.path(chain, anchors)
	if v.broken == nil {
		// The dates are judged apart; the rest is asked at a time when all are good.
		if when, ok := common(v.path); ok {
			v.kind, _ = verifyKind(chain, anchors, usage, when)
		}
	}
	j.verdicts[q] = v
	return v
}
