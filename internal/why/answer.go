package why

import (
	"fmt"
	"strings"
	"time"
)

// State is how a Certificate stands.
type State string

// The states.
const (
	Ready   State = "ready"   // and nothing is to be expected but its renewal
	AtRisk  State = "at-risk" // ready, and a cause is there for which it will not stay so
	Waiting State = "waiting" // something is under way
	Broken  State = "broken"  // nothing comes until somebody does something, or a time has come
)

// Mark is how one step of the chain stands.
type Mark string

// The marks.
const (
	Good    Mark = "good"
	Waits   Mark = "waits"
	Bad     Mark = "bad"
	Unknown Mark = "unknown" // it could not be seen
)

// Step is one object of the chain.
type Step struct {
	Object string `json:"object"` // kind/namespace/name, the kind in lower case
	Mark   Mark   `json:"mark"`
	Text   string `json:"text"`
}

// Cause is the first reason for which a Certificate is not, or does not stay, ready.
type Cause struct {
	// ID names the kind of cause; docs/cert.md lists them.
	ID    string `json:"id"`
	Text  string `json:"text"`
	Where string `json:"where"` // the object, and the field in brackets
	// Fix is a command, Advice a sentence; either may be empty.
	Fix    string `json:"fix,omitempty"`
	Advice string `json:"advice,omitempty"`
	// Until is when it is tried again by itself, nil where that is not known.
	Until *time.Time `json:"until,omitempty"`
}

// Answer is what [Explain] found, or another function for what is no Certificate.
type Answer struct {
	// Kind is what it is about, in lower case, where that is no Certificate.
	Kind      string   `json:"kind,omitempty"`
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	State     State    `json:"state"`
	Steps     []Step   `json:"steps"`
	Cause     *Cause   `json:"cause,omitempty"`
	Notes     []string `json:"notes,omitempty"`
}

// The causes.
const (
	CauseSpec            = "spec-invalid"
	CauseDuplicate       = "duplicate-secret"
	CauseAuthoritySecret = "secret-of-authority" //nolint:gosec // a name
	CauseIssuerMissing   = "issuer-missing"
	CauseIssuerName      = "issuer-name"
	CauseIssuerKind      = "issuer-kind"
	CauseIssuerNamespace = "issuer-namespace"
	CauseIssuerGroup     = "issuer-group"
	CauseIssuerNotReady  = "issuer-not-ready"
	CauseCAMissing       = "ca-secret-missing"
	CauseCANoKey         = "ca-without-key"
	CauseCAInvalid       = "ca-invalid"
	CauseCAExpired       = "ca-expired"
	CauseCAEndsFirst     = "ca-ends-first"
	CauseNoController    = "no-controller"
	CauseIdle            = "controller-idle"
	CauseOtherSecret     = "secret-of-another-certificate" //nolint:gosec // a name
	CauseEdited          = "secret-edited"
	CauseExpired         = "expired"
	CauseKeyKept         = "key-not-replaced"
	CauseKeySecret       = "key-secret-missing" //nolint:gosec // a name
	CauseRefused         = "request-refused"
	CauseUnapproved      = "not-approved"
	CauseDenied          = "denied"
	CauseInvalid         = "request-invalid"
	CausePending         = "request-pending"
	CauseExternal        = "external-issuer-silent"
	CauseOrder           = "order-failed"
	CauseRate            = "rate-limit"
	CauseQueued          = "challenge-queued"
	CausePresent         = "challenge-not-presented"
	CauseDNS             = "dns-not-propagated"
	CauseHTTP            = "http-not-reachable"
	CauseChallenge       = "challenge-failed"
	CauseServer          = "acme-server"
	CauseBackoff         = "back-off"
	CauseForbidden       = "forbidden"
	CauseUnderWay        = "under-way"
)

// command joins words to a command of a shell. Words that a shell would read otherwise
// are quoted: names come from objects that anybody may have written.
func command(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = w
		if w == "" || strings.ContainsFunc(w, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=,@+", r)
		}) {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// ago says how long ago something was, or in how long it will be.
func ago(d time.Duration) string {
	if d < 0 {
		return "in " + roughly(-d)
	}
	return roughly(d) + " ago"
}

// roughly rounds a duration down to the unit that people would use.
func roughly(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", max(d, 0)/time.Second)
}
