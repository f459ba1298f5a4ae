package agent

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Span is a part of a certificate's life, as two fractions of it.
type Span struct{ From, To float64 }

// DefaultSpan is that of client-go and of package join.
var DefaultSpan = Span{0.7, 0.9}

// ParseSpan reads percentages such as "70-90", or one, "80".
func ParseSpan(text string) (Span, error) {
	from, to, two := strings.Cut(text, "-")
	if !two {
		to = from
	}
	a, errA := strconv.ParseFloat(strings.TrimSuffix(from, "%"), 64)
	b, errB := strconv.ParseFloat(strings.TrimSuffix(to, "%"), 64)
	// Written so that what is no number fails too.
	if errA != nil || errB != nil || !(a >= 10 && a <= b && b <= 95) {
		return Span{}, fmt.Errorf("%q is no part of a life: use two percentages between 10 and 95, such as 70-90", text)
	}
	return Span{a / 100, b / 100}, nil
}

// Moment is when a certificate is to be made anew: within the span of its life, where
// a digest of the certificate says. So a process that starts again draws the same, and
// the certificates of many nodes, made in one second, do not fall due in one.
func (s Span) Moment(c *x509.Certificate) time.Time {
	digest := sha256.Sum256(c.Raw)
	fraction := s.From + (s.To-s.From)*(float64(binary.BigEndian.Uint64(digest[:]))/math.MaxUint64)
	// In seconds: a life of more than 292 years is no time.Duration.
	life := float64(c.NotAfter.Unix() - c.NotBefore.Unix())
	return time.Unix(c.NotBefore.Unix()+int64(fraction*life), 0).UTC()
}

// share is where a name stands among all names, from 0 up to 1: the same on every
// machine.
func share(name string) float64 {
	digest := sha256.Sum256([]byte(name))
	return float64(binary.BigEndian.Uint64(digest[:])>>11) / (1 << 53)
}
