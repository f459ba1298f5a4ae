package jwtsigner_test

import (
	"crypto"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/jwtsigner"
	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/token"
)

const issuer = "https://issuer.test"

// put writes a file of a test, and returns its path.
func put(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func privatePEM(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	data, err := issue.EncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func publicPEM(t testing.TB, keys ...crypto.Signer) []byte {
	t.Helper()
	var all []byte
	for _, key := range keys {
		data, err := issue.EncodePublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data...)
	}
	return all
}

func idOf(t testing.TB, key crypto.Signer) string {
	t.Helper()
	k, err := token.NewKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return k.ID
}

// payload is what kube-apiserver has signed for a pod, issued now and living for
// some time, with parts of it replaced, by turns of old and new.
func payload(issued time.Time, life time.Duration, replace ...string) string {
	text := fmt.Sprintf(`{"aud":["https://issuer.test"],"exp":%d,"iat":%d,"iss":"https://issuer.test","jti":"0b5b","kubernetes.io":{"namespace":"ns","node":{"name":"n1","uid":"nu"},`+
		`"pod":{"name":"p","uid":"pu"},"serviceaccount":{"name":"sa","uid":"su"},"warnafter":%d},"nbf":%d,"sub":"system:serviceaccount:ns:sa"}`,
		issued.Add(life).Unix(), issued.Unix(), issued.Add(time.Hour).Unix(), issued.Unix())
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			panic("there is no " + replace[i])
		}
		text = strings.Replace(text, replace[i], replace[i+1], 1)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

func TestFilesThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	rsa, p256 := tokentest.Key(tokentest.RSA), tokentest.Key(tokentest.P256)
	put(t, path("sa.key"), privatePEM(t, rsa))
	put(t, path("sa.pub"), publicPEM(t, rsa))
	put(t, path("weak.key"), privatePEM(t, tokentest.Key(tokentest.Weak)))
	put(t, path("other.pub"), publicPEM(t, p256))
	put(t, path("empty"), nil)
	k, err := token.NewKey(p256.Public())
	if err != nil {
		t.Fatal(err)
	}
	k.ID = idOf(t, rsa)
	set, err := token.NewKeySet(k)
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := set.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	put(t, path("posing.jwks"), jwks)
	rows := map[string]struct {
		files jwtsigner.Files
		want  string // empty: they can
	}{
		"a key alone":                        {jwtsigner.Files{Signing: path("sa.key")}, ""},
		"a key that is published elsewhere":  {jwtsigner.Files{Signing: path("sa.key"), Published: []string{path("sa.pub"), path("other.pub")}}, ""},
		"a key for legacy tokens":            {jwtsigner.Files{Signing: path("sa.key"), Legacy: []string{path("other.pub")}}, ""},
		"a key held elsewhere":               {jwtsigner.Files{Held: p256, Published: []string{path("sa.pub")}}, ""},
		"no key":                             {jwtsigner.Files{}, "there is no signing key"},
		"a file that is not there":           {jwtsigner.Files{Signing: path("none.key")}, "none.key: no such file"},
		"a public key to sign with":          {jwtsigner.Files{Signing: path("sa.pub")}, "sa.pub: "},
		"a key that is too short":            {jwtsigner.Files{Signing: path("weak.key")}, "weak.key: an RSA key of 1024 bits"},
		"a key held elsewhere that is short": {jwtsigner.Files{Held: tokentest.Key(tokentest.Weak)}, "held elsewhere: an RSA key of 1024 bits"},
		"an empty file of keys to publish":   {jwtsigner.Files{Signing: path("sa.key"), Published: []string{path("empty")}}, "empty: there is no PEM block"},
		"an empty file of legacy keys":       {jwtsigner.Files{Signing: path("sa.key"), Legacy: []string{path("empty")}}, "empty: there is no PEM block"},
		"the signing key for legacy alone":   {jwtsigner.Files{Signing: path("sa.key"), Legacy: []string{path("sa.pub")}}, "the signing key is among the keys of legacy tokens"},
		"a legacy key by the id of another":  {jwtsigner.Files{Signing: path("sa.key"), Legacy: []string{path("posing.jwks")}}, "two keys have the id"},
		"a legacy key that is published too": {jwtsigner.Files{Signing: path("sa.key"), Published: []string{path("other.pub")}, Legacy: []string{path("other.pub")}}, ""},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			k, err := jwtsigner.OpenKeys(jwtsigner.KeysConfig{Files: row.files})
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Fatalf("got %v, want %q", err, row.want)
			}
			if err == nil && k.Signer() == nil {
				t.Error("nothing signs")
			}
		})
	}
}
