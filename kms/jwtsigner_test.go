package main

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	externaljwt "k8s.io/externaljwt/apis/v1"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/jwtsigner"
	"github.com/kubepki/kubepki/internal/signer"
	satoken "github.com/kubepki/kubepki/token" // the tests have a token of a device
)

// signerOf is kubepki sa external-signer with a key of kubepki-kms.
func signerOf(t *testing.T, socket, name string, published ...string) (*jwtsigner.Server, *jwtsigner.Keys) {
	t.Helper()
	key, err := signer.Key(socket, name)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := jwtsigner.OpenKeys(jwtsigner.KeysConfig{Files: jwtsigner.Files{Held: key, Published: published}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := jwtsigner.NewServer(jwtsigner.Config{
		Policy: jwtsigner.Policy{Issuers: []string{"https://issuer.test"}, MaxLife: time.Hour}, Keys: keys, RefreshHint: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, keys
}

// signToken has a token signed, as kube-apiserver does.
func signToken(t *testing.T, s *jwtsigner.Server) (string, error) {
	t.Helper()
	now := time.Now().Unix()
	payload := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"aud":["https://issuer.test"],"exp":%d,"iat":%d,"iss":"https://issuer.test",`+
		`"kubernetes.io":{"namespace":"ns","serviceaccount":{"name":"sa","uid":"u"}},"nbf":%d,"sub":"system:serviceaccount:ns:sa"}`, now+3600, now, now))
	answer, err := s.Sign(t.Context(), &externaljwt.SignJWTRequest{Claims: payload})
	if err != nil {
		return "", err
	}
	return answer.Header + "." + payload + "." + answer.Signature, nil
}

func TestTokensAreSignedInADevice(t *testing.T) {
	for _, algorithm := range []string{"RSA", "P-256"} {
		t.Run(algorithm, func(t *testing.T) {
			k := newToken(t)
			k.makeKey(t, "sa", algorithm)
			k.makeKey(t, "other", algorithm)
			socket := k.path("run/kms.sock")
			args := func(object string) []string { return []string{"--socket", socket, "--key", "sa=" + k.pinned(object)} }
			p := k.start(t, nil, args("sa")...)
			s, keys := signerOf(t, socket, "sa")
			text, err := signToken(t, s)
			if err != nil {
				t.Fatal(err)
			}
			set, err := satoken.NewKeySet(keys.Publish().Keys...)
			if err != nil {
				t.Fatal(err)
			}
			v, err := satoken.NewVerifier(satoken.Config{Keys: set, Issuers: []string{"https://issuer.test"}})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := v.Verify(t.Context(), text); err != nil || got.User.Username != "system:serviceaccount:ns:sa" {
				t.Errorf("got %+v, %v", got, err)
			}
			p.kill(t, syscall.SIGKILL)
			if _, err := signToken(t, s); status.Code(err) != codes.Unavailable {
				t.Errorf("while kubepki-kms is away: %v", err)
			}
			p = k.start(t, nil, args("sa")...)
			if _, err := signToken(t, s); err != nil {
				t.Errorf("when it is back: %v", err)
			}
			// Under the name there is another key now: what it signs nobody would take.
			p.kill(t, syscall.SIGTERM)
			k.start(t, nil, args("other")...)
			if _, err := signToken(t, s); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "was the key exchanged") {
				t.Errorf("with another key under the name: %v", err)
			}
		})
	}
}

// The way of docs/sa-external-signer.md: the public half of the next key is
// published first, then the process is started with its name.
func TestRotationToAnotherKeyOfTheDevice(t *testing.T) {
	k := newToken(t)
	k.makeKey(t, "one", "P-256")
	k.makeKey(t, "two", "RSA")
	socket := k.path("run/kms.sock")
	k.start(t, nil, "--socket", socket, "--key", "sa-1="+k.pinned("one"), "--key", "sa-2="+k.pinned("two"))
	var both []byte
	for _, name := range []string{"sa-1", "sa-2"} {
		key, err := signer.Key(socket, name)
		if err != nil {
			t.Fatal(err)
		}
		data, err := issue.EncodePublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, data...)
	}
	file := filepath.Join(k.dir, "keys.pem")
	put(t, file, string(both))
	var tokens []string
	for _, name := range []string{"sa-1", "sa-2"} {
		s, keys := signerOf(t, socket, name, file)
		text, err := signToken(t, s)
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, text)
		set, err := satoken.NewKeySet(keys.Publish().Keys...)
		if err != nil {
			t.Fatal(err)
		}
		v, err := satoken.NewVerifier(satoken.Config{Keys: set, Issuers: []string{"https://issuer.test"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range tokens {
			if _, err := v.Verify(t.Context(), text); err != nil {
				t.Errorf("with %s: %v", name, err)
			}
		}
	}
}
