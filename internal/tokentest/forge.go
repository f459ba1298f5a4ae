package tokentest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes of the algorithms
	_ "crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"math/big"
	"strings"
)

// Object is a JSON object as text, so that it can be broken in any way: members
// may be repeated, and values are written as they are.
type Object []Member

// Member is one member of an [Object].
type Member struct {
	Name string // as written, quoted by Text
	JSON string
}

// With returns a copy whose members of this name are replaced by one, at the
// end.
func (o Object) With(name, json string) Object { return append(o.Without(name), Member{name, json}) }

// And returns a copy with one more member, whatever there is already.
func (o Object) And(name, json string) Object {
	return append(append(Object{}, o...), Member{name, json})
}

// Before returns a copy with one more member at the start.
func (o Object) Before(name, json string) Object { return append(Object{{name, json}}, o...) }

// Without returns a copy without the members of this name.
func (o Object) Without(name string) Object {
	var out Object
	for _, m := range o {
		if m.Name != name {
			out = append(out, m)
		}
	}
	return out
}

// Text returns the object as JSON.
func (o Object) Text() string {
	var all []string
	for _, m := range o {
		all = append(all, `"`+m.Name+`":`+m.JSON)
	}
	return "{" + strings.Join(all, ",") + "}"
}

// Forge makes a token of a header and a payload, as they are, signed with an
// algorithm that need not be the one of the header. The secret of HS256 is the
// text of secret.
func Forge(header, payload, algorithm string, key crypto.Signer, secret []byte) string {
	signed := Encode(header) + "." + Encode(payload)
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature(signed, algorithm, key, secret))
}

// Encode is unpadded base64url.
func Encode(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func signature(signed, algorithm string, key crypto.Signer, secret []byte) []byte {
	switch algorithm {
	case "none":
		return nil
	case "HS256":
		h := hmac.New(crypto.SHA256.New, secret)
		h.Write([]byte(signed))
		return h.Sum(nil)
	case "EdDSA":
		return ed25519.Sign(key.(ed25519.PrivateKey), []byte(signed))
	}
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[algorithm[2:]]
	h := hash.New()
	h.Write([]byte(signed))
	sum := h.Sum(nil)
	var opts crypto.SignerOpts = hash
	if algorithm[0] == 'P' {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	}
	out, err := key.Sign(rand.Reader, sum, opts)
	if err != nil {
		panic(err)
	}
	if k, ok := key.(*ecdsa.PrivateKey); ok {
		return fixed(out, (k.Curve.Params().BitSize+7)/8)
	}
	return out
}

// fixed turns an ECDSA signature in DER into the form of RFC 7518 section 3.4.
func fixed(der []byte, size int) []byte {
	var s struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &s); err != nil {
		panic(err)
	}
	return append(s.R.FillBytes(make([]byte, size)), s.S.FillBytes(make([]byte, size))...)
}

// inDER is the reverse of fixed.
func inDER(raw []byte) []byte {
	n := len(raw) / 2
	der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:n]), new(big.Int).SetBytes(raw[n:])})
	if err != nil {
		panic(err)
	}
	return der
}
