package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/inspect"
	"github.com/kubepki/kubepki/token"
)

// TokenInspection is the answer of `kubepki sa inspect`.
type TokenInspection struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	At         time.Time `json:"at"`
	*inspect.Token
	// User is whom the token would be for kube-apiserver, if it verified.
	User *token.User `json:"user,omitempty"`
	// Signature says whose it is: "not verified" without keys to try.
	Signature SignatureState `json:"signature"`
	// SignedBy is the id of the key that made the signature, and SignedByFile
	// where it was given; empty when none of the given keys did.
	SignedBy     string                 `json:"signedBy,omitempty"`
	SignedByFile string                 `json:"signedByFile,omitempty"`
	Findings     []inspect.TokenFinding `json:"findings"`
}

// SignatureState says what is known of a signature.
type SignatureState string

// The states of a signature.
const (
	SignatureUnknown SignatureState = "not-verified" // no keys were given
	SignatureGood    SignatureState = "good"         // a given key made it
	SignatureForeign SignatureState = "foreign"      // none of them did
)

// NewTokenInspection judges a token as of a time; the user is nil for one that
// names no service account.
func NewTokenInspection(t *inspect.Token, user *token.User, at time.Time) *TokenInspection {
	i := &TokenInspection{APIVersion: APIVersion, Kind: "TokenInspection", At: at.UTC().Truncate(time.Second), Token: t,
		User: user, Signature: SignatureUnknown, Findings: t.Findings(at)}
	return i
}

// Text prints the inspection for people.
func (i *TokenInspection) Text(w io.Writer, p Palette) error {
	var b strings.Builder
	l := &lines{to: &b, palette: p}
	signature := "not verified: no keys were given"
	switch i.Signature {
	case SignatureGood:
		signature = "by the key " + i.SignedBy + " (" + i.SignedByFile + ")"
	case SignatureForeign:
		signature = "by none of the given keys"
	}
	tokenText(l, "", i.Token, i.At, signature)
	for _, f := range i.Findings {
		fmt.Fprintf(&b, "%s %s: %s\n", p.severity(check.Severity(f.Severity)), f.ID, Plain(f.Message))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// tokenText prints a token; the signature says what is known of it.
func tokenText(l *lines, where string, t *inspect.Token, at time.Time, signature string) {
	l.head("token", where)
	kid := t.KeyID
	if kid == "" {
		kid = "empty: the key that signed it is not named"
	}
	l.line("algorithm", t.Algorithm)
	l.line("key id", kid)
	who := t.Subject
	if t.ServiceAccount != nil && t.ServiceAccount.UID != "" {
		who += " (uid " + t.ServiceAccount.UID + ")"
	}
	l.line("who", who)
	l.line("issuer", t.Issuer)
	audience := strings.Join(t.Audiences, ", ")
	if audience == "" {
		audience = "none: good for the API server alone"
	}
	l.line("audience", audience)
	l.line("id", t.ID)
	l.line("issued", moment(t.IssuedAt))
	l.line("not before", moment(t.NotBefore))
	tokenExpiry(l, t, at)
	l.line("warn after", moment(t.WarnAfter))
	for _, r := range t.BoundTo {
		uid := ""
		if r.UID != "" {
			uid = " (uid " + r.UID + ")"
		}
		label := "bound to"
		if r.Kind == "Node" && t.BoundTo[0].Kind == "Pod" {
			label = "runs on" // which a pod's token tells, and does not die with
		}
		l.line(label, strings.ToLower(r.Kind)+" "+r.Name+uid)
	}
	for _, key := range slices.Sorted(maps.Keys(t.Attestations)) {
		l.line("attestation", key+": "+strings.Join(t.Attestations[key], ", "))
	}
	l.line("signature", signature)
}

func tokenExpiry(l *lines, t *inspect.Token, at time.Time) {
	switch {
	case t.Expires != nil:
		left := Left(t.Expires.AddDate(-9999, 0, 0), *t.Expires, at)
		if !strings.Contains(left, " ") {
			left += " left"
		}
		l.line("expires", t.Expires.Format(time.RFC3339)+" ("+left+")")
	case t.Legacy:
		l.line("expires", "never: a legacy token of a Secret")
	default:
		l.line("expires", "never")
	}
}

func moment(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format(time.RFC3339)
}
