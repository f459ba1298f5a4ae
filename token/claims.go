package token

import (
	"maps"
	"slices"
	"time"
)

// LegacyIssuer is the issuer of tokens of Secrets
// (k8s.io/kubernetes/pkg/serviceaccount/legacy.go).
const LegacyIssuer = "kubernetes/serviceaccount"

// APIGroupsAttestation is the attestation of tokens by which an API server shows
// itself to admission webhooks: the API groups whose objects it may send, or *
// (k8s.io/api/authentication/v1).
const APIGroupsAttestation = "admissionReviewAPIGroups"

// Claims is what a token says. Times have whole seconds; a zero time is one that
// the token does not tell.
type Claims struct {
	Issuer    string
	Subject   string // system:serviceaccount:NAMESPACE:NAME
	Audiences []string
	ID        string // jti
	Expires   time.Time
	NotBefore time.Time
	IssuedAt  time.Time

	// Legacy tells of a token of a Secret, as Kubernetes made them before 1.24: it
	// is bound to Secret, whose uid it does not tell, and has no audience and,
	// mostly, no end.
	Legacy         bool
	Namespace      string
	ServiceAccount Ref
	// What the token dies with; nil: not bound to one. A Node beside a Pod is
	// the one that the pod runs on, and the token is not bound to it.
	Pod                            *Ref
	Node                           *Ref
	Secret                         *Ref
	ValidatingWebhookConfiguration *Ref
	MutatingWebhookConfiguration   *Ref
	Attestations                   map[string][]string
	// WarnAfter is when a token, whose end was put off for clients that do not
	// read their file again, should have been replaced.
	WarnAfter time.Time
}

// clone returns a copy that shares nothing.
func (c Claims) clone() Claims {
	c.Audiences = slices.Clone(c.Audiences)
	refs := new([5]Ref)
	for i, r := range [...]**Ref{&c.Pod, &c.Node, &c.Secret, &c.ValidatingWebhookConfiguration, &c.MutatingWebhookConfiguration} {
		if *r != nil {
			refs[i] = **r
			*r = &refs[i]
		}
	}
	if c.Attestations != nil {
		c.Attestations = maps.Clone(c.Attestations)
		for key, values := range c.Attestations {
			c.Attestations[key] = slices.Clone(values)
		}
	}
	return c
}

// Ref names an object of the cluster.
type Ref struct {
	Name string
	UID  string
}
