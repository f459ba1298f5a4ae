package token

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// ParsePayload takes apart the second part of a token that is not signed yet,
// and that somebody else made: for those who sign by [Signer.SignPayload]. It is
// as strict as [Parse], refuses what [Signer.Sign] refuses, and claims that no
// token of Kubernetes has: whoever else trusts the issuer might act on them.
// Within kubernetes.io, which is for API servers alone, claims of later versions
// are let through.
//
// The issuer, the audiences and how long the token lives are for the caller to
// judge. The error is a [*RefusedError].
func ParsePayload(payload string) (*Claims, error) {
	if len(payload) > MaxSize {
		return nil, refuse(TooLarge, fmt.Sprintf("longer than %d bytes", MaxSize))
	}
	var w claims
	if _, err := decodePart("payload", payload, &w); err != nil {
		return nil, err
	}
	if name, foreign := w.foreign(); foreign {
		return nil, refuse(Malformed, "the claim "+quote(name)+" is none that a token of Kubernetes has")
	}
	c := w.claims()
	j := judgement{config: &Config{Issuers: []string{c.Issuer}}, claims: &c, wire: &w}
	if j.signable(); len(j.reasons) > 0 {
		return nil, &RefusedError{j.reasons}
	}
	return &c, nil
}

// foreign returns the name of a claim that Kubernetes does not write, if there is
// one.
func (c *claims) foreign() (name string, found bool) {
	if len(c.Other) == 0 {
		return "", false
	}
	d := jsontext.NewDecoder(bytes.NewReader(c.Other)) // an object, read once already
	if _, err := d.ReadToken(); err != nil {
		return "", true
	}
	first, err := d.ReadToken()
	if err != nil || first.Kind() != jsontext.KindString {
		return "", err != nil
	}
	return first.String(), true
}
