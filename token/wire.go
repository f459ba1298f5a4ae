package token

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// header is the JOSE header. Parameters that are not listed are ignored: none of
// them, jwk, jku, x5c and x5u included, has a say in which key is taken.
type header struct {
	Algorithm string         `json:"alg"`
	KeyID     string         `json:"kid"`
	Critical  jsontext.Value `json:"crit"`
	Base64    jsontext.Value `json:"b64"`
	Key       *headerKey     `json:"jwk"`
}

// headerKey is as much of a jwk as the JOSE library of Kubernetes fails on, and
// newer ones, as ours, do not.
type headerKey struct {
	Type string         `json:"kty"`
	URL  jsontext.Value `json:"x5u"`
}

func (k *headerKey) harmless() bool {
	return k == nil || len(k.URL) == 0 && (k.Type == "RSA" || k.Type == "EC" || k.Type == "OKP")
}

// claims is the payload of a token in either form, in the order in which
// Kubernetes writes it (k8s.io/kubernetes/pkg/serviceaccount/claims.go and
// legacy.go).
type claims struct {
	Audience  audience       `json:"aud,omitzero"`
	Expires   seconds        `json:"exp,omitzero"`
	IssuedAt  seconds        `json:"iat,omitzero"`
	Issuer    string         `json:"iss,omitzero"`
	ID        string         `json:"jti,omitzero"`
	Bound     *bound         `json:"kubernetes.io,omitzero"`
	Namespace string         `json:"kubernetes.io/serviceaccount/namespace,omitzero"`
	Secret    string         `json:"kubernetes.io/serviceaccount/secret.name,omitzero"`
	Name      string         `json:"kubernetes.io/serviceaccount/service-account.name,omitzero"`
	UID       string         `json:"kubernetes.io/serviceaccount/service-account.uid,omitzero"`
	NotBefore seconds        `json:"nbf,omitzero"`
	Subject   string         `json:"sub,omitzero"`
	Other     jsontext.Value `json:",embed"`
}

// bound is the claim kubernetes.io of projected tokens.
type bound struct {
	Attestations   map[string][]string `json:"attestations,omitzero"`
	Mutating       *ref                `json:"mutatingwebhookconfiguration,omitzero"`
	Namespace      string              `json:"namespace,omitzero"`
	Node           *ref                `json:"node,omitzero"`
	Pod            *ref                `json:"pod,omitzero"`
	Secret         *ref                `json:"secret,omitzero"`
	ServiceAccount ref                 `json:"serviceaccount"`
	Validating     *ref                `json:"validatingwebhookconfiguration,omitzero"`
	WarnAfter      seconds             `json:"warnafter,omitzero"`
}

type ref struct {
	Name string `json:"name,omitzero"`
	UID  string `json:"uid,omitzero"`
}

// audience is one text or several (RFC 7519 section 4.1.3).
type audience []string

// UnmarshalJSONFrom takes a text, or an array of nothing but texts. As in
// Kubernetes null is an error, not an absence.
func (a *audience) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '[' {
		var one string
		if d.PeekKind() != '"' {
			return errAudience
		}
		err := json.UnmarshalDecode(d, &one)
		*a = audience{one}
		return err
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != ']' {
		if d.PeekKind() != '"' {
			return errAudience
		}
		var one string
		if err := json.UnmarshalDecode(d, &one); err != nil {
			return err
		}
		*a = append(*a, one)
	}
	_, err := d.ReadToken()
	return err
}

var errAudience = errors.New("aud is neither a text nor a list of texts")

// seconds is a time since 1970 (RFC 7519 section 2, NumericDate), if it is told.
// Fractions are cut off, as Kubernetes does.
type seconds struct {
	told bool
	unix int64
}

// The times that [time.Time] can tell: from its year 1, whose first second is no
// time at all, to where its own count of seconds ends.
const (
	yearOne      = -62135596800
	firstSeconds = yearOne + 1
	lastSeconds  = math.MaxInt64 + yearOne
)

// UnmarshalJSONFrom takes a number within the range of int64 and of
// [time.Time], and null as an absence, as Kubernetes does. What is beyond is
// refused here: converted, it would be another time.
func (s *seconds) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	text, err := d.ReadValue()
	switch {
	case err != nil:
		return err
	case text.Kind() == 'n':
		return nil
	case text.Kind() != '0':
		return errors.New("a time is no number")
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || f < firstSeconds || f >= math.MaxInt64 || int64(f) > lastSeconds {
		return errTime
	}
	*s = seconds{true, int64(f)}
	return nil
}

// MarshalJSONTo writes a whole number.
func (s seconds) MarshalJSONTo(e *jsontext.Encoder) error {
	return e.WriteToken(jsontext.Int(s.unix))
}

var errTime = errors.New("a time is out of range")

func (s seconds) time() time.Time {
	if !s.told {
		return time.Time{}
	}
	return time.Unix(s.unix, 0)
}

// secondsOf is the reverse of time.
func secondsOf(t time.Time) seconds {
	if t.IsZero() {
		return seconds{}
	}
	return seconds{true, t.Unix()}
}

func (r *ref) public() *Ref {
	if r == nil {
		return nil
	}
	return &Ref{r.Name, r.UID}
}

func refOf(r *Ref) *ref {
	if r == nil {
		return nil
	}
	return &ref{r.Name, r.UID}
}

// legacy tells whether there is any claim of the form of old.
func (c *claims) legacy() bool {
	return c.Namespace != "" || c.Secret != "" || c.Name != "" || c.UID != ""
}

func (c *claims) claims() Claims {
	out := Claims{
		Issuer: c.Issuer, Subject: c.Subject, Audiences: c.Audience, ID: c.ID,
		Expires: c.Expires.time(), NotBefore: c.NotBefore.time(), IssuedAt: c.IssuedAt.time(),
	}
	if c.legacy() {
		out.Legacy, out.Namespace, out.ServiceAccount = true, c.Namespace, Ref{c.Name, c.UID}
		if c.Secret != "" {
			out.Secret = &Ref{Name: c.Secret}
		}
		return out
	}
	if b := c.Bound; b != nil {
		out.Namespace, out.ServiceAccount = b.Namespace, Ref{b.ServiceAccount.Name, b.ServiceAccount.UID}
		out.Pod, out.Node, out.Secret = b.Pod.public(), b.Node.public(), b.Secret.public()
		out.ValidatingWebhookConfiguration, out.MutatingWebhookConfiguration = b.Validating.public(), b.Mutating.public()
		out.Attestations, out.WarnAfter = b.Attestations, b.WarnAfter.time()
	}
	return out
}

// wireOf is the reverse of claims.
func wireOf(c *Claims) claims {
	w := claims{
		Issuer: c.Issuer, Subject: c.Subject, ID: c.ID,
		Expires: secondsOf(c.Expires), NotBefore: secondsOf(c.NotBefore), IssuedAt: secondsOf(c.IssuedAt),
	}
	if len(c.Audiences) > 0 {
		w.Audience = c.Audiences
	}
	if c.Legacy {
		w.Namespace, w.Name, w.UID = c.Namespace, c.ServiceAccount.Name, c.ServiceAccount.UID
		if c.Secret != nil {
			w.Secret = c.Secret.Name
		}
		return w
	}
	w.Bound = &bound{
		Attestations: c.Attestations, Namespace: c.Namespace, ServiceAccount: ref{c.ServiceAccount.Name, c.ServiceAccount.UID},
		Pod: refOf(c.Pod), Node: refOf(c.Node), Secret: refOf(c.Secret),
		Validating: refOf(c.ValidatingWebhookConfiguration), Mutating: refOf(c.MutatingWebhookConfiguration),
		WarnAfter: secondsOf(c.WarnAfter),
	}
	return w
}

// misspelt returns the name of a claim that is written in other letters of the
// same meaning, such as Iss; empty when there is none. Decoders that ignore case
// would take the one for the other.
func (c *claims) misspelt() string {
	if len(c.Other) == 0 {
		return ""
	}
	var other map[string]jsontext.Value
	if json.Unmarshal(c.Other, &other) != nil {
		return ""
	}
	for name := range other {
		for _, known := range []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "kubernetes.io"} {
			if strings.EqualFold(name, known) {
				return known
			}
		}
	}
	return ""
}

// withoutContent says what a decoder met, and not what it was in.
func withoutContent(err error) string {
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return "a name stands twice in one object"
	case errors.Is(err, errAudience), errors.Is(err, errTime):
		var semantic *json.SemanticError
		if errors.As(err, &semantic) {
			return semantic.Err.Error()
		}
		return err.Error()
	case errors.As(err, &syntactic):
		return "its syntax is broken"
	}
	return "a value is of another type"
}
