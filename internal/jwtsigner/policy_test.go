package jwtsigner_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/jwtsigner"
	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/token"
)

func policy(now time.Time) jwtsigner.Policy {
	return jwtsigner.Policy{Issuers: []string{issuer}, MaxLife: 24 * time.Hour, Now: func() time.Time { return now }}
}

func TestWhatIsSigned(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	at := func(d time.Duration) string { return fmt.Sprint(now.Add(d).Unix()) }
	of := func(claim string, d time.Duration) []string {
		return []string{`"` + claim + `":` + at(0), `"` + claim + `":` + at(d)}
	}
	without := func(claim string) []string { return []string{`"` + claim + `":` + at(0) + ",", ""} }
	legacy := base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"kubernetes/serviceaccount","kubernetes.io/serviceaccount/namespace":"ns","kubernetes.io/serviceaccount/secret.name":"s",` +
		`"kubernetes.io/serviceaccount/service-account.name":"sa","kubernetes.io/serviceaccount/service-account.uid":"su","sub":"system:serviceaccount:ns:sa"}`))
	rows := map[string]struct {
		payload string
		want    string // part of the error; empty: it is signed
	}{
		"a token for an hour":                          {payload(now, time.Hour), ""},
		"one for as long as is allowed":                {payload(now, 24*time.Hour), ""},
		"one for a second more":                        {payload(now, 24*time.Hour+time.Second), "it would live 24h0m1s from iat to exp: 24h0m0s is the most"},
		"one for the year of an extended token":        {payload(now, 365*24*time.Hour), "is the most"},
		"one for ever, nearly":                         {payload(now, 1<<62), "is the most"},
		"one that waited ten minutes to be signed":     {payload(now.Add(-10*time.Minute), time.Hour), ""},
		"one of a clock that is a minute ahead":        {payload(now.Add(time.Minute), time.Hour), ""},
		"one of tomorrow":                              {payload(now.Add(2*time.Minute), time.Hour), "iat or nbf is to come"},
		"one that begins tomorrow":                     {payload(now, time.Hour, of("nbf", 30*time.Minute)...), "iat or nbf is to come"},
		"one that was issued tomorrow":                 {payload(now, time.Hour, of("iat", 30*time.Minute)...), "iat or nbf is to come"},
		"one that says to be issued long ago":          {payload(now, time.Hour, of("iat", -24*time.Hour)...), "it would live 25h"},
		"one that is over":                             {payload(now.Add(-2*time.Hour), time.Hour), "exp is past"},
		"one without iat":                              {payload(now, time.Hour, without("iat")...), "iat or nbf is missing"},
		"one without nbf":                              {payload(now, time.Hour, without("nbf")...), "iat or nbf is missing"},
		"another issuer":                               {payload(now, time.Hour, `"iss":"https://issuer.test"`, `"iss":"https://other.test"`), `the issuer "https://other.test" is none`},
		"the same issuer with a slash":                 {payload(now, time.Hour, `"iss":"https://issuer.test"`, `"iss":"https://issuer.test/"`), "is none of those"},
		"for another audience":                         {payload(now, time.Hour, `"aud":["https://issuer.test"]`, `"aud":["vault","sts.amazonaws.com"]`), ""},
		"for no audience":                              {payload(now, time.Hour, `"aud":["https://issuer.test"],`, ``), "there is no audience"},
		"a subject that is somebody else":              {payload(now, time.Hour, `:ns:sa"`, `:kube-system:sa"`), "sub is"},
		"a subject that is no service account":         {payload(now, time.Hour, `"system:serviceaccount:ns:sa"`, `"system:admin"`), "sub is"},
		"a claim that other verifiers act on":          {payload(now, time.Hour, `"jti":"0b5b"`, `"email":"root@issuer.test"`), `the claim \"email\" is none`},
		"the legacy issuer by the form of today":       {payload(now, time.Hour, `"iss":"https://issuer.test"`, `"iss":"kubernetes/serviceaccount"`), "is none of those"},
		"the token of a Secret":                        {legacy, "the token of a Secret"},
		"nothing":                                      {"", "refused"},
		"what is no base64url":                         {payload(now, time.Hour) + "=", "strict base64url"},
		"more than any token":                          {strings.Repeat("A", token.MaxSize+1), "longer than"},
		"a payload that ends a token and begins a new": {payload(now, time.Hour) + "." + payload(now, time.Hour), "strict base64url"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			p := policy(now)
			c, err := p.Judge(row.payload)
			switch want := strings.ReplaceAll(row.want, `\"`, `"`); {
			case want == "" && err != nil:
				t.Errorf("it is refused: %v", err)
			case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("got %v, want %q", err, want)
			case err == nil && (c.Namespace != "ns" || c.ServiceAccount.Name != "sa" || c.Pod.Name != "p"):
				t.Errorf("the claims are %+v", c)
			}
		})
	}
}

func TestPoliciesThatAreNone(t *testing.T) {
	keys, err := jwtsigner.OpenKeys(jwtsigner.KeysConfig{Files: jwtsigner.Files{Held: tokentest.Key(tokentest.P256)}})
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]struct {
		policy jwtsigner.Policy
		hint   time.Duration
		want   string // empty: it is one
	}{
		"as little as kube-apiserver takes": {jwtsigner.Policy{Issuers: []string{issuer}, MaxLife: 600 * time.Second}, time.Second, ""},
		"less":                              {jwtsigner.Policy{Issuers: []string{issuer}, MaxLife: 599 * time.Second}, time.Second, "from 10m0s to"},
		"a fraction of a second":            {jwtsigner.Policy{Issuers: []string{issuer}, MaxLife: time.Hour + time.Millisecond}, time.Second, "in whole seconds"},
		"more than a TokenRequest can be":   {jwtsigner.Policy{Issuers: []string{issuer}, MaxLife: jwtsigner.MaxLife + time.Second}, time.Second, "from 10m0s to"},
		"no issuer":                         {jwtsigner.Policy{MaxLife: time.Hour}, time.Second, "no issuer"},
		"an empty issuer":                   {jwtsigner.Policy{Issuers: []string{issuer, ""}, MaxLife: time.Hour}, time.Second, "an empty one"},
		"the legacy issuer":                 {jwtsigner.Policy{Issuers: []string{token.LegacyIssuer}, MaxLife: time.Hour}, time.Second, "issues the tokens of Secrets"},
		"no refresh hint":                   {jwtsigner.Policy{Issuers: []string{issuer}, MaxLife: time.Hour}, 0, "refresh hint"},
		"a refresh hint below a second":     {jwtsigner.Policy{Issuers: []string{issuer}, MaxLife: time.Hour}, 100 * time.Millisecond, "refresh hint"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			_, err := jwtsigner.NewServer(jwtsigner.Config{Policy: row.policy, Keys: keys, RefreshHint: row.hint})
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}

// FuzzJudge looks for payloads that are signed and should not be: what is signed
// must be a token that a strict verifier takes, as the service account that the
// policy saw, for no longer than is allowed.
func FuzzJudge(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	for _, seed := range []string{payload(now, time.Hour), payload(now, 25*time.Hour), payload(now, time.Hour, `"iss"`, `"Iss"`), payload(now, time.Hour, `"pod"`, `"secret"`)} {
		text, err := base64.RawURLEncoding.DecodeString(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	signer, err := token.NewSigner(tokentest.Key(tokentest.P256))
	if err != nil {
		f.Fatal(err)
	}
	set, err := token.NewKeySet(signer.Key())
	if err != nil {
		f.Fatal(err)
	}
	p := policy(now)
	f.Fuzz(func(t *testing.T, text []byte) {
		payload := base64.RawURLEncoding.EncodeToString(text)
		c, err := p.Judge(payload)
		if err != nil {
			return
		}
		header, signature, err := signer.SignPayload(payload)
		if err != nil {
			t.Fatal(err)
		}
		v, err := token.NewVerifier(token.Config{Keys: set, Issuers: []string{issuer}, Audiences: c.Audiences, Now: p.Now})
		if err != nil {
			t.Fatal(err)
		}
		got, err := v.Verify(t.Context(), header+"."+payload+"."+signature)
		if err != nil {
			t.Fatalf("it was signed, and is refused: %v", err)
		}
		if got.User.Username != c.Subject || got.Claims.Legacy || c.Expires.After(now.Add(p.MaxLife+token.Leeway)) || !c.Expires.After(now) {
			t.Errorf("%+v was signed", c)
		}
	})
}
