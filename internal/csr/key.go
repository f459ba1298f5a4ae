package csr

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"slices"

	"github.com/kubepki/kubepki/internal/issue"
)

// KeySum returns the SHA-256 sum of the SubjectPublicKeyInfo of a request, by
// which [Keys] are asked. It costs little: nothing is verified.
func KeySum(pem []byte) (sum [32]byte, ok bool) {
	der, f := decodePEM(pem)
	if f != nil {
		return sum, false
	}
	r, f := walk(der)
	if f != nil {
		return sum, false
	}
	return sha256.Sum256(r.key), true
}

func describeKey(public any) Key {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return Key{Kind: "RSA", Bits: k.N.BitLen()}
	case *ecdsa.PublicKey:
		return Key{Kind: "ECDSA", Bits: k.Curve.Params().BitSize}
	case ed25519.PublicKey:
		return Key{Kind: "Ed25519", Bits: 256}
	}
	return Key{}
}

// strong are the algorithms by which a request may be signed.
var strong = []x509.SignatureAlgorithm{
	x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
	x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519,
}

// judgeKey judges the key of a request and its signature over itself. A weak
// key is not used: verifying with one that is too large would cost much time.
func (j *judgement) judgeKey(f *form, facts Facts, requesters ...string) {
	c := f.request
	usable := false
	if err := issue.CheckPublicKey(c.PublicKey); err != nil {
		j.deny(keyUnfit, "%v", err)
	} else if again, err := x509.MarshalPKIXPublicKey(c.PublicKey); err != nil || !bytes.Equal(again, f.raw.key) {
		// Two forms of one key would have two sums.
		j.deny(derMalformed, "the public key of the request is not in DER")
	} else {
		usable = true
	}
	switch {
	case !slices.Contains(strong, c.SignatureAlgorithm):
		j.deny(signatureWeak, "the request is signed with %s: use SHA-256 or stronger", c.SignatureAlgorithm)
	case usable && c.CheckSignature() != nil:
		j.deny(signatureInvalid, "the signature of the request does not verify with its own key")
	}
	if facts.Keys == nil {
		return
	}
	for _, user := range facts.Keys(f.asked.Key.Sum) {
		switch {
		case user == OfAuthority:
			j.deny(keyOfAuthority, "the key of the request is that of an authority of the cluster")
		case !slices.Contains(requesters, user):
			j.deny(keyReused, "the key of the request has been used by %s", quote(user))
		}
	}
}
