package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authorization "k8s.io/client-go/kubernetes/typed/authorization/v1"

	"github.com/kubepki/kubepki/internal/csr"
)

// accessFor is how long an answer of the API server about an identity is taken
// for true.
const accessFor = 10 * time.Second

// access asks the API server who may do what, and remembers the answers for a
// short time. Requests that ask the same at the same time share one question.
// It may be used by several goroutines.
type access struct {
	reviews authorization.SubjectAccessReviewInterface
	metrics *Metrics
	flights singleflight.Group

	mu      sync.Mutex
	answers map[[32]byte]answer
	swept   time.Time
}

type answer struct {
	value csr.Answer
	until time.Time
}

func newAccess(reviews authorization.SubjectAccessReviewInterface, m *Metrics) *access {
	return &access{reviews: reviews, metrics: m, answers: map[[32]byte]answer{}}
}

// may tells whether the requester of a request has a permission: a subresource
// of certificatesigningrequests that he may create, as in
// k/k pkg/controller/certificates/approver/sarapprove.go.
func (a *access) may(ctx context.Context, r csr.Request, permission string) (csr.Answer, error) {
	key := identity(r, permission)
	if v, ok := a.remembered(key, time.Now()); ok {
		a.metrics.access.WithLabelValues("hit").Inc()
		return v, nil
	}
	a.metrics.access.WithLabelValues("miss").Inc()
	v, err, _ := a.flights.Do(string(key[:]), func() (any, error) {
		asked := time.Now()
		v, err := a.ask(ctx, r, permission)
		if err == nil {
			a.remember(key, answer{v, asked.Add(accessFor)}, asked)
		}
		return v, err
	})
	if err != nil {
		return csr.Unknown, fmt.Errorf("asking whether %q may %s: %w", r.Username, permission, err)
	}
	return v.(csr.Answer), nil
}

func (a *access) ask(ctx context.Context, r csr.Request, permission string) (csr.Answer, error) {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: r.Username, UID: r.UserUID, Groups: r.Groups,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Group: "certificates.k8s.io", Version: "*", Resource: "certificatesigningrequests", Subresource: permission, Verb: "create",
		},
	}}
	if len(r.Extra) > 0 {
		review.Spec.Extra = make(map[string]authorizationv1.ExtraValue, len(r.Extra))
		for k, v := range r.Extra {
			review.Spec.Extra[k] = v
		}
	}
	got, err := a.reviews.Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return csr.Unknown, err
	}
	if got.Status.Allowed {
		return csr.Yes, nil
	}
	return csr.No, nil
}

func (a *access) remembered(key [32]byte, now time.Time) (csr.Answer, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v, ok := a.answers[key]
	return v.value, ok && now.Before(v.until)
}

func (a *access) remember(key [32]byte, v answer, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answers[key] = v
	if now.Sub(a.swept) < accessFor {
		return
	}
	a.swept = now
	maps.DeleteFunc(a.answers, func(_ [32]byte, v answer) bool { return !now.Before(v.until) })
}

// identity is one number for all that the answer may depend on.
func identity(r csr.Request, permission string) [32]byte {
	parts := []string{permission, r.Username, r.UserUID, digestList(r.Groups)}
	for _, k := range slices.Sorted(maps.Keys(r.Extra)) {
		parts = append(parts, k, digestList(r.Extra[k]))
	}
	return digest(parts...)
}

func digestList(parts []string) string {
	sum := digest(parts...)
	return string(sum[:])
}
