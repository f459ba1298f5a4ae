package token_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/token"
)

// counted is a source that counts, and whose keys can be exchanged.
type counted struct {
	mu    sync.Mutex
	set   *token.KeySet
	asked int
	away  bool
}

func (c *counted) Keys(context.Context, string) (*token.KeySet, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked++; c.away {
		return nil, errors.New("away")
	}
	return c.set, nil
}

func newCache(t *testing.T, keys token.KeySource, config token.CacheConfig) *token.Cache {
	t.Helper()
	v, err := token.NewVerifier(token.Config{Keys: keys, Issuers: []string{tokentest.Issuer}, Legacy: true})
	if err != nil {
		t.Fatal(err)
	}
	c, err := token.NewCache(v, config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func setOf(t testing.TB, names ...string) *token.KeySet {
	t.Helper()
	var keys []token.Key
	for _, n := range names {
		keys = append(keys, publicOf(t, n))
	}
	set, err := token.NewKeySet(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// What is remembered is what would be said.
func TestCacheForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &counted{set: setOf(t, tokentest.RSA, tokentest.P256)}
		cache := newCache(t, source, token.CacheConfig{Life: time.Hour})
		soon := tokentest.Good(tokentest.Payload(time.Now()).With("exp", "946684860")) // a minute from now
		want := func(text string, id token.ReasonID) {
			t.Helper()
			_, err := cache.Verify(t.Context(), text)
			var refused *token.RefusedError
			switch {
			case id == "" && err != nil:
				t.Fatal(err)
			case id != "" && (!errors.As(err, &refused) || !refused.Has(id)):
				t.Fatalf("%v, want %s", err, id)
			}
		}
		want(soon, "")
		time.Sleep(119 * time.Second)
		want(soon, "") // within the leeway
		time.Sleep(3 * time.Second)
		want(soon, token.Expired)

		long := tokentest.Good(tokentest.Payload(time.Now()))
		want(long, "")
		source.set = setOf(t, tokentest.P256)
		want(long, token.KeyUnknown)
		source.set = setOf(t, tokentest.RSA)
		want(long, "")
		source.away = true
		if _, err := cache.Verify(t.Context(), long); err == nil || errors.As(err, new(*token.RefusedError)) {
			t.Errorf("without keys: %v", err)
		}
		source.away = false
		legacy := tokentest.Good(tokentest.LegacyPayload())
		want(legacy, "")
		time.Sleep(2 * time.Hour)
		want(legacy, "")
	})
}

func TestCacheTellsAudiencesApart(t *testing.T) {
	cache := newCache(t, setOf(t, tokentest.RSA), token.CacheConfig{})
	text := tokentest.Good(tokentest.Payload(time.Now()).With("aud", `["vault"]`))
	if _, err := cache.VerifyFor(t.Context(), text, []string{"vault"}); err != nil {
		t.Fatal(err)
	}
	for _, other := range [][]string{nil, {"registry"}, {"v", "ault"}, {"vault ", ""}} {
		if v, err := cache.VerifyFor(t.Context(), text, other); err == nil {
			t.Errorf("accepted for %q: %v", other, v.Audiences)
		}
	}
	if v, err := cache.VerifyFor(t.Context(), text, []string{"registry", "vault"}); err != nil || v.Audiences[0] != "vault" {
		t.Errorf("%v, %v", v, err)
	}
}

// A text that sums up what was asked before is not what was asked before.
func TestCacheKnowsTokensAlone(t *testing.T) {
	cache := newCache(t, setOf(t, tokentest.RSA), token.CacheConfig{})
	text := tokentest.Good(tokentest.Payload(time.Now()).With("aud", `["vault"]`))
	if _, err := cache.VerifyFor(t.Context(), text, []string{"vault"}); err != nil {
		t.Fatal(err)
	}
	made := binary.AppendUvarint(nil, uint64(len(text)))
	made = append(append(made, text...), byte(len("vault")))
	made = append(made, "vault"...)
	for _, forged := range []string{string(made), "\x01" + string(made), "\x00" + text} {
		if v, err := cache.Verify(t.Context(), forged); err == nil {
			t.Errorf("accepted for %q", v.Audiences)
		}
	}
}

// What is returned is the caller's own, the first time and later, and not the
// verifier's.
func TestWhatIsReturnedCanBeChanged(t *testing.T) {
	c := tokentest.Case{}
	v, err := token.NewVerifier(c.Config(nil))
	if err != nil {
		t.Fatal(err)
	}
	cache, err := token.NewCache(v, token.CacheConfig{})
	if err != nil {
		t.Fatal(err)
	}
	attested := tokentest.Payload(time.Now()).With("kubernetes.io", tokentest.Bound().And("mutatingwebhookconfiguration", `{"name":"x","uid":"y"}`).And("attestations", `{"admissionReviewAPIGroups":["apps"]}`).Text())
	for name, text := range map[string]string{"projected": tokentest.Good(attested), "of a Secret": tokentest.Good(tokentest.LegacyPayload())} {
		var first string
		for i := range 4 {
			verify := cache.Verify
			if i%2 == 1 {
				verify = v.Verify
			}
			got, err := verify(t.Context(), text)
			if err != nil {
				t.Fatal(err)
			}
			data, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			if first == "" {
				first = string(data)
			}
			if string(data) != first {
				t.Fatalf("%s: it is %s, and was %s", name, data, first)
			}
			got.Audiences[0], got.User.Groups[0] = "changed", "changed"
			for key := range got.User.Extra {
				got.User.Extra[key][0] = "changed"
			}
			for _, r := range []*token.Ref{got.Claims.Pod, got.Claims.Node, got.Claims.Secret, got.Claims.MutatingWebhookConfiguration} {
				if r != nil {
					r.Name = "changed"
				}
			}
			for i := range got.Claims.Audiences {
				got.Claims.Audiences[i] = "changed"
			}
			for key := range got.Claims.Attestations {
				got.Claims.Attestations[key][0] = "changed"
			}
		}
	}
}

// Long tokens are judged each time: nobody can fill the memory with them.
func TestCacheHoldsLittle(t *testing.T) {
	source := &counted{set: setOf(t, tokentest.RSA)}
	cache := newCache(t, source, token.CacheConfig{})
	long := tokentest.Good(tokentest.Payload(time.Now()).With("jti", `"`+strings.Repeat("x", 100_000)+`"`))
	var before, after runtime.MemStats
	for i := range 50 {
		text := tokentest.Good(tokentest.Payload(time.Now()).With("jti", `"`+strings.Repeat(string(rune('A'+i)), 100_000)+`"`))
		if i == 1 {
			runtime.GC()
			runtime.ReadMemStats(&before)
		}
		if _, err := cache.Verify(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
		t.Errorf("50 tokens of 130 kB hold %d bytes", grown)
	}
	if _, err := cache.Verify(t.Context(), long); err != nil {
		t.Error(err)
	}
}

// A bounded cache under many goroutines and more tokens than it holds.
func TestCacheUnderLoad(t *testing.T) {
	cache := newCache(t, setOf(t, tokentest.P256), token.CacheConfig{Size: 3})
	var texts []string
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		texts = append(texts, tokentest.Signed(tokentest.P256, tokentest.Header(tokentest.P256), tokentest.Payload(time.Now()).With("jti", `"`+name+`"`)))
	}
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 50 {
				which := (worker + i) % len(texts)
				v, err := cache.Verify(context.Background(), texts[which])
				if err != nil || v.Claims.ID != string(rune('a'+which)) {
					t.Errorf("%v, %v", v, err)
					return
				}
				v.User.Groups[0] = "changed"
			}
		})
	}
	group.Wait()
	if v, err := cache.Verify(t.Context(), texts[0]); err != nil || v.User.Groups[0] != "system:serviceaccounts" {
		t.Errorf("%v, %v", v, err)
	}
}

func TestCacheBounds(t *testing.T) {
	v, err := token.NewVerifier(token.Config{Keys: setOf(t, tokentest.RSA)})
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []token.CacheConfig{{Size: -1}, {Life: -1}} {
		if _, err := token.NewCache(v, bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}
