package token

import (
	"context"
	"slices"
)

// User is who shows a token, as Kubernetes names it (authentication.k8s.io/v1
// UserInfo).
type User struct {
	Username string              `json:"username"`
	UID      string              `json:"uid"`
	Groups   []string            `json:"groups"`
	Extra    map[string][]string `json:"extra"` // empty, and not nil, when there is none
}

// The keys of [User.Extra] (k8s.io/apiserver/pkg/authentication/serviceaccount).
const (
	credentialIDKey   = "authentication.kubernetes.io/credential-id"
	podNameKey        = "authentication.kubernetes.io/pod-name"
	podUIDKey         = "authentication.kubernetes.io/pod-uid"
	nodeNameKey       = "authentication.kubernetes.io/node-name"
	nodeUIDKey        = "authentication.kubernetes.io/node-uid"
	validatingNameKey = "authentication.kubernetes.io/validatingwebhookconfiguration-name"
	validatingUIDKey  = "authentication.kubernetes.io/validatingwebhookconfiguration-uid"
	mutatingNameKey   = "authentication.kubernetes.io/mutatingwebhookconfiguration-name"
	mutatingUIDKey    = "authentication.kubernetes.io/mutatingwebhookconfiguration-uid"
	attestationPrefix = "attestation.authentication.kubernetes.io/"
)

const (
	userPrefix  = "system:serviceaccount:"
	groupAll    = "system:serviceaccounts"
	groupPrefix = "system:serviceaccounts:"
)

// User returns whom the claims name. It is worth what the claims are worth:
// nothing, unless a [Verifier] returned them.
func (c *Claims) User() User {
	u := User{Username: c.username(), UID: c.ServiceAccount.UID, Groups: []string{groupAll, groupPrefix + c.Namespace}, Extra: make(map[string][]string, 8)}
	if c.Legacy {
		return u
	}
	values := make([]string, 0, 9) // all of them in one piece
	put := func(key, value string) {
		if n := len(values); value != "" {
			values = append(values, value)
			u.Extra[key] = values[n : n+1 : n+1]
		}
	}
	if c.ID != "" {
		put(credentialIDKey, "JTI="+c.ID)
	}
	for _, o := range []struct {
		ref       *Ref
		name, uid string
	}{
		{c.Pod, podNameKey, podUIDKey}, {c.Node, nodeNameKey, nodeUIDKey},
		{c.ValidatingWebhookConfiguration, validatingNameKey, validatingUIDKey},
		{c.MutatingWebhookConfiguration, mutatingNameKey, mutatingUIDKey},
	} {
		if o.ref != nil {
			put(o.name, o.ref.Name)
			put(o.uid, o.ref.UID)
		}
	}
	if groups := c.Attestations[APIGroupsAttestation]; c.webhookBound() && len(groups) > 0 {
		u.Extra[attestationPrefix+APIGroupsAttestation] = slices.Clone(groups)
	}
	return u
}

func (c *Claims) username() string { return userPrefix + c.Namespace + ":" + c.ServiceAccount.Name }

func (c *Claims) webhookBound() bool {
	return c.ValidatingWebhookConfiguration != nil || c.MutatingWebhookConfiguration != nil
}

// clone returns a copy that shares nothing: in few pieces, for every request of a
// remembered token takes one.
func (u User) clone() User {
	n := len(u.Groups)
	for _, values := range u.Extra {
		n += len(values)
	}
	all := make([]string, 0, n)
	piece := func(of []string) []string {
		all = append(all, of...)
		return all[len(all)-len(of) : len(all) : len(all)]
	}
	u.Groups = piece(u.Groups)
	extra := make(map[string][]string, len(u.Extra))
	for key, values := range u.Extra {
		extra[key] = piece(values)
	}
	u.Extra = extra
	return u
}

type contextKey struct{}

// NewContext returns a context that carries who sent a request. The middleware
// of token/tokenhttp and token/tokengrpc makes it; tests of handlers may.
func NewContext(ctx context.Context, v *Verified) context.Context {
	return context.WithValue(ctx, contextKey{}, v)
}

// FromContext returns who sent the request of a context: nil when no middleware
// has verified a token.
func FromContext(ctx context.Context) *Verified {
	v, _ := ctx.Value(contextKey{}).(*Verified)
	return v
}
