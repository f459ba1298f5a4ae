package bootstrap_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/bootstrap"
)

func TestParseToken(t *testing.T) {
	for text, good := range map[string]bool{
		"abcdef.0123456789abcdef":   true,
		"000000.zzzzzzzzzzzzzzzz":   true,
		"":                          false,
		"abcdef":                    false,
		"abcdef.":                   false,
		"abcde.0123456789abcdef":    false,
		"abcdef.0123456789abcde":    false,
		"abcdef.0123456789abcdeff":  false,
		"ABCDEF.0123456789abcdef":   false,
		"abcdef.0123456789ABCDEF":   false,
		"abcdef-0123456789abcdef":   false,
		"abcdef.0123456789abcdef\n": false,
		"\nabcdef.0123456789abcdef": false,
		"abcdef.0123456789.abcdef":  false,
		"abcdef.0123456789abcdeé":   false,
		"abcdef.01234567\x0089abcd": false,
	} {
		k, err := bootstrap.ParseToken(text)
		if (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
		if good && (k.Reveal() != text || k.ID() != text[:6] || k.User() != "system:bootstrap:"+text[:6]) {
			t.Errorf("%q is read as %s of %s", text, k.Reveal(), k.User())
		}
		if err != nil && text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("the error repeats what may be a secret: %v", err)
		}
	}
}

func TestTokenHidesItsSecret(t *testing.T) {
	k := token(t, "abcdef.0123456789ghijkl")
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("made", "token", k, "list", []bootstrap.Token{k})
	document, err := json.Marshal(map[string]any{"token": k})
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{log.String(), string(document), k.String(), fmt.Sprint(struct{ T bootstrap.Token }{k})}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		texts = append(texts, fmt.Sprintf(verb, k), fmt.Sprintf(verb, &bootstrap.Spec{Token: k}))
	}
	for _, text := range texts {
		if strings.Contains(text, "0123456789ghijkl") || strings.Contains(text, "30313233") {
			t.Errorf("it tells the secret: %s", text)
		}
	}
}

func TestGeneratedTokensDiffer(t *testing.T) {
	seen := map[string]bool{}
	letters := map[rune]bool{}
	for range 200 {
		k, err := bootstrap.GenerateToken()
		if err != nil {
			t.Fatal(err)
		}
		if seen[k.Reveal()] {
			t.Fatal("the same token twice")
		}
		seen[k.Reveal()] = true
		for _, r := range k.Reveal() {
			letters[r] = true
		}
	}
	if len(letters) != 37 {
		t.Errorf("%d characters are in use, want 36 and the dot", len(letters))
	}
}

func TestTokensAreEqualInBothParts(t *testing.T) {
	k := token(t, "abcdef.0123456789abcdef")
	for text, want := range map[string]bool{"abcdef.0123456789abcdef": true, "abcdef.0123456789abcdee": false, "abcdeg.0123456789abcdef": false} {
		if got := k.Equal(token(t, text)); got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
	if (bootstrap.Token{}).Equal(k) {
		t.Error("no token equals one")
	}
}

func TestParsePin(t *testing.T) {
	pin := bootstrap.PinOf(authority(t))
	hash := strings.TrimPrefix(pin.String(), "sha256:")
	for text, good := range map[string]bool{
		pin.String():                      true,
		"SHA256:" + strings.ToUpper(hash): true,
		hash:                              false,
		"sha256:":                         false,
		"sha256:" + hash[2:]:              false,
		"sha256:" + hash + "00":           false,
		"sha256:" + hash[:63] + "g":       false,
		"sha256:sha256:" + hash:           false,
		"sha512:" + hash + hash:           false,
		" " + pin.String():                false,
	} {
		p, err := bootstrap.ParsePin(text)
		if (err == nil) != good || good && p != pin {
			t.Errorf("%q: %s, %v", text, p, err)
		}
	}
}

func TestEndpoint(t *testing.T) {
	for server, want := range map[string]string{
		"https://10.0.0.11:6443":           "10.0.0.11:6443",
		"https://10.0.0.11:6443/":          "10.0.0.11:6443",
		"https://api.example.test":         "api.example.test:443",
		"https://api.example.test:":        "api.example.test:443",
		"https://[fd00::1]:6443":           "[fd00::1]:6443",
		"https://[fd00::1]":                "[fd00::1]:443",
		"https://a_b:1":                    "a_b:1",
		"HTTPS://API:6443":                 "API:6443",
		"http://10.0.0.11:6443":            "",
		"10.0.0.11:6443":                   "",
		"https://":                         "",
		"https://:6443":                    "",
		"https://user:hunter2@api:6443":    "",
		"https://api:6443/k8s/clusters/c1": "",
		"https://api:6443?x=1":             "",
		"https://a;reboot:6443":            "",
		"https://$(reboot):6443":           "",
		"https://-v:6443":                  "",
		"https://a b:6443":                 "",
		"https://api:64:43":                "",
	} {
		got, err := bootstrap.Endpoint(server)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", server, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error repeats a password: %v", err)
		}
	}
}
