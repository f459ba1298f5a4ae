package k8stoken_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/lab/internal/k8stoken"
	"github.com/kubepki/kubepki/token"
)

// parties judge the same tokens.
type parties struct {
	ours   *token.Verifier
	theirs *k8stoken.Authenticator
}

func newParties(t testing.TB) parties {
	c := tokentest.Case{}
	v, err := token.NewVerifier(c.Config(nil))
	if err != nil {
		t.Fatal(err)
	}
	return parties{v, authenticator(t, c.AcceptedIssuers())}
}

// compare fails where the verdicts differ, but for differences that
// docs/sa-verify.md lists, each of which is looked for in another way than
// package token does.
func (p parties) compare(t *testing.T, text string, audiences []string) {
	ctx := context.Background()
	theirs, _ := p.theirs.Authenticate(ctx, text, audiences)
	ours, err := p.ours.VerifyFor(ctx, text, audiences)
	var refused *token.RefusedError
	switch {
	case err != nil && !errors.As(err, &refused):
		t.Fatalf("no verdict: %v", err)
	case ours != nil && theirs == nil:
		t.Fatalf("accepted as %+v, and Kubernetes refuses it: %q", ours.User, text)
	case ours != nil:
		if d := k8stoken.Differ(theirs, ours); d != "" {
			t.Fatalf("%q: another user:\n%s", text, d)
		}
	case theirs != nil:
		if !documented(refused, text) {
			t.Fatalf("Kubernetes accepts it as %s, and here it is refused: %v: %q", theirs.User.GetName(), err, text)
		}
	}
}

// documented tells whether a refusal that Kubernetes does not share is one of
// those that are documented.
func documented(refused *token.RefusedError, text string) bool {
	for _, r := range refused.Reasons {
		switch r.ID {
		case token.TooLarge:
			return len(text) > token.MaxSize
		case token.Malformed:
			return looseForm(text)
		case token.AlgorithmRefused, token.HeaderForbidden, token.ClaimMissing, token.NameInvalid, token.SubjectMismatch,
			token.ExpiryMissing, token.TimeInvalid, token.FormAmbiguous:
		case token.AudienceMismatch:
			// None, an empty one, or a token of a Secret.
			c := payload(text)
			if len(c.Audiences) > 0 && !slices.Contains(c.Audiences, "") && !c.Legacy {
				return false
			}
		case token.Expired, token.NotYetValid, token.IssuedInFuture:
			if !payload(text).Legacy {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func payload(text string) token.Claims {
	u, err := token.Parse(text)
	if err != nil {
		return token.Claims{}
	}
	return u.Claims
}

// looseForm tells whether a token is of a form that Kubernetes takes and package
// token does not: by the standard library alone.
func looseForm(text string) bool {
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' }) {
		return true
	}
	for i, part := range strings.Split(text, ".") {
		data, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil || base64.RawURLEncoding.EncodeToString(data) != part {
			return true
		}
		// Both JOSE libraries must be able to read a jwk.
		if i < 2 && (looseJSON(data) || bothForms(data)) || i == 0 && bytes.Contains(data, []byte(`"jwk"`)) {
			return true
		}
	}
	return false
}

// bothForms tells whether there are claims of projected tokens and of Secrets',
// of whatever type: each of Kubernetes' two authenticators reads its own alone.
func bothForms(data []byte) bool {
	var claims map[string]json.RawMessage
	if json.Unmarshal(data, &claims) != nil {
		return false
	}
	_, projected := claims["kubernetes.io"]
	for name := range claims {
		if projected && strings.HasPrefix(name, "kubernetes.io/serviceaccount/") {
			return true
		}
	}
	return false
}

func looseJSON(data []byte) bool {
	if !utf8.Valid(data) || bytes.Count(data, []byte(",")) > 1000 || bytes.Contains(bytes.ToLower(data), []byte(`\ud`)) {
		return true
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var names []map[string]bool // of the objects that are open; nil for an array
	key := false
	for {
		at, err := d.Token()
		if err != nil {
			return !errors.Is(err, io.EOF)
		}
		switch v := at.(type) {
		case json.Delim:
			if v == '{' || v == '[' {
				if names = append(names, nil); v == '{' {
					names[len(names)-1] = map[string]bool{}
				}
				key = v == '{'
				if len(names) > 32 {
					return true
				}
				continue
			}
			names = names[:len(names)-1]
		case string:
			if key {
				open := names[len(names)-1]
				if open[v] || (len(names) == 1 && misspelt(v)) {
					return true
				}
				open[v] = true
				key = false
				continue
			}
		case json.Number:
			if f, err := v.Float64(); err != nil || f >= math.MaxInt64-1e11 || f < -6e10 {
				return true
			}
		}
		key = len(names) > 0 && names[len(names)-1] != nil
	}
}

func misspelt(name string) bool {
	return slices.ContainsFunc([]string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "kubernetes.io"}, func(known string) bool {
		return name != known && strings.EqualFold(name, known)
	})
}

// FuzzSigned has any header and payload signed with a good key, so that what the
// fuzzer writes is judged behind the signature, and asks both.
func FuzzSigned(f *testing.F) {
	withWebhooks(f)
	now := time.Now()
	// What the fuzzer keeps outlives the hour of a token.
	later := strings.NewReplacer(strconv.FormatInt(now.Add(time.Hour).Unix(), 10), "4000000000")
	for _, c := range tokentest.Cases(now) {
		parts := strings.Split(c.Token, ".")
		if len(parts) != 3 || len(c.Token) > 10_000 {
			continue
		}
		header, err1 := base64.RawURLEncoding.DecodeString(parts[0])
		claims, err2 := base64.RawURLEncoding.DecodeString(parts[1])
		if err1 != nil || err2 != nil {
			continue
		}
		for key := range byte(4) {
			f.Add(string(header), later.Replace(string(claims)), key, "")
			f.Add(strings.Replace(string(header), `"kid"`, `"x"`, 1), later.Replace(string(claims)), key, tokentest.Issuer)
		}
	}
	p := newParties(f)
	keys := tokentest.Listed()
	f.Fuzz(func(t *testing.T, header, payload string, key byte, audience string) {
		var audiences []string
		if audience != "" {
			audiences = strings.Split(audience, " ")
		}
		name := keys[int(key)%4] // those that sign fast
		algorithm := [...]string{"RS256", "ES256", "ES384", "ES512"}[int(key)%4]
		p.compare(t, tokentest.Forge(header, payload, algorithm, tokentest.Key(name), nil), audiences)
	})
}

// FuzzText asks both about any text.
func FuzzText(f *testing.F) {
	withWebhooks(f)
	for _, c := range tokentest.Cases(time.Now()) {
		if len(c.Token) < 10_000 {
			f.Add(c.Token)
		}
	}
	p := newParties(f)
	f.Fuzz(func(t *testing.T, text string) { p.compare(t, text, nil) })
}
