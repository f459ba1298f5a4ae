package saserver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	strict "github.com/go-json-experiment/json"
	authenticationv1 "k8s.io/api/authentication/v1"
	authenticationv1beta1 "k8s.io/api/authentication/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/token"
)

// ReviewPath is where a [Reviewer] is served.
const ReviewPath = "/tokenreview"

// Bounds of reviews. The largest token that was seen in a cluster has some 2 KiB.
const (
	MaxBody      = 128 << 10 // bytes
	maxAudiences = 100
	// MaxReviews are in the making at once: their bodies fill 32 MiB at most.
	MaxReviews = 256
)

// refusedText is all that a caller hears of why a token is refused.
const refusedText = "the token is refused: the log of the reviewer says why"

// Reviewer is the webhook of kube-apiserver's
// --authentication-token-webhook-config-file: it answers a POST of a TokenReview
// of authentication.k8s.io/v1, or of v1beta1, which is the same and what
// kube-apiserver sends where it is told nothing, in the version of the question.
//
// A token that is not of an issuer that is known here, or no token of a service
// account at all, is not authenticated, and that is no error: others may know
// it. Of a refusal it tells no reason; the log has it. Its fields must not be
// changed while it is in use, by any number of goroutines.
type Reviewer struct {
	// Tokens judges, as [token.Verifier] and [token.Cache] do.
	Tokens interface {
		VerifyFor(ctx context.Context, token string, audiences []string) (*token.Verified, error)
	}
	// Callers are those who may ask; nil: everybody.
	Callers *Callers
	// Prefixes are put before each name of a user and of a group, so that accounts
	// of one cluster are not taken for those of another.
	UsernamePrefix, GroupsPrefix string
	Log                          *slog.Logger
	Metrics                      *Metrics

	making atomic.Int64 // reviews that are
}

// rejection is a request that gets no review.
type rejection struct {
	status int
	reason string // for the metrics
	text   string // for the caller
}

// question is as much of a TokenReview as is asked.
type question struct {
	APIVersion string                           `json:"apiVersion"`
	Kind       string                           `json:"kind"`
	Spec       authenticationv1.TokenReviewSpec `json:"spec"`
}

// ServeHTTP answers one review.
func (v *Reviewer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	client, err := v.Callers.admit(r)
	log := v.Log.With("caller", r.RemoteAddr, "client", client)
	if err != nil {
		v.Metrics.reviewed("rejected", "caller")
		log.Warn("a caller is not let in", "why", err.Error())
		refuseCaller(w, err)
		return
	}
	defer v.making.Add(-1)
	q, no := read(w, r, v.making.Add(1))
	if no != nil {
		v.Metrics.reviewed("rejected", no.reason)
		log.Warn("no review", "why", no.text)
		http.Error(w, no.text, no.status)
		return
	}
	status, err := v.judge(r.Context(), log, q.Spec)
	if err != nil {
		v.Metrics.reviewed("failed", "keys")
		log.Error("a token could not be judged", "error", err.Error())
		http.Error(w, "the keys cannot be had", http.StatusInternalServerError) // which kube-apiserver tries again
		return
	}
	v.Metrics.took.Observe(time.Since(start).Seconds())
	answer(w, q, status)
}

// read takes a question from a request, if there are not too many already: one
// that comes slowly keeps its place.
func read(w http.ResponseWriter, r *http.Request, making int64) (*question, *rejection) {
	if making > MaxReviews {
		w.Header().Set("Retry-After", "1") // by which kube-apiserver tries again
		return nil, &rejection{http.StatusServiceUnavailable, "busy", "too many reviews at once"}
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, &rejection{http.StatusMethodNotAllowed, "method", "use POST"}
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, &rejection{http.StatusUnsupportedMediaType, "media-type", "send application/json"}
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if errors.As(err, new(*http.MaxBytesError)) {
		return nil, &rejection{http.StatusRequestEntityTooLarge, "too-large", "the body is too large"}
	}
	if err != nil {
		return nil, &rejection{http.StatusBadRequest, "body", "the body could not be read"}
	}
	return parse(data)
}

// parse is strict about JSON, and ignores fields that later versions may have.
func parse(data []byte) (*question, *rejection) {
	bad := func(text string) (*question, *rejection) { return nil, &rejection{http.StatusBadRequest, "body", text} }
	var q question
	if strict.Unmarshal(data, &q) != nil { // its error may quote
		return bad("the body is not the JSON of a TokenReview")
	}
	switch {
	case q.Kind != "TokenReview" || !known(q.APIVersion):
		return bad("the body is not a TokenReview of authentication.k8s.io/v1")
	case q.Spec.Token == "":
		return bad("spec.token is missing")
	case len(q.Spec.Audiences) > maxAudiences:
		return bad("spec.audiences has too many")
	}
	return &q, nil
}

func known(version string) bool {
	return version == authenticationv1.SchemeGroupVersion.String() || version == authenticationv1beta1.SchemeGroupVersion.String()
}

// judge returns what is answered; an error means that nothing was judged.
func (v *Reviewer) judge(ctx context.Context, log *slog.Logger, spec authenticationv1.TokenReviewSpec) (authenticationv1.TokenReviewStatus, error) {
	good, err := v.Tokens.VerifyFor(ctx, spec.Token, spec.Audiences)
	var refused *token.RefusedError
	switch {
	case errors.As(err, &refused):
		return v.refused(ctx, log, refused), nil
	case err != nil:
		return authenticationv1.TokenReviewStatus{}, err
	}
	v.Metrics.reviewed("accepted", "")
	log.Debug("accepted", "user", good.User.Username, "audiences", good.Audiences, "kid", good.Key.ID)
	return authenticationv1.TokenReviewStatus{Authenticated: true, User: v.user(good.User), Audiences: good.Audiences}, nil
}

func (v *Reviewer) refused(ctx context.Context, log *slog.Logger, e *token.RefusedError) authenticationv1.TokenReviewStatus {
	first := e.Reasons[0]
	v.Metrics.reviewed("refused", string(first.ID))
	level, text := slog.LevelWarn, refusedText
	if foreign(first.ID) {
		level, text = slog.LevelInfo, ""
	}
	var ids, why []string
	for _, r := range e.Reasons {
		ids, why = append(ids, string(r.ID)), append(why, r.Message)
	}
	log.Log(ctx, level, "refused", "reasons", strings.Join(ids, ","), "why", strings.Join(why, "; "))
	return authenticationv1.TokenReviewStatus{Error: text}
}

// foreign tells reasons for which a token is nobody's concern here, as it is for
// Kubernetes' own authenticators: kube-apiserver asks about every token that it
// does not know itself.
func foreign(id token.ReasonID) bool {
	switch id {
	case token.IssuerUnknown, token.LegacyRefused, token.Malformed, token.TooLarge:
		return true
	}
	return false
}

func (v *Reviewer) user(u token.User) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{Username: v.UsernamePrefix + u.Username, UID: u.UID}
	for _, g := range u.Groups {
		info.Groups = append(info.Groups, v.GroupsPrefix+g)
	}
	if len(u.Extra) > 0 {
		info.Extra = make(map[string]authenticationv1.ExtraValue, len(u.Extra))
		for key, values := range u.Extra {
			info.Extra[key] = values
		}
	}
	return info
}

// answer does not repeat the token.
func answer(w http.ResponseWriter, q *question, status authenticationv1.TokenReviewStatus) {
	data, err := json.Marshal(authenticationv1.TokenReview{TypeMeta: metav1.TypeMeta{APIVersion: q.APIVersion, Kind: q.Kind}, Status: status})
	if err != nil {
		http.Error(w, "the answer cannot be encoded", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(data) // whoever asked may be gone
}
