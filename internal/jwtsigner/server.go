package jwtsigner

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
	externaljwt "k8s.io/externaljwt/apis/v1"

	"github.com/kubepki/kubepki/token"
)

const (
	// signWait is how long one signature may take, with the wait for its turn.
	signWait = 15 * time.Second
	// signatures are in the making at once; others wait.
	signatures = 16
)

// Config is what a [Server] needs.
type Config struct {
	Policy Policy
	Keys   *Keys
	// RefreshHint is after which time the API server asks for the keys again, and
	// until when others may keep what it publishes of them; whole seconds.
	RefreshHint time.Duration
	Metrics     *Metrics     // nil: none
	Log         *slog.Logger // nil: slog.Default
}

// Server answers kube-apiserver.
type Server struct {
	externaljwt.UnimplementedExternalJWTSignerServer
	config Config
	slots  chan struct{}
}

// NewServer returns a server. A policy that allows nothing, no keys, and a
// refresh hint that is none, are errors.
func NewServer(c Config) (*Server, error) {
	if err := c.Policy.check(); err != nil {
		return nil, err
	}
	if c.Keys == nil {
		return nil, errors.New("a signer needs keys")
	}
	if c.RefreshHint < time.Second || c.RefreshHint%time.Second != 0 {
		return nil, fmt.Errorf("a refresh hint of %s: whole seconds are needed, one at least", c.RefreshHint)
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	return &Server{config: c, slots: make(chan struct{}, signatures)}, nil
}

// Sign signs a payload, if the policy allows it.
func (s *Server) Sign(ctx context.Context, q *externaljwt.SignJWTRequest) (*externaljwt.SignJWTResponse, error) {
	began := time.Now()
	answer, err := s.sign(ctx, q.GetClaims())
	s.config.Metrics.signed(status.Code(err), time.Since(began))
	return answer, err
}

func (s *Server) sign(ctx context.Context, payload string) (*externaljwt.SignJWTResponse, error) {
	claims, err := s.config.Policy.Judge(payload)
	if err != nil {
		s.config.Log.Warn("refused to sign", "error", err.Error())
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, signWait)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, status.Error(codes.ResourceExhausted, "too many signatures are in the making")
	}
	signer := s.config.Keys.Signer()
	made := make(chan result, 1)
	go func() { // what holds the key cannot be told to stop
		defer func() { <-s.slots }()
		made <- s.produce(signer, payload, claims)
	}()
	select {
	case r := <-made:
		return s.answer(r, signer, claims)
	case <-ctx.Done():
		s.config.Log.Error("a signature took too long", "key", signer.Key().ID)
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

type result struct {
	header, signature string
	err               error
}

// errSignature tells that the key did not sign what it was given.
var errSignature = errors.New("the signature is not of the key that was known at the start: was the key exchanged where it is held? Start this process anew")

// produce signs, and looks at the token as those do who verify it: a signature that
// nobody accepts, of a device whose key was exchanged, never leaves.
func (s *Server) produce(signer *token.Signer, payload string, claims *token.Claims) result {
	header, signature, err := signer.SignPayload(payload)
	if err != nil {
		return result{err: err}
	}
	set, err := token.NewKeySet(signer.Key())
	if err != nil {
		return result{err: err}
	}
	v, err := token.NewVerifier(token.Config{Keys: set, Issuers: s.config.Policy.Issuers, Audiences: claims.Audiences, Now: s.config.Policy.Now})
	if err != nil {
		return result{err: err}
	}
	_, err = v.Verify(context.Background(), header+"."+payload+"."+signature)
	var refused *token.RefusedError
	if errors.As(err, &refused) && refused.Has(token.SignatureInvalid) {
		err = errSignature
	}
	return result{header, signature, err}
}

func (s *Server) answer(r result, signer *token.Signer, c *token.Claims) (*externaljwt.SignJWTResponse, error) {
	if r.err != nil {
		s.config.Log.Error("could not sign", "key", signer.Key().ID, "error", r.err.Error())
		return nil, status.Error(codes.Unavailable, r.err.Error())
	}
	s.config.Log.Info("signed", "subject", c.Subject, "audiences", clipAll(c.Audiences), "expires", c.Expires.UTC(), "id", clip(c.ID), "bound", bound(c), "key", signer.Key().ID)
	return &externaljwt.SignJWTResponse{Header: r.header, Signature: r.signature}, nil
}

// bound says what a token dies with.
func bound(c *token.Claims) string {
	for _, o := range []struct {
		kind string
		ref  *token.Ref
	}{
		{"pod", c.Pod}, {"secret", c.Secret}, {"validatingwebhookconfiguration", c.ValidatingWebhookConfiguration},
		{"mutatingwebhookconfiguration", c.MutatingWebhookConfiguration}, {"node", c.Node},
	} {
		if o.ref != nil {
			return o.kind + "/" + o.ref.Name
		}
	}
	return ""
}

// FetchKeys tells the keys that verify.
func (s *Server) FetchKeys(context.Context, *externaljwt.FetchKeysRequest) (*externaljwt.FetchKeysResponse, error) {
	p := s.config.Keys.Publish()
	answer := &externaljwt.FetchKeysResponse{
		DataTimestamp: timestamppb.New(p.AsOf), RefreshHintSeconds: int64(s.config.RefreshHint / time.Second),
	}
	for _, list := range []struct {
		keys     []token.Key
		excluded bool
	}{{p.Keys, false}, {p.Legacy, true}} {
		for _, k := range list.keys {
			der, err := x509.MarshalPKIXPublicKey(k.Public)
			if err != nil {
				return nil, status.Error(codes.Internal, err.Error())
			}
			answer.Keys = append(answer.Keys, &externaljwt.Key{KeyId: k.ID, Key: der, ExcludeFromOidcDiscovery: list.excluded})
		}
	}
	s.config.Metrics.fetched()
	return answer, nil
}

// Metadata tells how long tokens live at most.
func (s *Server) Metadata(context.Context, *externaljwt.MetadataRequest) (*externaljwt.MetadataResponse, error) {
	return &externaljwt.MetadataResponse{MaxTokenExpirationSeconds: int64(s.config.Policy.MaxLife / time.Second)}, nil
}
