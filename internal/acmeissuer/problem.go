package acmeissuer

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// maxMessage bounds what a status or a condition says, in bytes.
const maxMessage = 1024

// bounded cuts a message to what a status holds, at a whole character.
func bounded(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	return strings.ToValidUTF8(s[:maxMessage], "") + "…"
}

// problemOf returns the problem document that an error of the ACME library stands
// for: false where the server said something else, or nothing.
func problemOf(err error) (acme.Problem, bool) {
	var p acme.Problem
	if !errors.As(err, &p) {
		var pointer *acme.Problem
		if !errors.As(err, &pointer) || pointer == nil {
			return p, false
		}
		p = *pointer
	}
	kind := strings.ToLower(p.Type)
	return p, strings.HasPrefix(kind, acme.ProblemTypeNamespace) || strings.HasPrefix(kind, "urn:acme:error:")
}

// say tells users of an error of an ACME server. Only a problem document of ACME is
// repeated: with anything else an Issuer whose spec.acme.server names some service
// that this process reaches, and its writer does not, would show what that answers.
func say(err error) string {
	if p, ok := problemOf(err); ok {
		return bounded(fmt.Sprintf("%d %s: %s", p.Status, p.Type, detail(p)))
	}
	var known told
	var dial *net.OpError
	var lookup *net.DNSError
	switch {
	case errors.As(err, &known):
		return bounded(known.Error())
	case errors.As(err, &lookup):
		return bounded(fmt.Sprintf("the server's name cannot be resolved: %s", lookup.Err))
	case errors.As(err, &dial) && dial.Op == "dial":
		return "no connection to the server: " + bounded(dial.Err.Error())
	case isTimeout(err):
		return "the server did not answer in time"
	}
	if text := err.Error(); strings.Contains(text, "x509: ") && !strings.Contains(text, "HTTP ") {
		_, why, _ := strings.Cut(text, "x509: ")
		return bounded("the server's certificate is not trusted: " + why + ": see spec.acme.caBundle")
	}
	return "the server's answer is no problem document of ACME (RFC 8555 section 6.7); it is in the log"
}

// told is an error of our own making, which may be shown.
type told string

func (t told) Error() string { return string(t) }

func detail(p acme.Problem) string {
	text := p.Detail
	for _, sub := range p.Subproblems {
		text += fmt.Sprintf("; %s: %s", sub.Identifier.Value, sub.Detail)
	}
	return text
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// lasting tells whether an error will be the same however often one asks: the server
// has understood, and refused. Limits of rate pass, and so does a nonce that did not
// please ten times in a row.
func lasting(err error) bool {
	var known told
	if errors.As(err, &known) {
		return true
	}
	p, ok := problemOf(err)
	if !ok || p.Status < 400 || p.Status >= 500 {
		return false
	}
	switch p.Type {
	case acme.ProblemTypeRateLimited, acme.ProblemTypeBadNonce, acme.ProblemTypeAccountDoesNotExist, acme.ProblemTypeUserActionRequired:
		return false
	}
	return p.Status != 429
}

// The times after which one tries again.
const (
	afterError  = 30 * time.Second
	longestWait = time.Hour
)

// again is how long to wait after a passing error: as the server wishes (Retry-After,
// which the library keeps to itself), within bounds.
func again(h *hint, err error) time.Duration {
	if p, ok := problemOf(err); ok && h.retryAfter == 0 && p.Type == acme.ProblemTypeRateLimited {
		return longestWait / 4
	}
	if h.retryAfter == 0 {
		return afterError
	}
	return min(max(h.retryAfter, time.Second), longestWait)
}
