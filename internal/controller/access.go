package controller

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	authorization "k8s.io/client-go/kubernetes/typed/authorization/v1"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/kube"
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

// may is [kube.May] with a memory.
func (a *access) may(ctx context.Context, r csr.Request, permission string) (csr.Answer, error) {
	key := identity(r, permission)
	if v, ok := a.remembered(key, time.Now()); ok {
		a.metrics.access.WithLabelValues("hit").Inc()
		return v, nil
	}
	a.metrics.access.WithLabelValues("miss").Inc()
	v, err, _ := a.flights.Do(string(key[:]), func() (any, error) {
		asked := time.Now()
		v, err := kube.May(ctx, a.reviews, r, permission)
		if err == nil {
			a.remember(key, answer{v, asked.Add(accessFor)}, asked)
		}
		return v, err
	})
	if err != nil {
		return csr.Unknown, err
	}
	return v.(csr.Answer), nil
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
