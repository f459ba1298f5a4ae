package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/token"
)

// Keys that an issuer publishes, over true TLS: they are good for its own tokens.
func TestSAVerifyByDiscovery(t *testing.T) {
	k, err := token.NewKey(tokentest.Key(tokentest.P256).Public())
	if err != nil {
		t.Fatal(err)
	}
	set, err := token.NewKeySet(k)
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := set.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	var site *httptest.Server
	site = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		issuer := site.URL + strings.TrimSuffix(r.URL.Path, token.DiscoveryPath)
		switch {
		case r.URL.Path == "/jwks":
			_, _ = w.Write(jwks)
		case r.URL.Path == "/moved":
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":"%s/jwks"}`, site.URL+"/east", site.URL)
		case r.URL.Path == "/plain":
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":"http://%s/jwks"}`, site.URL+"/east", site.Listener.Addr())
		case strings.HasSuffix(r.URL.Path, token.DiscoveryPath):
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":"%s/jwks"}`, issuer, site.URL)
		default:
			http.NotFound(w, r)
		}
	}))
	defer site.Close()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := file("ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: site.Certificate().Raw})))
	east, west := site.URL+"/east", site.URL+"/west"
	document := file("document.json", fmt.Sprintf(`{"issuer":%q,"jwks_uri":"%s/jwks"}`, east, site.URL))
	payload := tokentest.Payload(time.Now()).With("iss", `"`+east+`"`).With("aud", `["`+east+`"]`)
	text := tokentest.Signed(tokentest.P256, tokentest.Header(tokentest.P256), payload)
	for name, row := range map[string]struct {
		args []string
		code int
		says string
	}{
		"by the issuer's document":               {[]string{"--key=" + token.DiscoveryURL(east)}, exitDone, "valid"},
		"with its issuer named":                  {[]string{"--key=" + token.DiscoveryURL(east), "--issuer=" + east}, exitDone, "valid"},
		"with another issuer beside it":          {[]string{"--key=" + token.DiscoveryURL(east), "--issuer=" + east, "--issuer=https://old.example"}, exitDone, "valid"},
		"by the URL of the keys":                 {[]string{"--key=" + site.URL + "/jwks", "--issuer=" + east}, exitDone, "valid"},
		"by the document as a file":              {[]string{"--key=" + document}, exitDone, "valid"},
		"with another issuer alone":              {[]string{"--key=" + token.DiscoveryURL(west), "--issuer=" + east}, exitUsage, "is no --issuer: its keys are for its own tokens"},
		"by the document of another issuer":      {[]string{"--key=" + token.DiscoveryURL(west)}, exitFindings, "issuer-unknown"},
		"by the documents of two issuers":        {[]string{"--key=" + token.DiscoveryURL(west), "--key=" + token.DiscoveryURL(east)}, exitUsage, "take one issuer at a time"},
		"by a document in another place":         {[]string{"--key=" + site.URL + "/moved"}, exitUsage, "if you trust that document all the same, name its issuer"},
		"by one that is trusted there":           {[]string{"--key=" + site.URL + "/moved", "--issuer=" + east}, exitDone, "valid"},
		"by a document that leads to plain http": {[]string{"--key=" + site.URL + "/plain"}, exitFailed, "is not a URL like https"},
		"by a document that is not there":        {[]string{"--key=" + site.URL + "/nothing", "--issuer=" + east}, exitFailed, "404"},
		"by a URL with a password":               {[]string{"--key=https://u:secretpassword@" + site.Listener.Addr().String() + "/jwks", "--issuer=" + east}, exitFailed, "there is a user in the URL"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, talk bytes.Buffer
			code := run(t.Context(), append([]string{"sa", "verify", "--certificate-authority=" + ca}, row.args...), streams{strings.NewReader(text), &out, &talk})
			if said := out.String() + talk.String(); code != row.code || !strings.Contains(said, row.says) || strings.Contains(said, "secretpassword") {
				t.Errorf("exit %d, want %d with %q: %s", code, row.code, row.says, said)
			}
		})
	}
	t.Run("a server that is not trusted", func(t *testing.T) {
		var out, talk bytes.Buffer
		code := run(t.Context(), []string{"sa", "verify", "--key=" + token.DiscoveryURL(east)}, streams{strings.NewReader(text), &out, &talk})
		if code != exitFailed || !strings.Contains(talk.String(), "authority") {
			t.Errorf("exit %d: %s", code, talk.String())
		}
	})
}

// What is read is read to its end, or not at all.
func TestSAVerifyReadsAllOfIt(t *testing.T) {
	good := tokentest.Good(tokentest.Payload(time.Now()))
	keys := append(saKeyArgs(t), "--issuer="+tokentest.Issuer)
	for name, row := range map[string]struct {
		text string
		code int
	}{
		"blanks around it":                     {" \t\r\n" + good + strings.Repeat("\n", 60_000), exitDone},
		"another token after very many blanks": {good + strings.Repeat(" ", 2_000_000) + good, exitFindings},
		"very many blanks before it":           {strings.Repeat(" ", 2_000_000) + good, exitFindings},
		"a blank that is none of ASCII":        {"\u00a0" + good, exitFindings},
		"a form feed":                          {good + "\f", exitFindings},
	} {
		t.Run(name, func(t *testing.T) {
			var out, talk bytes.Buffer
			if code := run(t.Context(), append([]string{"sa", "verify", "-"}, keys...), streams{strings.NewReader(row.text), &out, &talk}); code != row.code {
				t.Errorf("exit %d, want %d: %s%.300s", code, row.code, talk.String(), out.String())
			}
		})
	}
}

// Claims that a terminal or a shell would act upon are not handed on.
func TestSAVerifyOnForeignText(t *testing.T) {
	keys := append(saKeyArgs(t), "--issuer="+tokentest.Issuer)
	p := tokentest.Payload(time.Now())
	odd := tokentest.Good(p.With("jti", `"a\u009b31m\u202eb\u007f"`))
	for _, args := range [][]string{{"sa", "verify", "-", "-o=json"}, {"sa", "verify", "-", "-o=yaml"}, {"sa", "verify", "-"}, {"sa", "inspect", "-o=yaml"}, {"sa", "inspect", "-o=json"}, {"sa", "inspect"}} {
		if args[1] == "verify" {
			args = append(args, keys...)
		}
		var out, talk bytes.Buffer
		if code := run(t.Context(), args, streams{strings.NewReader(odd), &out, &talk}); code != exitDone {
			t.Errorf("%v: exit %d: %s", args[:3], code, talk.String())
		}
		if strings.ContainsAny(out.String(), "\u009b\u202e\u007f") {
			t.Errorf("%v: %q", args[:2], out.String())
		}
	}
	for _, issuer := range []string{`$(touch pwned)`, "a b", "x;y", strings.Repeat("x", 500)} {
		var out, talk bytes.Buffer
		run(t.Context(), append([]string{"sa", "verify", "-"}, saKeyArgs(t)...), streams{strings.NewReader(tokentest.Good(p.With("iss", `"`+issuer+`"`))), &out, &talk})
		if strings.Contains(talk.String(), issuer) {
			t.Errorf("the hint is %q", talk.String())
		}
	}
}
