package k8stoken

import (
	"context"
	"crypto"

	"gopkg.in/go-jose/go-jose.v2/jwt"

	"k8s.io/kubernetes/pkg/serviceaccount"
)

// Sign makes a token of claims as kube-apiserver makes it of those that
// serviceaccount.Claims returns.
func Sign(issuer string, key crypto.Signer, public *jwt.Claims, private any) (string, error) {
	g, err := serviceaccount.JWTTokenGenerator(issuer, key)
	if err != nil {
		return "", err
	}
	return g.GenerateToken(context.Background(), public, private)
}
