package token_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/token"
)

// What is sent to exhaust a verifier costs it a small multiple of what was sent,
// and nothing when that is too long.
func TestHostileTokensCostLittleMemory(t *testing.T) {
	c := tokentest.Case{}
	v, err := token.NewVerifier(c.Config(nil))
	if err != nil {
		t.Fatal(err)
	}
	p := tokentest.Payload(time.Now())
	payload := func(json string) string { return tokentest.Good(p.And("x", json)) }
	const most = 700_000 // bytes of JSON that make less than a megabyte
	repeat := func(s string) string { return strings.Repeat(s, most/len(s)) }
	for name, row := range map[string]struct {
		text  string
		bytes uint64 // at most
		want  token.ReasonID
	}{
		"ten megabytes":                 {strings.Repeat("A", 10<<20), 4 << 10, token.TooLarge},
		"ten megabytes of dots":         {strings.Repeat(".", 10<<20), 4 << 10, token.TooLarge},
		"a megabyte of dots":            {strings.Repeat(".", 1_000_000), 4 << 10, token.Malformed},
		"deep arrays":                   {payload(repeat("[")), 1 << 20, token.Malformed},
		"deep objects":                  {payload(repeat(`{"a":`)), 1 << 20, token.Malformed},
		"many empty texts":              {payload("[" + repeat(`"",`) + `""]`), 1 << 20, token.Malformed},
		"many names":                    {payload("{" + repeat(`"a":1,`) + `"a":1}`), 1 << 20, token.Malformed},
		"one long text":                 {payload(`"` + repeat("x") + `"`), 8 << 20, ""},
		"one long number":               {payload("1" + repeat("0")), 8 << 20, ""},
		"many audiences":                {tokentest.Good(p.With("aud", "["+repeat(`"a",`)+`"a"]`)), 1 << 20, token.Malformed},
		"escapes":                       {payload(`"` + repeat(`\u0061`) + `"`), 8 << 20, ""},
		"a header of nothing but names": {tokentest.GoodUnder(tokentest.Header(tokentest.RSA).And("x", "{"+repeat(`"a":1,`)+`"b":1}`), p), 1 << 20, token.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := v.Verify(context.Background(), row.text)
			runtime.ReadMemStats(&after)
			var refused *token.RefusedError
			if row.want == "" && err != nil || row.want != "" && (!errors.As(err, &refused) || !refused.Has(row.want)) {
				t.Errorf("%v, want %q", err, row.want)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > row.bytes {
				t.Errorf("%d bytes were allocated for %d, want at most %d", used, len(row.text), row.bytes)
			}
			if err != nil && len(err.Error()) > 2000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

// A refusal can be printed: it has one line, is short, and holds nothing of the
// signature.
func TestRefusalsCanBePrinted(t *testing.T) {
	for _, c := range tokentest.Cases(time.Now()) {
		v, err := token.NewVerifier(c.Config(nil))
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.VerifyFor(t.Context(), c.Token, c.Asked)
		if err == nil {
			continue
		}
		text := err.Error()
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(text) > 2000 {
			t.Errorf("%s: %q", c.Name, text)
		}
		if i := strings.LastIndex(c.Token, "."); i >= 0 && len(c.Token)-i > 20 && strings.Contains(text, c.Token[i+1:i+20]) {
			t.Errorf("%s: the signature is in %q", c.Name, text)
		}
	}
}

func TestVerifiersThatCannotBe(t *testing.T) {
	set := setOf(t, tokentest.RSA)
	for name, c := range map[string]token.Config{
		"no keys":               {Issuers: []string{"a"}},
		"an empty issuer":       {Keys: set, Issuers: []string{""}},
		"an empty audience":     {Keys: set, Audiences: []string{"a", ""}},
		"an empty api audience": {Keys: set, APIAudiences: []string{""}},
	} {
		if _, err := token.NewVerifier(c); err == nil {
			t.Errorf("%s: there is one", name)
		}
	}
}
