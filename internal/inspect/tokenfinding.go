package inspect

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/kubepki/kubepki/token"
)

// TokenFinding is something about a token that deserves attention.
type TokenFinding struct {
	ID       string `json:"id"`       // stable
	Severity string `json:"severity"` // error, warning or info
	Message  string `json:"message"`
}

// longLife is how long a token lives at most without being called long-lived.
// Kubelets ask for an hour.
const longLife = 24 * time.Hour

// extendedLife is how long a token lives whose end was put off, with a day for
// clocks (k8s.io/kubernetes/pkg/serviceaccount/claims.go,
// ExpirationExtensionSeconds).
const extendedLife = 366 * 24 * time.Hour

// Findings tells what deserves attention in a token as of a time: what keeps it
// from being accepted, as errors, and what makes it worth more to a thief than
// it need be. apiAudiences are those that the API server goes by, where they are
// known to be others than the issuer.
func (t *Token) Findings(at time.Time, apiAudiences ...string) []TokenFinding {
	found := []TokenFinding{}
	add := func(id, severity, format string, args ...any) {
		found = append(found, TokenFinding{id, severity, fmt.Sprintf(format, args...)})
	}
	for _, f := range t.faults {
		switch {
		case f.ID == token.ExpiryMissing: // which is said below
		case f.ID == token.AlgorithmRefused, t.ServiceAccount != nil:
			add("sa-token-invalid", "error", "nobody accepts it: %s", f.Message)
		}
	}
	if t.ServiceAccount == nil {
		add("sa-token-foreign", "info", "it names no service account: it may be a user's, for an API server that trusts its issuer")
	}
	t.timeFindings(at, add)
	t.widthFindings(apiAudiences, add)
	return found
}

type addFinding func(id, severity, format string, args ...any)

func (t *Token) timeFindings(at time.Time, add addFinding) {
	switch {
	case t.Legacy && t.Expires == nil:
		add("sa-token-legacy", "warning", "a token of a Secret never expires: whoever has read it is the service account until the Secret is deleted; use projected tokens (kubectl create token)")
	case t.Legacy:
		add("sa-token-legacy", "info", "a token of a Secret: whoever may read Secrets has it; use projected tokens (kubectl create token)")
	case t.Expires == nil:
		add("sa-token-unbounded", "warning", "it never expires: nobody but a token of a Secret may, and kubepki refuses it")
	}
	if t.Expires != nil && at.After(*t.Expires) {
		add("sa-token-expired", "error", "it expired at %s", t.Expires.Format(time.RFC3339))
	}
	for _, begin := range []*time.Time{t.NotBefore, t.IssuedAt} {
		if begin != nil && at.Add(token.Leeway).Before(*begin) {
			add("sa-token-not-yet-valid", "error", "it is of the future: it begins at %s; look at the clocks", begin.Format(time.RFC3339))
			break
		}
	}
	if t.WarnAfter != nil && at.After(*t.WarnAfter) {
		add("sa-token-stale", "warning", "it should have been replaced at %s: whoever shows it does not read its file again", t.WarnAfter.Format(time.RFC3339))
	}
	if t.Expires == nil || t.IssuedAt == nil {
		return
	}
	switch life := t.Expires.Sub(*t.IssuedAt); {
	case life <= longLife:
	case t.WarnAfter != nil && life <= extendedLife:
		add("sa-token-extended", "info", "its end was put off to %d days for clients that do not read their file again (--service-account-extend-token-expiration)", life/(24*time.Hour))
	default:
		add("sa-token-long", "warning", "it lives for %s: it cannot be taken back, but by deleting what it is bound to", duration.HumanDuration(life))
	}
}

func (t *Token) widthFindings(apiAudiences []string, add addFinding) {
	if len(apiAudiences) == 0 {
		apiAudiences = []string{t.Issuer} // unless it is told otherwise
	}
	others := slices.DeleteFunc(slices.Clone(t.Audiences), func(a string) bool { return slices.Contains(apiAudiences, a) })
	switch {
	case len(others) > 0 && len(others) < len(t.Audiences):
		add("sa-token-wide", "warning", "it is for the API server and for %s at once: whoever it is shown to can use it against the cluster", strings.Join(others, ", "))
	case len(others) > 1:
		add("sa-token-wide", "info", "it is for %d audiences: each can show it to the others", len(others))
	}
	if t.ServiceAccount != nil && len(t.BoundTo) == 0 && t.Expires != nil {
		add("sa-token-unbound", "info", "it is bound to nothing but its service account: it is good to its end, whatever becomes of who asked for it")
	}
}
