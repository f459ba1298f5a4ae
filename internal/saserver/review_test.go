package saserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/kubepki/kubepki/internal/saserver"
	"github.com/kubepki/kubepki/token"
)

const refusedText = "the token is refused: the log of the reviewer says why"

// ask sends what kube-apiserver sends, and reads the answer as it does.
func (w *world) ask(text string, audiences ...string) authenticationv1.TokenReviewStatus {
	w.t.Helper()
	review := authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: text, Audiences: audiences}}
	review.APIVersion, review.Kind = "authentication.k8s.io/v1", "TokenReview"
	body, err := json.Marshal(review)
	if err != nil {
		w.t.Fatal(err)
	}
	answer := w.post(string(body))
	if answer.Code != http.StatusOK || answer.Header().Get("Content-Type") != "application/json" || answer.Header().Get("Cache-Control") != "no-store" {
		w.t.Fatalf("%d %v %s", answer.Code, answer.Header(), answer.Body)
	}
	var got authenticationv1.TokenReview
	if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil {
		w.t.Fatal(err)
	}
	if got.APIVersion != review.APIVersion || got.Kind != review.Kind || got.Spec.Token != "" {
		w.t.Errorf("answered %s", answer.Body)
	}
	return got.Status
}

func TestGoodTokenIsItsUser(t *testing.T) {
	w := newWorld(t)
	want := authenticationv1.TokenReviewStatus{
		Authenticated: true, Audiences: []string{"there"},
		User: authenticationv1.UserInfo{
			Username: robot, UID: "6f5c0c2e", Groups: []string{"system:serviceaccounts", "system:serviceaccounts:ci"},
			Extra: map[string]authenticationv1.ExtraValue{
				"authentication.kubernetes.io/credential-id": {"JTI=2f2c9fb0"},
				"authentication.kubernetes.io/pod-name":      {"build-1"}, "authentication.kubernetes.io/pod-uid": {"11d2a6a4"},
			},
		},
	}
	for range 2 { // from the verifier, then from the cache
		if diff := cmp.Diff(want, w.ask(w.token(nil), "elsewhere", "there")); diff != "" {
			t.Error(diff)
		}
	}
	w.reviewer.UsernamePrefix, w.reviewer.GroupsPrefix = "east:", "from-east:"
	want.User.Username, want.User.Groups, want.Audiences = "east:"+robot, []string{"from-east:system:serviceaccounts", "from-east:system:serviceaccounts:ci"}, []string{"here"}
	if diff := cmp.Diff(want, w.ask(w.token(nil))); diff != "" { // no audience is asked for: its own
		t.Error(diff)
	}
}

func TestTokenIsRefusedOrForeign(t *testing.T) {
	w := newWorld(t)
	foreign := newSigner(t)
	rows := map[string]struct {
		text      string
		audiences []string
		reason    token.ReasonID // in log and metric; empty: accepted
		silent    bool           // it is no error
	}{
		"a good one":                        {w.token(nil), nil, "", false},
		"signed by a key of somebody else":  {sign(t, foreign, w.claims(nil)), nil, token.KeyUnknown, false},
		"for another audience":              {w.token(nil), []string{"elsewhere"}, token.AudienceMismatch, false},
		"for an audience without a name":    {w.token(nil), []string{""}, token.AudienceMismatch, false},
		"expired":                           {w.token(func(c *token.Claims) { c.Expires, c.NotBefore = w.at.Add(-2*time.Minute), w.at.Add(-time.Hour) }), nil, token.Expired, false},
		"with a signature that was changed": {w.token(nil)[:len(w.token(nil))-8] + "AAAAAAAA", nil, token.SignatureInvalid, false},
		"of another issuer":                 {w.token(func(c *token.Claims) { c.Issuer = "https://elsewhere.example.test" }), nil, token.IssuerUnknown, true},
		"a bootstrap token":                 {"abcdef.0123456789abcdef", nil, token.Malformed, true},
		"a password":                        {"hunter2", nil, token.Malformed, true},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			w.log.b.Reset()
			result := "accepted"
			if row.reason != "" {
				result = "refused"
			}
			before := w.count(result, string(row.reason))
			got := w.ask(row.text, row.audiences...)
			want := authenticationv1.TokenReviewStatus{}
			if row.reason != "" && !row.silent {
				want.Error = refusedText
			}
			if row.reason != "" && !cmp.Equal(want, got) {
				t.Errorf("answered %+v", got)
			}
			if got.Authenticated != (row.reason == "") || (row.reason != "" && !strings.Contains(w.log.String(), `"reasons":"`+string(row.reason)+`"`)) {
				t.Errorf("answered %t; the log: %s", got.Authenticated, w.log)
			}
			if got := w.count(result, string(row.reason)) - before; got != 1 {
				t.Errorf("counted %v", got)
			}
			if third := row.text[strings.LastIndex(row.text, ".")+1:]; strings.Contains(w.log.String(), third) {
				t.Errorf("the log holds a token: %s", w.log)
			}
		})
	}
}

// count is what the metric of reviews says.
func (w *world) count(result, reason string) float64 {
	w.t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "kubepki_token_reviews_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["result"] == result && labels["reason"] == reason {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestReviewThatIsNone(t *testing.T) {
	w := newWorld(t)
	good := w.token(nil)
	review := func(version, kind, spec string) string {
		return fmt.Sprintf(`{"apiVersion":"authentication.k8s.io/%s","kind":"%s","metadata":{"creationTimestamp":null},"spec":%s,"status":{"user":{}}}`, version, kind, spec)
	}
	spec := `{"token":"` + good + `"}`
	rows := map[string]struct {
		body   string
		status int
		text   string
	}{
		"a good one":                       {review("v1", "TokenReview", spec), http.StatusOK, `"authenticated":true`},
		"of the version that was first":    {review("v1beta1", "TokenReview", spec), http.StatusOK, `"apiVersion":"authentication.k8s.io/v1beta1"`},
		"with a field of later times":      {review("v1", "TokenReview", `{"token":"`+good+`","later":1}`), http.StatusOK, `"authenticated":true`},
		"of a version that is unknown":     {review("v2", "TokenReview", spec), http.StatusBadRequest, "not a TokenReview of authentication.k8s.io/v1"},
		"of another kind":                  {review("v1", "SubjectAccessReview", spec), http.StatusBadRequest, "not a TokenReview"},
		"without a token":                  {review("v1", "TokenReview", `{}`), http.StatusBadRequest, "spec.token is missing"},
		"with an empty token":              {review("v1", "TokenReview", `{"token":""}`), http.StatusBadRequest, "spec.token is missing"},
		"with the token twice":             {review("v1", "TokenReview", `{"token":"`+good+`","token":"x"}`), http.StatusBadRequest, "not the JSON"},
		"with a name twice elsewhere":      {review("v1", "TokenReview", `{"token":"`+good+`","x":{"a":1,"a":2}}`), http.StatusBadRequest, "not the JSON"},
		"with Token for token":             {review("v1", "TokenReview", `{"Token":"`+good+`"}`), http.StatusBadRequest, "spec.token is missing"},
		"with an audience that is no text": {review("v1", "TokenReview", `{"token":"`+good+`","audiences":[1]}`), http.StatusBadRequest, "not the JSON"},
		"with a hundred audiences":         {review("v1", "TokenReview", `{"token":"`+good+`","audiences":["here"`+strings.Repeat(`,"x"`, 99)+`]}`), http.StatusOK, `"authenticated":true`},
		"with more audiences":              {review("v1", "TokenReview", `{"token":"`+good+`","audiences":["here"`+strings.Repeat(`,"x"`, 100)+`]}`), http.StatusBadRequest, "too many"},
		"with more after its end":          {review("v1", "TokenReview", spec) + "{}", http.StatusBadRequest, "not the JSON"},
		"cut off":                          {review("v1", "TokenReview", spec)[:200], http.StatusBadRequest, "not the JSON"},
		"deep":                             {review("v1", "TokenReview", `{"x":`+strings.Repeat("[", 60000)+strings.Repeat("]", 60000)+`}`), http.StatusBadRequest, "not the JSON"},
		"empty":                            {"", http.StatusBadRequest, "not the JSON"},
		"a list":                           {"[]", http.StatusBadRequest, "not the JSON"},
		"too large":                        {review("v1", "TokenReview", `{"token":"`+strings.Repeat("a", saserver.MaxBody)+`"}`), http.StatusRequestEntityTooLarge, "too large"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			answer := w.post(row.body)
			if answer.Code != row.status || !strings.Contains(answer.Body.String(), row.text) {
				t.Errorf("%d %.200s", answer.Code, answer.Body)
			}
			if strings.Contains(answer.Body.String(), good) || strings.Contains(w.log.String(), good) {
				t.Error("the token is repeated")
			}
		})
	}
}

func TestOtherRequestsAreRefused(t *testing.T) {
	w := newWorld(t)
	for _, row := range []struct {
		method, mediaType string
		want              int
	}{
		{http.MethodGet, "application/json", http.StatusMethodNotAllowed},
		{http.MethodPut, "application/json", http.StatusMethodNotAllowed},
		{http.MethodPost, "application/x-www-form-urlencoded", http.StatusUnsupportedMediaType},
		{http.MethodPost, "", http.StatusUnsupportedMediaType},
		{http.MethodPost, "application/json; charset=utf-8", http.StatusBadRequest}, // and so far good
	} {
		r := httptest.NewRequest(row.method, saserver.ReviewPath, strings.NewReader("{}"))
		r.Header.Set("Content-Type", row.mediaType)
		if answer := w.serve(r); answer.Code != row.want {
			t.Errorf("%s %s: %d", row.method, row.mediaType, answer.Code)
		}
	}
}

// As many bodies as may come at once come slowly; who comes then is told to come
// again, and is served when there is room.
func TestReviewsAtOnceAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		body := fmt.Sprintf(`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":%q}}`, w.token(nil))
		proceed := make(chan struct{})
		var slow sync.WaitGroup
		for range saserver.MaxReviews {
			slow.Go(func() {
				r := httptest.NewRequest(http.MethodPost, saserver.ReviewPath, io.MultiReader(strings.NewReader(body[:10]), waiting(proceed), strings.NewReader(body[10:])))
				r.Header.Set("Content-Type", "application/json")
				if answer := w.serve(r); answer.Code != http.StatusOK {
					t.Errorf("a slow one: %d %s", answer.Code, answer.Body)
				}
			})
		}
		synctest.Wait()
		if answer := w.post(body); answer.Code != http.StatusServiceUnavailable || answer.Header().Get("Retry-After") != "1" || w.count("rejected", "busy") != 1 {
			t.Errorf("one too many: %d %v", answer.Code, answer.Header())
		}
		close(proceed)
		slow.Wait()
		if answer := w.post(body); answer.Code != http.StatusOK {
			t.Errorf("afterwards: %d %s", answer.Code, answer.Body)
		}
	})
}

// waiting is a reader without content, whose end comes when it is closed.
type waiting <-chan struct{}

func (w waiting) Read([]byte) (int, error) {
	<-w
	return 0, io.EOF
}

// lost is a verifier whose keys cannot be had.
type lost struct{}

func (lost) VerifyFor(context.Context, string, []string) (*token.Verified, error) {
	return nil, errors.New("the disk is on fire")
}

// kube-apiserver asks again after an internal error, and remembers none.
func TestKeysThatCannotBeHadAreNoVerdict(t *testing.T) {
	w := newWorld(t)
	w.reviewer.Tokens = lost{}
	answer := w.post(`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":"x"}}`)
	if answer.Code != http.StatusInternalServerError || strings.Contains(answer.Body.String(), "fire") || !strings.Contains(w.log.String(), "fire") {
		t.Errorf("%d %s; the log: %s", answer.Code, answer.Body, w.log)
	}
	if w.count("failed", "keys") != 1 {
		t.Error("not counted")
	}
}

func TestRememberedTokenIsForgotten(t *testing.T) {
	rows := map[string]struct {
		change func(w *world)
		want   bool
		reason token.ReasonID
	}{
		"not while nothing changes": {func(*world) {}, true, ""},
		"when it expires":           {func(w *world) { w.at = w.at.Add(10*time.Minute + token.Leeway + time.Second) }, false, token.Expired},
		"when its key is taken out": {func(w *world) { w.keys.set(w.t, newSigner(w.t).Key()) }, false, token.KeyUnknown},
		"not when a key is added":   {func(w *world) { w.keys.set(w.t, newSigner(w.t).Key(), w.signer.Key()) }, true, ""},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			text := w.token(func(c *token.Claims) { c.Expires = w.at.Add(10 * time.Minute) })
			for range 2 {
				if !w.ask(text).Authenticated {
					t.Fatal("refused")
				}
			}
			row.change(w)
			if got := w.ask(text); got.Authenticated != row.want || w.count("refused", string(row.reason)) > 0 == row.want {
				t.Errorf("answered %+v", got)
			}
		})
	}
}

// A key that is not there yet is an error, which kube-apiserver does not
// remember, so that the token is good as soon as the key is there.
func TestTokenOfANewKey(t *testing.T) {
	w, next := newWorld(t), newSigner(t)
	text := sign(t, next, w.claims(nil))
	if got := w.ask(text); got.Authenticated || got.Error == "" {
		t.Errorf("answered %+v", got)
	}
	w.keys.set(t, w.signer.Key(), next.Key())
	if !w.ask(text).Authenticated {
		t.Error("refused")
	}
}

func TestTokenOfASecret(t *testing.T) {
	w := newWorld(t)
	text := sign(t, w.signer, token.Claims{
		Issuer: token.LegacyIssuer, Legacy: true, Namespace: "ci", ServiceAccount: token.Ref{Name: "robot", UID: "6f5c0c2e"}, Secret: &token.Ref{Name: "robot-token"},
	})
	if got := w.ask(text, "api"); !got.Authenticated || got.User.Username != robot {
		t.Errorf("answered %+v", got)
	}
	if w.ask(text, "here").Authenticated {
		t.Error("it is for the API server alone")
	}
}

func BenchmarkReview(b *testing.B) {
	w := newWorld(b)
	w.reviewer.Log = slog.New(slog.DiscardHandler)
	for name, text := range map[string]string{"remembered": w.token(nil), "refused": sign(b, newSigner(b), w.claims(nil))} {
		body := fmt.Sprintf(`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":%q}}`, text)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if answer := w.post(body); answer.Code != http.StatusOK {
					b.Fatal(answer.Code)
				}
			}
		})
	}
}
