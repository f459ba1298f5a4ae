package tokentest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/kubepki/kubepki/token"
)

func goodCases(now time.Time) []Case {
	p := Payload(now)
	all := []Case{
		{Name: "a token of a pod", Token: Good(p)},
		{Name: "a token of the second issuer, for the second audience", Token: Good(p.With("iss", quoted(Issuer2)).With("aud", list(Issuer2)))},
		{Name: "a token of nothing but a service account", Token: Good(p.With("kubernetes.io", Bound().Without("pod").Without("node").Text()))},
	}
	for _, key := range Listed() {
		all = append(all, Case{Name: "signed with the key " + key, Token: Signed(key, Header(key), p)})
	}
	return all
}

// publicPEM is the text that a verifier which takes the header's word would use
// as the secret of HS256.
func publicPEM(key string) []byte {
	der, err := x509.MarshalPKIXPublicKey(Key(key).Public())
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func algorithmCases(now time.Time) []Case {
	p := Payload(now).Text()
	as := func(alg string, key string) string { return Header(key).With("alg", quoted(alg)).Text() }
	var all []Case
	for _, none := range []string{"none", "None", "NONE", "nOnE", ""} {
		all = append(all, Case{Name: "alg " + quoted(none) + " without a signature", Token: Forge(as(none, RSA), p, "none", nil, nil), Want: token.AlgorithmRefused})
	}
	all = append(all,
		Case{Name: "alg none with the signature of a good key", Token: Forge(as("none", RSA), p, "RS256", Key(RSA), nil), Want: token.AlgorithmRefused},
		Case{Name: "alg missing", Token: Forge(Header(RSA).Without("alg").Text(), p, "RS256", Key(RSA), nil), Want: token.AlgorithmRefused},
		Case{Name: "alg null", Token: Forge(Header(RSA).With("alg", "null").Text(), p, "RS256", Key(RSA), nil), Want: token.AlgorithmRefused},
		Case{Name: "alg in lower case", Token: Forge(as("rs256", RSA), p, "RS256", Key(RSA), nil), Want: token.AlgorithmRefused},
		Case{Name: "HS256 with the PEM of the public key as its secret", Token: Forge(as("HS256", RSA), p, "HS256", nil, publicPEM(RSA)), Want: token.AlgorithmRefused},
		Case{Name: "HS256 without kid, with the PEM of the public key as its secret", Token: Forge(`{"alg":"HS256"}`, p, "HS256", nil, publicPEM(RSA)), Want: token.AlgorithmRefused},
		Case{Name: "RS256 in the header, HS256 in truth", Token: Forge(as("RS256", RSA), p, "HS256", nil, publicPEM(RSA)), Want: token.SignatureInvalid},
		Case{Name: "RS384 with a good key", Token: Forge(as("RS384", RSA), p, "RS384", Key(RSA), nil), Want: token.AlgorithmRefused, Stricter: true},
		Case{Name: "RS512 with a good key", Token: Forge(as("RS512", RSA), p, "RS512", Key(RSA), nil), Want: token.AlgorithmRefused, Stricter: true},
		Case{Name: "PS256 with a good key", Token: Forge(as("PS256", RSA), p, "PS256", Key(RSA), nil), Want: token.AlgorithmRefused, Stricter: true},
		Case{Name: "PS384 with a good key", Token: Forge(as("PS384", RSA), p, "PS384", Key(RSA), nil), Want: token.AlgorithmRefused, Stricter: true},
		Case{Name: "PS512 with a good key", Token: Forge(as("PS512", RSA), p, "PS512", Key(RSA), nil), Want: token.AlgorithmRefused, Stricter: true},
		Case{Name: "RS256 in the header, PS256 in truth", Token: Forge(as("RS256", RSA), p, "PS256", Key(RSA), nil), Want: token.SignatureInvalid},
		Case{Name: "PS256 in the header, RS256 in truth", Token: Forge(as("PS256", RSA), p, "RS256", Key(RSA), nil), Want: token.AlgorithmRefused},
		Case{Name: "EdDSA", Token: Forge(as("EdDSA", RSA), p, "EdDSA", Key(Ed25519), nil), Want: token.AlgorithmRefused},
		Case{Name: "ES256 under the id of an RSA key", Token: Forge(as("ES256", RSA), p, "ES256", Key(P256), nil), Want: token.AlgorithmMismatch},
		Case{Name: "RS256 under the id of a P-256 key", Token: Forge(as("RS256", P256), p, "RS256", Key(RSA), nil), Want: token.AlgorithmMismatch},
		Case{Name: "ES256 with a P-384 key", Token: Forge(as("ES256", P384), p, "ES256", Key(P384), nil), Want: token.AlgorithmMismatch},
		Case{Name: "ES384 with a P-256 key", Token: Forge(as("ES384", P256), p, "ES384", Key(P256), nil), Want: token.AlgorithmMismatch},
		Case{Name: "ES512 with a P-384 key", Token: Forge(as("ES512", P384), p, "ES512", Key(P384), nil), Want: token.AlgorithmMismatch},
	)
	return append(all, signatureCases(Payload(now))...)
}

func signatureCases(p Object) []Case {
	good := Good(p)
	ecdsa := Signed(P256, Header(P256), p)
	return []Case{
		{Name: "a payload that was changed after signing", Token: swapPayload(good, p.With("sub", quoted("system:serviceaccount:apps:admin"))), Want: token.SignatureInvalid},
		{Name: "a header that was changed after signing", Token: Encode(Header(RSA).And("typ", `"JWT"`).Text()) + good[strings.Index(good, "."):], Want: token.SignatureInvalid},
		{Name: "no signature", Token: good[:strings.LastIndex(good, ".")+1], Want: token.SignatureInvalid},
		{Name: "a signature of half the length", Token: withSignature(good, func(b []byte) []byte { return b[:len(b)/2] }), Want: token.SignatureInvalid},
		{Name: "a signature with a byte more", Token: withSignature(good, func(b []byte) []byte { return append(b, 0) }), Want: token.SignatureInvalid},
		{Name: "a signature with one bit turned", Token: withSignature(good, func(b []byte) []byte { b[9] ^= 1; return b }), Want: token.SignatureInvalid},
		{Name: "an RSA signature of zeros", Token: withSignature(good, func(b []byte) []byte { return make([]byte, len(b)) }), Want: token.SignatureInvalid},
		{Name: "an ECDSA signature of zeros (CVE-2022-21449)", Token: withSignature(ecdsa, func(b []byte) []byte { return make([]byte, len(b)) }), Want: token.SignatureInvalid},
		{Name: "an ECDSA signature in DER", Token: withSignature(ecdsa, inDER), Want: token.SignatureInvalid},
		{Name: "an ECDSA signature of half the length", Token: withSignature(ecdsa, func(b []byte) []byte { return b[:32] }), Want: token.SignatureInvalid},
	}
}

func swapPayload(good string, p Object) string {
	parts := strings.Split(good, ".")
	return parts[0] + "." + Encode(p.Text()) + "." + parts[2]
}

func withSignature(good string, change func([]byte) []byte) string {
	i := strings.LastIndex(good, ".") + 1
	raw, err := base64.RawURLEncoding.DecodeString(good[i:])
	if err != nil {
		panic(err)
	}
	return good[:i] + base64.RawURLEncoding.EncodeToString(change(raw))
}

func keyCases(now time.Time) []Case {
	p := Payload(now)
	kid := func(json string) Object { return Header(RSA).With("kid", json) }
	return []Case{
		{Name: "no kid: all keys are tried", Token: GoodUnder(Header(RSA).Without("kid"), p)},
		{Name: "no kid, signed with the last key", Token: Signed(P521, Header(P521).Without("kid"), p)},
		{Name: "an empty kid", Token: GoodUnder(kid(`""`), p)},
		{Name: "a kid that is null", Token: GoodUnder(kid(`null`), p)},
		{Name: "no kid, signed with a foreign key", Token: Signed(Foreign, Header(RSA).Without("kid"), p), Want: token.SignatureInvalid},
		{Name: "no kid, signed with a foreign key of P-256", Token: Signed(FP256, Header(P256).Without("kid"), p), Want: token.SignatureInvalid},
		{Name: "the kid of a good key, signed with a foreign one", Token: Signed(Foreign, Header(RSA), p), Want: token.SignatureInvalid},
		{Name: "a key that was retired, under its own kid", Token: Signed(Foreign, Header(Foreign), p), Want: token.KeyUnknown},
		{Name: "a kid that nobody has", Token: GoodUnder(kid(`"nobody"`), p), Want: token.KeyUnknown},
		{Name: "a kid that is a path", Token: GoodUnder(kid(`"../../../../dev/null"`), p), Want: token.KeyUnknown},
		{Name: "a kid with a blank at its end", Token: GoodUnder(kid(quoted(keyOf(RSA).ID+" ")), p), Want: token.KeyUnknown},
		{Name: "the kid of another good key", Token: Signed(RSA, Header(RSA4096), p), Want: token.SignatureInvalid},
		{Name: "a kid that is a number", Token: GoodUnder(kid(`7`), p), Want: token.Malformed},
		{Name: "a kid that is a list", Token: GoodUnder(kid(`["x"]`), p), Want: token.Malformed},
		{Name: "a weak key", Token: Forge(`{"alg":"RS256"}`, p.Text(), "RS256", Key(Weak), nil), Want: token.SignatureInvalid},
	}
}

// GoodUnder is Good with another header.
func GoodUnder(header, payload Object) string { return Signed(RSA, header, payload) }

func headerCases(now time.Time) []Case {
	p := Payload(now)
	h, bare := Header(RSA), Header(RSA).Without("kid")
	jwk := text(jose.JSONWebKey{Key: Key(Foreign).Public()})
	x5c := func(key string) string {
		return `["` + base64.StdEncoding.EncodeToString(selfSigned(Key(key))) + `"]`
	}
	return []Case{
		{Name: "jwk of the attacker, signed with it", Token: Signed(Foreign, bare.And("jwk", jwk), p), Want: token.SignatureInvalid},
		{Name: "jwk of the attacker under a good kid", Token: Signed(Foreign, h.And("jwk", jwk), p), Want: token.SignatureInvalid},
		{Name: "jwk of the attacker, signed with a good key", Token: GoodUnder(h.And("jwk", jwk), p)},
		{Name: "jwk with a private key", Token: GoodUnder(h.And("jwk", text(jose.JSONWebKey{Key: Key(Foreign)})), p), Want: token.Malformed},
		{Name: "jwk with a URL of its certificate", Token: GoodUnder(h.And("jwk", strings.Replace(jwk, "{", `{"x5u":"https://attacker.example/cert",`, 1)), p), Want: token.Malformed},
		{Name: "jwk with an empty URL of its certificate", Token: GoodUnder(h.And("jwk", strings.Replace(jwk, "{", `{"x5u":"",`, 1)), p), Want: token.Malformed},
		{Name: "jwk of a kind that is new", Token: GoodUnder(h.And("jwk", `{"kty":"AKP","alg":"ML-DSA-44","pub":"AAAA"}`), p), Want: token.Malformed},
		{Name: "jwk of a secret", Token: GoodUnder(h.And("jwk", `{"kty":"oct","k":"c2VjcmV0"}`), p), Want: token.Malformed},
		{Name: "jwk that is null", Token: GoodUnder(h.And("jwk", `null`), p)},
		{Name: "jku of the attacker, signed by him", Token: Signed(Foreign, bare.And("jku", `"https://attacker.example/keys"`), p), Want: token.SignatureInvalid},
		{Name: "jku, signed with a good key", Token: GoodUnder(h.And("jku", `"https://attacker.example/keys"`), p)},
		{Name: "x5u of the attacker, signed by him", Token: Signed(Foreign, bare.And("x5u", `"https://attacker.example/cert"`), p), Want: token.SignatureInvalid},
		{Name: "x5u, signed with a good key", Token: GoodUnder(h.And("x5u", `"https://attacker.example/cert"`), p)},
		{Name: "x5c of the attacker, signed by him", Token: Signed(Foreign, bare.And("x5c", x5c(Foreign)), p), Want: token.SignatureInvalid},
		{Name: "x5c, signed with a good key", Token: GoodUnder(h.And("x5c", x5c(Foreign)), p)},
		{Name: "crit of a claim", Token: GoodUnder(h.And("crit", `["exp"]`).And("exp", "1"), p), Want: token.HeaderForbidden},
		{Name: "crit with b64", Token: GoodUnder(h.And("crit", `["b64"]`).And("b64", "true"), p), Want: token.HeaderForbidden, Stricter: true},
		{Name: "an empty crit", Token: GoodUnder(h.And("crit", `[]`), p), Want: token.HeaderForbidden, Stricter: true},
		{Name: "crit null", Token: GoodUnder(h.And("crit", `null`), p), Want: token.HeaderForbidden, Stricter: true},
		{Name: "b64 false", Token: Forge(h.And("b64", "false").Text(), p.Text(), "RS256", Key(RSA), nil), Want: token.HeaderForbidden},
		{Name: "b64 true", Token: GoodUnder(h.And("b64", "true"), p), Want: token.HeaderForbidden, Stricter: true},
		{Name: "b64 false and crit, the payload not encoded", Token: unencoded(h.And("b64", "false").And("crit", `["b64"]`), p), Want: token.Malformed},
		{Name: "typ JWT", Token: GoodUnder(h.And("typ", `"JWT"`), p)},
		{Name: "typ of an access token", Token: GoodUnder(h.And("typ", `"at+jwt"`), p)},
		{Name: "cty of a token within", Token: GoodUnder(h.And("cty", `"JWT"`), p)},
		{Name: "a parameter that nobody knows", Token: GoodUnder(h.And("x", `{"y":[1,2]}`), p)},
		{Name: "alg twice", Token: GoodUnder(h.And("alg", `"none"`), p), Want: token.Malformed},
		{Name: "alg twice, the second under an escape", Token: GoodUnder(h.And(`\u0061lg`, `"none"`), p), Want: token.Malformed},
		{Name: "kid twice", Token: GoodUnder(h.And("kid", `"x"`), p), Want: token.Malformed},
		{Name: "a name twice within a parameter", Token: GoodUnder(h.And("x", `{"a":1,"a":2}`), p), Want: token.Malformed},
		{Name: "a header that is an array", Token: Forge("[]", p.Text(), "RS256", Key(RSA), nil), Want: token.Malformed},
		{Name: "a header that is null", Token: Forge("null", p.Text(), "RS256", Key(RSA), nil), Want: token.AlgorithmRefused},
		{Name: "an empty header", Token: Forge("{}", p.Text(), "RS256", Key(RSA), nil), Want: token.AlgorithmRefused},
		{Name: "a header of a megabyte", Token: GoodUnder(h.And("x", quoted(strings.Repeat("x", 1<<20))), p), Want: token.TooLarge, Stricter: true},
		{Name: "JWE for the public key of the cluster", Token: encrypted(p), Want: token.Malformed},
	}
}

// unencoded is a token whose payload is not base64 (RFC 7797).
func unencoded(h, p Object) string {
	signed := Encode(h.Text()) + "." + p.Text()
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature(signed, "RS256", Key(RSA), nil))
}

func encrypted(p Object) string {
	e, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: jose.RSA_OAEP_256, Key: Key(RSA).Public()}, nil)
	if err != nil {
		panic(err)
	}
	o, err := e.Encrypt([]byte(p.Text()))
	if err != nil {
		panic(err)
	}
	out, err := o.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return out
}

func text(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(data)
}

func selfSigned(k crypto.Signer) []byte {
	template := &x509.Certificate{NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.(*rsa.PrivateKey).Public(), k)
	if err != nil {
		panic(err)
	}
	return der
}
