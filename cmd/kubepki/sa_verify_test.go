package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/token"
)

// saKeyArgs writes the keys of a cluster as their private or public halves, and
// returns the flags that name them.
func saKeyArgs(t *testing.T) []string {
	t.Helper()
	var flags []string
	for i, name := range tokentest.Listed() {
		var data []byte
		var err error
		if key := tokentest.Key(name); i%2 == 0 {
			data, err = issue.EncodePublicKey(key.Public())
		} else {
			data, err = issue.EncodePrivateKey(key)
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), name+".pem")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		flags = append(flags, "--key="+path)
	}
	return flags
}

// What is typed says what the library says of every case, as a document and as
// an exit code, and never repeats the token.
func TestSAVerifyOnEveryCase(t *testing.T) {
	keys := saKeyArgs(t)
	for _, c := range tokentest.Cases(time.Now()) {
		t.Run(c.Name, func(t *testing.T) {
			args := append([]string{"sa", "verify", "-", "-o=json"}, keys...)
			for _, i := range c.AcceptedIssuers() {
				args = append(args, "--issuer="+i)
			}
			audiences := c.Asked
			if audiences == nil {
				audiences = c.Audiences
			}
			for _, a := range audiences {
				args = append(args, "--audience="+a)
			}
			if c.NoLegacy {
				args = append(args, "--no-legacy")
			}
			var out, talk bytes.Buffer
			code := run(t.Context(), args, streams{strings.NewReader("\n " + c.Token + "\r\n"), &out, &talk})
			var d tokenVerification
			if err := json.Unmarshal(out.Bytes(), &d); err != nil {
				t.Fatalf("exit %d: %v: %s", code, err, talk.String())
			}
			// Blanks around a token are taken away before it is judged.
			valid := c.Want == "" || c.Stricter && strings.Trim(c.Token, blanks) != c.Token
			switch {
			case valid && (code != exitDone || !d.Valid || d.User == nil || d.User.Username != "system:serviceaccount:apps:robot" && c.Want == "" && !strings.HasPrefix(d.User.Username, "system:serviceaccount:") || len(d.Reasons) > 0):
				t.Errorf("exit %d: %s", code, out.String())
			case !valid && (code != exitFindings || d.Valid || d.User != nil || len(d.Reasons) == 0 || d.Reasons[0].ID != c.Want && c.Want != token.Malformed):
				t.Errorf("exit %d, want %s: %s", code, c.Want, out.String())
			}
			if parts := strings.Split(c.Token, "."); len(parts) == 3 && len(parts[2]) > 20 && strings.Contains(out.String()+talk.String(), parts[2][:20]) {
				t.Error("the token is repeated")
			}
		})
	}
}

// Whichever way the keys are written, they are the same keys.
func TestSAKeysInEveryForm(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	k, err := token.NewKey(tokentest.Key(tokentest.RSA).Public())
	if err != nil {
		t.Fatal(err)
	}
	set, err := token.NewKeySet(k)
	if err != nil {
		t.Fatal(err)
	}
	public, err := issue.EncodePublicKey(k.Public)
	files := []string{write("public.pem", public, err)}
	private, err := issue.EncodePrivateKey(tokentest.Key(tokentest.RSA))
	files = append(files, write("private.pem", private, err))
	files = append(files, write("comments.pem", append([]byte("# of 2024\r\n"), bytes.ReplaceAll(public, []byte("\n"), []byte("\r\n"))...), nil))
	jwks, err := set.JWKS()
	files = append(files, write("jwks.json", jwks, err))
	for _, f := range files {
		var out, talk bytes.Buffer
		if code := run(t.Context(), []string{"sa", "keys", "--key", f, "-o", "name"}, streams{strings.NewReader(""), &out, &talk}); code != exitDone || strings.TrimSpace(out.String()) != k.ID {
			t.Errorf("%s: exit %d: %s%s", filepath.Base(f), code, out.String(), talk.String())
		}
	}
}
