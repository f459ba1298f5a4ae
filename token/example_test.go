package token_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/kubepki/kubepki/token"
)

// A token is signed and verified, and refused when it has expired.
func Example() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	signer, err := token.NewSigner(key)
	if err != nil {
		log.Fatal(err)
	}
	now := time.Now()
	text, err := signer.Sign(token.Claims{
		Issuer: "https://issuer.example.com", Audiences: []string{"shop"}, IssuedAt: now, NotBefore: now, Expires: now.Add(time.Hour),
		Namespace: "ci", ServiceAccount: token.Ref{Name: "robot", UID: "6f5c0c2e-0c5c-4f0e-9d5b-2b7a3c1d9e10"},
	})
	if err != nil {
		log.Fatal(err)
	}

	keys, err := token.NewKeySet(signer.Key())
	if err != nil {
		log.Fatal(err)
	}
	config := token.Config{Keys: keys, Issuers: []string{"https://issuer.example.com"}, Audiences: []string{"shop"}}
	verifier, err := token.NewVerifier(config)
	if err != nil {
		log.Fatal(err)
	}
	verified, err := verifier.Verify(context.Background(), text)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(verified.User.Username, verified.User.Groups)

	config.Now = func() time.Time { return now.Add(2 * time.Hour) }
	later, err := token.NewVerifier(config)
	if err != nil {
		log.Fatal(err)
	}
	_, err = later.Verify(context.Background(), text)
	var refused *token.RefusedError
	if errors.As(err, &refused) {
		fmt.Println("refused:", refused.Reasons[0].ID)
	}
	// Output:
	// system:serviceaccount:ci:robot [system:serviceaccounts system:serviceaccounts:ci]
	// refused: expired
}

// The keys of a file, as sa.pub has them.
func ExampleParseKeys() {
	keys, err := token.ParseKeys([]byte(`-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEVs/o5+uQbTjL3chynL4wXgUg2R9
q9UU8I5mEovUf86QZ7kOBIjJwqnzD1omageEHWwHdBO6B+dFabmdT9POxg==
-----END PUBLIC KEY-----
`))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(keys[0].Algorithm(), keys[0].ID)
	// Output: ES256 pA8PLil03HaoLfb_4I7Q15lVx5560MINl66Pkkat4cE
}
