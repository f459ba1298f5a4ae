package token

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
)

// MaxSize is how long a token may be, in bytes.
const MaxSize = 1_000_000

// What JSON in a token may hold at most: the nesting of objects and arrays, and
// the commas, which bound the members and elements.
const (
	maxDepth  = 32
	maxCommas = 1000
)

// maxKeyCommas is maxCommas for what an issuer publishes: a key has eight or so.
const maxKeyCommas = 20_000

// Unverified is a token that was taken apart. Whoever sent it may have written
// it: nothing of it may be acted upon.
type Unverified struct {
	Algorithm string // alg, any
	KeyID     string // kid; empty: none
	Claims    Claims

	headerText         string // as written
	payload, signature []byte
	header             header
	wire               claims
}

// Parse takes a token apart without verifying anything. It takes the compact
// form (RFC 7515 section 7.1) in strict base64url: no padding, no blanks, no
// bits that are set beyond the last byte. The JSON must be UTF-8, without a name
// twice in an object, and neither deep nor long-winded.
//
// The error is a [*RefusedError] with the reason TooLarge or Malformed. Memory is
// bounded by a small multiple of [MaxSize].
func Parse(text string) (*Unverified, error) {
	if len(text) > MaxSize {
		return nil, refuse(TooLarge, fmt.Sprintf("longer than %d bytes", MaxSize))
	}
	if text == "" {
		return nil, refuse(Malformed, "it is empty")
	}
	first, rest, ok := strings.Cut(text, ".")
	second, third, more := strings.Cut(rest, ".")
	if !ok || !more || strings.Contains(third, ".") {
		return nil, refuse(Malformed, "does not have three parts with dots between them (RFC 7515 section 7.1)")
	}
	u := &Unverified{headerText: first}
	if _, err := decodePart("header", first, &u.header); err != nil {
		return nil, err
	}
	var err error
	if u.payload, err = decodePart("payload", second, &u.wire); err != nil {
		return nil, err
	}
	if u.signature, err = decodeBase64("signature", third); err != nil {
		return nil, err
	}
	u.Algorithm, u.KeyID = u.header.Algorithm, u.header.KeyID
	u.Claims = u.wire.claims()
	return u, nil
}

// Faults are what makes a token one that no verifier accepts, whoever signed it
// and whenever it is shown; none for one that could be good.
func (u *Unverified) Faults() []Reason {
	j := judgement{config: &Config{Issuers: []string{u.Claims.Issuer}}, claims: &u.Claims, wire: &u.wire}
	j.signable()
	if !slices.Contains(algorithms, jose.SignatureAlgorithm(u.Algorithm)) {
		j.refuse(AlgorithmRefused, "alg is %s: tokens of service accounts are signed with RS256, ES256, ES384 or ES512", quote(u.Algorithm))
	}
	return j.reasons
}

// decodePart returns the JSON of a part, and what it says.
func decodePart(name, text string, into any) ([]byte, error) {
	data, err := decodeBase64(name, text)
	if err != nil {
		return nil, err
	}
	if problem := bounded(data, maxCommas); problem != "" {
		return nil, refuse(Malformed, "the "+name+" "+problem)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return nil, refuse(Malformed, "the "+name+" is not the JSON of a token: "+withoutContent(err))
	}
	return data, nil
}

func decodeBase64(name, text string) ([]byte, error) {
	// The decoder skips line ends, which no token has.
	if strings.IndexByte(text, '\n') >= 0 || strings.IndexByte(text, '\r') >= 0 {
		return nil, refuse(Malformed, "the "+name+" holds line ends")
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, refuse(Malformed, "the "+name+" is not strict base64url (RFC 7515 section 2)")
	}
	return data, nil
}

// bounded tells what is too much about a JSON text, before it is decoded.
func bounded(data []byte, most int) string {
	depth, commas, quoted := 0, 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return fmt.Sprintf("is nested deeper than %d", maxDepth)
			}
		case c == '}' || c == ']':
			depth--
		case c == ',':
			if commas++; commas > most {
				return fmt.Sprintf("has more than %d members and elements", most)
			}
		}
	}
	return ""
}
