package tokenhttp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/token"
	"github.com/kubepki/kubepki/token/tokenhttp"
)

func newVerifier(t testing.TB) *token.Verifier {
	t.Helper()
	c := tokentest.Case{}
	v, err := token.NewVerifier(c.Config(nil))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// hello tells who called, and what it sees of the token.
var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, token.FromContext(r.Context()).User.Username+r.Header.Get("Authorization"))
})

func TestRequests(t *testing.T) {
	good := tokentest.Good(tokentest.Payload(time.Now()))
	expired := tokentest.Good(tokentest.Payload(time.Now().Add(-2 * time.Hour)))
	for name, row := range map[string]struct {
		headers   []string
		status    int
		challenge string
	}{
		"a good token":                             {[]string{"Bearer " + good}, 200, ""},
		"the scheme in other letters":              {[]string{"bEARER " + good}, 200, ""},
		"two blanks before the token":              {[]string{"Bearer  " + good}, 200, ""},
		"no header":                                {nil, 401, "Bearer"},
		"an empty header":                          {[]string{""}, 401, "Bearer"},
		"no token":                                 {[]string{"Bearer "}, 401, "Bearer"},
		"another scheme":                           {[]string{"Basic " + good}, 401, "Bearer"},
		"the token without a scheme":               {[]string{good}, 401, "Bearer"},
		"two headers, both good":                   {[]string{"Bearer " + good, "Bearer " + good}, 401, "Bearer"},
		"two tokens in one header":                 {[]string{"Bearer " + good + " " + good}, 401, `Bearer error="invalid_token"`},
		"a token that has expired":                 {[]string{"Bearer " + expired}, 401, `Bearer error="invalid_token"`},
		"a token with a character more":            {[]string{"Bearer " + good + "A"}, 401, `Bearer error="invalid_token"`},
		"a token with a comma after it":            {[]string{"Bearer " + good + ","}, 401, `Bearer error="invalid_token"`},
		"something that is no token of Kubernetes": {[]string{"Bearer abcdef.0123456789abcdef"}, 401, `Bearer error="invalid_token"`},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			guard := &tokenhttp.Guard{Verifier: newVerifier(t), Log: slog.New(slog.NewTextHandler(&log, nil))}
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			for _, h := range row.headers {
				r.Header.Add("Authorization", h)
			}
			w := httptest.NewRecorder()
			guard.Handler(hello).ServeHTTP(w, r)
			if w.Code != row.status || w.Header().Get("WWW-Authenticate") != row.challenge {
				t.Errorf("%d with %q, want %d with %q", w.Code, w.Header().Get("WWW-Authenticate"), row.status, row.challenge)
			}
			if body := w.Body.String(); row.status == 200 && body != "system:serviceaccount:apps:robot" || row.status == 401 && body != "Unauthorized\n" {
				t.Errorf("the body is %q", body)
			}
			if strings.Contains(log.String(), good[:20]) {
				t.Errorf("the log holds a part of the token: %s", log.String())
			}
			if told := strings.Contains(log.String(), "reason="); told != (row.challenge == `Bearer error="invalid_token"`) {
				t.Errorf("the log says: %q", log.String())
			}
		})
	}
}

type noKeys struct{}

func (noKeys) Keys(context.Context, string) (*token.KeySet, error) {
	return nil, errors.New("the issuer is away")
}

func TestWithoutKeysItIsNotTheClientsFault(t *testing.T) {
	v, err := token.NewVerifier(token.Config{Keys: noKeys{}, Issuers: []string{tokentest.Issuer}})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+tokentest.Good(tokentest.Payload(time.Now())))
	w := httptest.NewRecorder()
	(&tokenhttp.Guard{Verifier: v, Log: slog.New(slog.DiscardHandler)}).Handler(hello).ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("WWW-Authenticate") != "" {
		t.Errorf("%d %q", w.Code, w.Header())
	}
}

func TestHandlersCannotChangeWhoIsRemembered(t *testing.T) {
	cache, err := token.NewCache(newVerifier(t), token.CacheConfig{})
	if err != nil {
		t.Fatal(err)
	}
	handler := tokenhttp.Require(cache, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u := &token.FromContext(r.Context()).User
		_, _ = io.WriteString(w, u.Groups[0])
		u.Groups[0] = "system:masters"
		u.Extra["x"] = []string{"y"}
	}))
	text := tokentest.Good(tokentest.Payload(time.Now()))
	for range 3 {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+text)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Body.String() != "system:serviceaccounts" {
			t.Fatalf("the group is %q", w.Body)
		}
	}
}
