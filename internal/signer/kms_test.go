package signer_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/kmsproto"
	"github.com/kubepki/kubepki/internal/signer"
	"github.com/kubepki/kubepki/internal/trust"
)

// What kubepki-kms itself does, the tests of kms/ show. Here something listens
// at the socket that is not what it should be.

// listenAt answers each path of the protocol with a status and a value.
func listenAt(t *testing.T, answers map[string]any, status int) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "kms.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.WriteHeader(status)
		if text, ok := answer.(string); ok {
			w.Write([]byte(text))
			return
		}
		json.NewEncoder(w).Encode(answer)
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return socket
}

func publicHalf(t *testing.T, key crypto.PublicKey) kmsproto.Key {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return kmsproto.Key{Name: "ca", PublicKey: der}
}

func TestWhatListensIsNotWhatItShouldBe(t *testing.T) {
	about := kmsproto.About{Program: "kubepki-kms", Versions: []string{"v1", "v2"}}
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]struct {
		answers map[string]any
		status  int
		want    string
	}{
		"another server":          {map[string]any{}, 200, "something else that listens"},
		"another protocol":        {map[string]any{"/about": "hello"}, 200, "invalid character"},
		"another version":         {map[string]any{"/about": kmsproto.About{Versions: []string{"v9"}}}, 200, "one release"},
		"a key that is no key":    {map[string]any{"/about": about, "/v1/key/ca": kmsproto.Key{PublicKey: []byte("x")}}, 200, "asn1"},
		"a key that hashes alone": {map[string]any{"/about": about, "/v1/key/ca": publicHalf(t, edwards)}, 200, "use RSA or ECDSA"},
		"an error":                {map[string]any{"/about": kmsproto.Error{Code: kmsproto.Busy, Message: "later"}}, 503, "busy: later"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			socket := listenAt(t, row.answers, row.status)
			_, err := signer.Key(socket, "ca")
			if err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), socket) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
	if _, err := signer.Key(filepath.Join(t.TempDir(), "none.sock"), "ca"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}

func TestSignatureThatIsNoneGivesNoCertificate(t *testing.T) {
	a := authority(t, "ca")
	socket := listenAt(t, map[string]any{
		"/about": kmsproto.About{Versions: []string{"v1"}}, "/v1/key/ca": publicHalf(t, a.Key.Public()), "/v1/sign": kmsproto.SignResponse{Signature: []byte("forged")},
	}, 200)
	file := filepath.Join(t.TempDir(), "ca.crt")
	put(t, file, trust.EncodeCertificates(a.Certificate))
	s, err := signer.KMS(socket, "ca", file, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Authority()
	if err != nil {
		t.Fatal(err)
	}
	template := issue.Template{DNSNames: []string{"a.test"}, NotBefore: a.Certificate.NotBefore, NotAfter: a.Certificate.NotAfter}
	if _, err := issue.Sign(template, a.Key.Public(), got); err == nil || !strings.Contains(err.Error(), "signature") {
		t.Errorf("got %v", err)
	}
}

func TestOnlyDigestsAreSentForSigning(t *testing.T) {
	a := authority(t, "ca")
	socket := listenAt(t, map[string]any{
		"/about": kmsproto.About{Versions: []string{"v1"}}, "/v1/key/ca": publicHalf(t, a.Key.Public()), "/v1/sign": kmsproto.SignResponse{},
	}, 200)
	key, err := signer.Key(socket, "ca")
	if err != nil {
		t.Fatal(err)
	}
	for _, opts := range []crypto.SignerOpts{nil, crypto.Hash(0), crypto.SHA1, crypto.MD5} {
		if _, err := key.Sign(nil, make([]byte, 16), opts); err == nil || errors.As(err, new(*kmsproto.Error)) {
			t.Errorf("%v: got %v", opts, err)
		}
	}
	sum := sha256.Sum256(nil)
	if _, err := key.Sign(nil, sum[:], crypto.SHA256); err == nil || !strings.Contains(err.Error(), "no signature") {
		t.Errorf("got %v, want what the other side answered", err)
	}
}
