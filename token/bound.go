package token

// BoundKind is a kind of objects that tokens are bound to: a token dies with its
// object.
type BoundKind struct {
	Kind, APIVersion string // as the Kubernetes API spells them
	in               func(*Claims) **Ref
}

// BoundKinds returns all kinds (k8s.io/kubernetes/pkg/registry/core/serviceaccount/storage/token.go).
// Where a token names objects of two, as of a pod and its node, it is bound to
// the first.
func BoundKinds() []BoundKind {
	const webhooks = "admissionregistration.k8s.io/v1"
	return []BoundKind{
		{"Pod", "v1", func(c *Claims) **Ref { return &c.Pod }},
		{"Node", "v1", func(c *Claims) **Ref { return &c.Node }},
		{"Secret", "v1", func(c *Claims) **Ref { return &c.Secret }},
		{"ValidatingWebhookConfiguration", webhooks, func(c *Claims) **Ref { return &c.ValidatingWebhookConfiguration }},
		{"MutatingWebhookConfiguration", webhooks, func(c *Claims) **Ref { return &c.MutatingWebhookConfiguration }},
	}
}

// Of returns the object of the kind that claims name; nil: none.
func (k BoundKind) Of(c *Claims) *Ref { return *k.in(c) }

// Bind has claims name an object of the kind.
func (k BoundKind) Bind(c *Claims, to Ref) { *k.in(c) = &to }
