package token

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// judgement collects what is wrong with the claims of a token whose signature is
// good.
type judgement struct {
	config  *Config
	claims  *Claims
	wire    *claims
	reasons []Reason
}

// judge returns the audiences of the token that are wanted.
func (j *judgement) judge(audiences []string) []string {
	j.form()
	if len(j.reasons) > 0 {
		return nil // nothing else would mean anything
	}
	j.times(j.config.Now())
	common := j.audience(audiences)
	j.identity()
	return common
}

// form judges which of the two forms the token has, and whether its issuer makes
// such ones. A projected token may name [LegacyIssuer] where that is an issuer
// like others; a token of a Secret can name no other.
func (j *judgement) form() {
	c := j.claims
	switch legacyOnly := !slices.Contains(j.config.Issuers, LegacyIssuer); {
	case c.Legacy && j.wire.Bound != nil:
		j.refuse(FormAmbiguous, "the claims are those of a projected token and of a Secret's at once")
	case c.Legacy && c.Issuer != LegacyIssuer:
		j.refuse(IssuerUnknown, "the claims are those of a Secret's token, whose issuer is %s, not %s", LegacyIssuer, quote(c.Issuer))
	case !c.Legacy && c.Issuer == LegacyIssuer && legacyOnly:
		j.refuse(ClaimMissing, "the claims of a Secret's token (kubernetes.io/serviceaccount/…) are missing")
	case !c.Legacy && j.wire.Bound == nil:
		j.refuse(ClaimMissing, "the claims of Kubernetes (kubernetes.io) are missing: it is no service account's")
	}
}

func (j *judgement) refuse(id ReasonID, format string, args ...any) {
	j.reasons = append(j.reasons, Reason{id, fmt.Sprintf(format, args...)})
}

// signable judges what is wrong with claims whenever they are looked at.
func (j *judgement) signable() {
	if j.claims.Issuer == "" {
		j.refuse(IssuerUnknown, "the issuer is missing")
	}
	if j.form(); len(j.reasons) > 0 {
		return
	}
	j.span()
	if own := j.claims.Audiences; slices.Contains(own, "") || (len(own) == 0 && !j.claims.Legacy) {
		j.refuse(AudienceMismatch, "there is no audience, or an empty one")
	}
	j.identity()
}

// span judges whether there is a time at which the token is good.
func (j *judgement) span() {
	c := j.claims
	switch {
	case c.Expires.IsZero() && !c.Legacy:
		j.refuse(ExpiryMissing, "exp is missing: only tokens of Secrets may live for ever")
	case !c.Expires.IsZero() && c.Expires.Before(c.NotBefore):
		j.refuse(TimeInvalid, "exp %s is before nbf %s: it is never valid", timeText(c.Expires), timeText(c.NotBefore))
	}
}

// times are judged as go-jose.v2's jwt.Claims.Validate does for Kubernetes, and
// a token of a Secret as well, if it tells any.
func (j *judgement) times(now time.Time) {
	c := j.claims
	j.span()
	if !c.Expires.IsZero() && now.Add(-Leeway).After(c.Expires) {
		j.refuse(Expired, "expired at %s", timeText(c.Expires))
	}
	if !c.NotBefore.IsZero() && now.Add(Leeway).Before(c.NotBefore) {
		j.refuse(NotYetValid, "not valid before %s: clocks may differ by %s", timeText(c.NotBefore), Leeway)
	}
	if !c.IssuedAt.IsZero() && now.Add(Leeway).Before(c.IssuedAt) {
		j.refuse(IssuedInFuture, "issued at %s, which is to come: clocks may differ by %s", timeText(c.IssuedAt), Leeway)
	}
}

// audience returns the audiences of the token that are wanted.
func (j *judgement) audience(wanted []string) []string {
	if len(wanted) == 0 {
		wanted = j.config.Audiences
	}
	if j.claims.Legacy {
		return j.legacyAudience(wanted)
	}
	if len(wanted) == 0 {
		wanted = j.config.APIAudiences
	}
	of := j.claims.Audiences
	common := intersect(of, wanted)
	switch {
	case len(common) > 0:
	case len(of) == 0:
		j.refuse(AudienceMismatch, "aud is missing or empty: the token is for nobody")
	default:
		j.refuse(AudienceMismatch, "the token is for %s, and %s is wanted", quoteAll(of), quoteAll(wanted))
	}
	return common
}

// legacyAudience: a token of a Secret is for the API server alone, whatever else
// it says. None is wanted where the API server itself asks.
func (j *judgement) legacyAudience(wanted []string) []string {
	of := j.config.APIAudiences
	if own := j.claims.Audiences; len(own) > 0 {
		if of = intersect(own, of); len(of) == 0 {
			j.refuse(AudienceMismatch, "a token of a Secret is for the API server alone, and this one is for %s", quoteAll(own))
			return nil
		}
	}
	if len(wanted) == 0 {
		return slices.Clone(of)
	}
	common := intersect(of, wanted)
	if len(common) == 0 {
		j.refuse(AudienceMismatch, "a token of a Secret is for the API server alone, which goes by %s, and %s is wanted", quoteAll(of), quoteAll(wanted))
	}
	return common
}

// intersect keeps the order of what is wanted, as Kubernetes does
// (k8s.io/apiserver/pkg/authentication/authenticator/audagnostic.go). An empty
// audience is nobody's.
func intersect(of, wanted []string) []string {
	var common []string
	for _, a := range wanted {
		if a != "" && slices.Contains(of, a) && !slices.Contains(common, a) {
			common = append(common, a)
		}
	}
	return common
}

// identity judges who the token is about. What Kubernetes finds out by looking
// the objects up, names and uids that no object can have, is refused here.
func (j *judgement) identity() {
	c := j.claims
	j.name("namespace", c.Namespace, isLabel)
	j.object("serviceaccount", &c.ServiceAccount, true)
	if c.Subject != c.username() {
		j.refuse(SubjectMismatch, "sub is %s, and the claims of Kubernetes are about %s", quote(c.Subject), quote(c.username()))
	}
	if c.Legacy {
		if c.Secret == nil {
			j.refuse(ClaimMissing, "the name of the Secret is missing")
			return
		}
		j.object("secret", c.Secret, false)
		return
	}
	j.object("pod", c.Pod, true)
	j.object("node", c.Node, c.Pod == nil)
	j.object("secret", c.Secret, true)
	j.object("validatingwebhookconfiguration", c.ValidatingWebhookConfiguration, true)
	j.object("mutatingwebhookconfiguration", c.MutatingWebhookConfiguration, true)
	if c.webhookBound() && len(c.Attestations[APIGroupsAttestation]) == 0 {
		j.refuse(AttestationAbsent, "bound to a webhook configuration without the attestation %s", APIGroupsAttestation)
	}
}

func (j *judgement) object(kind string, r *Ref, needsUID bool) {
	if r == nil {
		return
	}
	j.name(kind+".name", r.Name, isSubdomain)
	if needsUID && r.UID == "" {
		j.refuse(ClaimMissing, "%s.uid is missing", kind)
	}
}

func (j *judgement) name(claim, name string, good func(string) bool) {
	if name == "" {
		j.refuse(ClaimMissing, "%s is missing", claim)
	} else if !good(name) {
		j.refuse(NameInvalid, "%s is %s, which is no name in Kubernetes", claim, quote(name))
	}
}

// maxQuote is up to where claims are quoted, in bytes.
const maxQuote = 80

// quote shows a claim on one line, shortened.
func quote(s string) string {
	if len(s) > maxQuote {
		return strconv.QuoteToASCII(s[:maxQuote]) + "…"
	}
	return strconv.QuoteToASCII(s)
}

func quoteAll(all []string) string {
	const most = 5
	var out []string
	for i, s := range all {
		if i == most {
			out = append(out, fmt.Sprintf("%d more", len(all)-most))
			break
		}
		out = append(out, quote(s))
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }
