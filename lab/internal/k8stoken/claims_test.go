package k8stoken_test

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/token"
)

// Any header and any claims, put together of what is right, nearly right and
// plainly wrong, get the same verdict, or a documented one.
func TestAnyClaims(t *testing.T) {
	withWebhooks(t)
	p := newParties(t)
	now := time.Now()
	accepted := 0
	rapid.Check(t, func(r *rapid.T) {
		for range 100 { // of each of rapid's rounds: they are cheap
			key := rapid.SampledFrom(tokentest.Listed()[:4]).Draw(r, "key")
			text := tokentest.Signed(key, drawHeader(r, key), drawPayload(r, now))
			if rapid.IntRange(0, 9).Draw(r, "break") == 0 {
				text = breakText(r, text)
			}
			var audiences []string
			if rapid.Bool().Draw(r, "asked") {
				audiences = rapid.SliceOfN(rapid.SampledFrom([]string{tokentest.Issuer, tokentest.Issuer2, "vault", ""}), 1, 3).Draw(r, "audiences")
			}
			p.compare(t, text, audiences)
			if _, err := p.ours.VerifyFor(t.Context(), text, audiences); err == nil {
				accepted++
			}
		}
	})
	if accepted < 100 {
		t.Errorf("%d tokens were accepted: that proves little", accepted)
	}
	t.Logf("%d accepted", accepted)
}

// often draws the first of some mostly, so that what is drawn together is good
// now and then.
func often(r *rapid.T, label string, first string, others ...string) string {
	if rapid.IntRange(0, 39).Draw(r, label+"?") > 0 {
		return first
	}
	return rapid.SampledFrom(others).Draw(r, label)
}

const absent = ""

var nonsense = []string{`null`, `7`, `true`, `[]`, `{}`, `""`, `"x"`, `[null]`, `[""]`, `{"name":null}`, `-1`, `1e3`, absent}

func drawHeader(r *rapid.T, key string) tokentest.Object {
	h := tokentest.Header(key)
	kid := h[1].JSON
	var out tokentest.Object
	add := func(name, json string) {
		if json != absent {
			out = append(out, tokentest.Member{Name: name, JSON: json})
		}
	}
	add("alg", often(r, "alg", h[0].JSON, append(nonsense, `"RS256"`, `"ES256"`, `"ES384"`, `"none"`, `"PS256"`)...))
	add("kid", often(r, "kid", kid, append(nonsense, `"`+strings.Trim(kid, `"`)+` "`, absent, absent, absent)...))
	add(often(r, "more", "typ", "crit", "b64", "jwk", "x5c", "x5u", "jku", "nonce", "x5t", "alg", "kid", "ALG", "zip", "cty"), often(r, "value", `"JWT"`, nonsense...))
	if rapid.IntRange(0, 9).Draw(r, "jwk?") == 0 {
		add("jwk", drawJWK(r))
	}
	return out
}

// drawJWK draws what two JOSE libraries may read in two ways.
func drawJWK(r *rapid.T) string {
	const n = `"n":"` + "sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1WlUzewbgBHod5pcM9H95GQRV3JDXboIRROSBigeC5yjU1hGzHHyXss8UDprecbAYxknTcQkhslANGRUZmdTOQ5qTRsLAt6BTYuyvVRdhS8exSZEy_c4gs_7svlJJQ4H9_NxsiIoLwAEk7-Q3UXERGYw_75IDrGA84-lA_-Ct4eTlXHBIY2EaV7t7LjJaynVJCpkv4LKjTTAumiGUIuQhrNhZLuF_RJLqHpM2kgWFLU7-VTdL1VbC2tejvcI2BlMkEpk1BzBZI0KQB0GaDWFLN-aEAw3vRw" + `"`
	o := tokentest.Object{{Name: "kty", JSON: rapid.SampledFrom([]string{`"RSA"`, `"RSA"`, `"EC"`, `"OKP"`, `"oct"`, `"AKP"`, `null`, `7`}).Draw(r, "kty")}}
	pool := map[string][]string{
		"n": {n[4:], `""`, `"AQ"`, `7`}, "e": {`"AQAB"`, `"AQ"`, `"AAAA"`, `""`, `"gAAAAAE"`}, "crv": {`"P-256"`, `"Ed25519"`, `"x"`},
		"x": {`"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"`, `"AA"`}, "y": {`"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"`, `"AA"`},
		"x5u": {`"https://a.example"`, `""`, `null`, `7`, `{}`}, "x5c": {`[]`, `["AA"]`, `null`}, "x5t": {`"AA"`, `""`}, "k": {`"c2VjcmV0"`}, "d": {`"AQ"`},
		"p": {`"AQ"`}, "priv": {`"AQ"`}, "pub": {`7`, `"AA"`}, "use": {`"sig"`, `7`}, "alg": {`"RS256"`, `7`}, "kid": {`"x"`, `7`}, "key_ops": {`["sign"]`, `7`},
	}
	for _, name := range slices.Sorted(maps.Keys(pool)) {
		often := map[string]int{"n": 8, "e": 8}[name]
		if rapid.IntRange(0, 9).Draw(r, name+"?") < max(1, often) {
			o = append(o, tokentest.Member{Name: name, JSON: rapid.SampledFrom(pool[name]).Draw(r, name)})
		}
	}
	return o.Text()
}

func drawPayload(r *rapid.T, now time.Time) tokentest.Object {
	base := tokentest.Payload(now)
	if rapid.IntRange(0, 4).Draw(r, "legacy") == 0 {
		base = tokentest.LegacyPayload()
	}
	in := func(d time.Duration) string { return strconv.FormatInt(now.Add(d).Unix(), 10) }
	times := append([]string{in(time.Hour), in(-time.Hour), in(50 * time.Second), in(70 * time.Second), in(-50 * time.Second), in(-70 * time.Second), in(0) + ".5",
		"1e10", "1e18", "9e18", "9.3e18", "-1e18", "0", "253402300800"}, nonsense...)
	texts := append([]string{`"https://kubernetes.default.svc.cluster.local"`, `"https://second.example.com"`, `"` + token.LegacyIssuer + `"`, `"a b"`, `"a"`, `"\u0061"`}, nonsense...)
	var out tokentest.Object
	for _, m := range base {
		switch m.Name {
		case "kubernetes.io":
			m.JSON = often(r, m.Name, drawBound(r).Text(), nonsense...)
		case "exp", "nbf", "iat":
			m.JSON = often(r, m.Name, m.JSON, times...)
		case "aud":
			m.JSON = often(r, m.Name, m.JSON, append(texts, `["vault","https://second.example.com"]`, `["vault"]`)...)
		default:
			m.JSON = often(r, m.Name, m.JSON, texts...)
		}
		if m.JSON == absent {
			continue
		}
		m.Name = often(r, "name", m.Name, "Iss", "ISS", "iss", `\u0069ss`, "exp", "sub", "aud", "x", "kubernetes.io/serviceaccount/secret.name")
		out = append(out, m)
	}
	if rapid.IntRange(0, 9).Draw(r, "extra?") == 0 {
		out = append(out, tokentest.Member{Name: rapid.SampledFrom([]string{"iss", "Iss", "iſs", "exp", "nbf", "x", "jti", "kubernetes.io", "kubernetes.io/serviceaccount/namespace"}).Draw(r, "extra"),
			JSON: rapid.SampledFrom(append(times, `"apps"`, `{"a":{"a":1},"b":[{"a":1}]}`, `{"a":1,"a":2}`)).Filter(func(s string) bool { return s != absent }).Draw(r, "extra value")})
	}
	return out
}

func drawBound(r *rapid.T) tokentest.Object {
	refs := append([]string{`{"name":"robot","uid":"c3"}`, `{"name":"robot"}`, `{"uid":"c3"}`, `{"name":"Robot","uid":"c3"}`, `{"name":"robot","uid":""}`, `{"name":"robot","uid":7}`, `{"name":"robot","uid":null}`, `{"NAME":"robot","uid":"c3"}`}, nonsense...)
	var out tokentest.Object
	for _, m := range tokentest.Bound() {
		if m.JSON = often(r, m.Name, m.JSON, append(refs, `"apps"`)...); m.JSON != absent {
			out = append(out, m)
		}
	}
	for _, name := range []string{"secret", "validatingwebhookconfiguration", "mutatingwebhookconfiguration", "attestations"} {
		if rapid.IntRange(0, 4).Draw(r, name+"?") == 0 {
			v := rapid.SampledFrom(append(refs, `{"admissionReviewAPIGroups":["*"]}`, `{"admissionReviewAPIGroups":null}`, `{"admissionReviewAPIGroups":[null]}`, `{"x":["y"]}`)).Draw(r, name)
			if name == "attestations" && rapid.Bool().Draw(r, "good attestation") {
				v = `{"admissionReviewAPIGroups":["apps","batch"]}`
			}
			if v != absent {
				out = append(out, tokentest.Member{Name: name, JSON: v})
			}
		}
	}
	return out
}

// breakText turns, adds or takes away a character of a token.
func breakText(r *rapid.T, text string) string {
	i := rapid.IntRange(0, len(text)-1).Draw(r, "at")
	with := rapid.SampledFrom([]string{"", "A", "=", ".", "\n", " ", "-", "_", "/", "\x00", "é"}).Draw(r, "with")
	if rapid.Bool().Draw(r, "insert") {
		return text[:i] + with + text[i:]
	}
	return text[:i] + with + text[i+1:]
}
