package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/kubepki/kubepki/lab/internal/k8stoken"
	"github.com/kubepki/kubepki/lab/internal/paired"
	"github.com/kubepki/kubepki/token"
	"github.com/kubepki/kubepki/token/tokenhttp"
)

const issuer = "https://kubernetes.default.svc.cluster.local"

// algorithm is a kind of key, and the ratios that it should reach: verification
// beside Kubernetes, issuing beside the bare signature.
type algorithm struct {
	name          string
	generate      func() (crypto.Signer, error)
	verify, issue float64
}

func algorithms() []algorithm {
	return []algorithm{
		{"RSA-2048", func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }, 1.3, 0.97},
		{"P-256", func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }, 1.2, 0.65},
	}
}

// subject is a key, a token of a pod that it signed, and who works with them.
type subject struct {
	algorithm
	key      crypto.Signer
	signer   *token.Signer
	claims   token.Claims
	text     string
	verifier *token.Verifier
	cache    *token.Cache
	theirs   *k8stoken.Authenticator
	objects  k8stoken.Named
	digest   [sha256.Size]byte
	bare     []byte // a signature of the digest
}

func newSubject(a algorithm) (*subject, error) {
	s := &subject{algorithm: a, digest: sha256.Sum256([]byte(a.name))}
	now := time.Now()
	// As kubelets have them.
	s.claims = token.Claims{
		Issuer: issuer, Audiences: []string{issuer}, ID: "0b7c1a0e-6a2f-4a6e-9a6d-5f5c3e0f7a11",
		Expires: now.Add(365 * 24 * time.Hour), NotBefore: now, IssuedAt: now, WarnAfter: now.Add(time.Hour),
		Namespace: "kube-system", ServiceAccount: token.Ref{Name: "kube-proxy", UID: "5f0b1b0c-6a2f-4a6e-9a6d-5f5c3e0f7a14"},
		Pod: &token.Ref{Name: "kube-proxy-x7k2p", UID: "4f0b1b0c-6a2f-4a6e-9a6d-5f5c3e0f7a13"}, Node: &token.Ref{Name: "worker-1", UID: "3f0b1b0c-6a2f-4a6e-9a6d-5f5c3e0f7a12"},
	}
	var err error
	if s.key, err = a.generate(); err != nil {
		return nil, err
	}
	if s.bare, err = s.key.Sign(rand.Reader, s.digest[:], crypto.SHA256); err != nil {
		return nil, err
	}
	if s.signer, err = token.NewSigner(s.key); err != nil {
		return nil, err
	}
	if s.text, err = s.signer.Sign(s.claims); err != nil {
		return nil, err
	}
	set, err := token.NewKeySet(s.signer.Key())
	if err != nil {
		return nil, err
	}
	if s.verifier, err = token.NewVerifier(token.Config{Keys: set, Issuers: []string{issuer}}); err != nil {
		return nil, err
	}
	if s.cache, err = token.NewCache(s.verifier, token.CacheConfig{Life: time.Hour}); err != nil {
		return nil, err
	}
	if s.theirs, err = k8stoken.NewProjected([]any{s.key.Public()}, []string{issuer}, []string{issuer}); err != nil {
		return nil, err
	}
	s.objects = k8stoken.ReadNamed(s.text)
	return s, nil
}

func (s *subject) comparisons() []paired.Comparison {
	ctx := context.Background()
	verify := func() error { _, err := s.verifier.Verify(ctx, s.text); return err }
	issue := func() error { _, err := s.signer.Sign(s.claims); return err }
	sign := func() error { _, err := s.key.Sign(rand.Reader, s.digest[:], crypto.SHA256); return err }
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	request := "a request with a remembered token, " + s.name
	return []paired.Comparison{
		{What: "verify, " + s.name, Beside: "Kubernetes", Ours: verify, Theirs: s.verifyTheirs(ctx), Ratio: s.verify},
		{What: "verify, " + s.name, Beside: "the bare signature", Ours: verify, Theirs: s.verifyBare},
		{What: "issue, " + s.name, Beside: "the bare signature", Ours: issue, Theirs: sign, Ratio: s.issue},
		{What: "issue, " + s.name, Beside: "Kubernetes", Ours: issue, Theirs: s.issueTheirs()},
		{What: request, Beside: "the same without the middleware", Ours: s.request(tokenhttp.Require(s.cache, handler)), Theirs: s.request(handler), Adds: 5 * time.Microsecond},
	}
}

func (s *subject) verifyTheirs(ctx context.Context) func() error {
	return func() error {
		response, err := s.theirs.AuthenticateIn(ctx, s.objects, s.text, nil)
		if response == nil {
			return errors.Join(err, errors.New("the token is refused by Kubernetes"))
		}
		return err
	}
}

func (s *subject) verifyBare() error {
	switch k := s.key.Public().(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, s.digest[:], s.bare)
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(k, s.digest[:], s.bare) {
			return errors.New("the signature is bad")
		}
	}
	return nil
}

// issueTheirs makes the same token with Kubernetes' generator.
func (s *subject) issueTheirs() func() error {
	public, private, err := k8stoken.Claims(s.claims)
	if err != nil {
		return func() error { return err }
	}
	sign, err := k8stoken.Generator(issuer, s.key)
	if err != nil {
		return func() error { return err }
	}
	return func() error { _, err := sign(public, private); return err }
}

func (s *subject) request(h http.Handler) func() error {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+s.text)
	w := httptest.NewRecorder()
	return func() error {
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			return errors.New("the request is refused")
		}
		return nil
	}
}
