package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/kmsproto"
)

func testServer(l limits, keys map[string]crypto.Signer) *server {
	r := &keyring{keys: map[string]*key{}}
	for name, k := range keys {
		r.keys[name] = &key{name: name, signer: k, public: []byte{1}}
	}
	return &server{r, l, make(chan struct{}, l.signatures), make(chan error, 1), slog.New(slog.DiscardHandler)}
}

func ask(s *server, method, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.handler().ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w
}

func failure(t *testing.T, w *httptest.ResponseRecorder) *kmsproto.Error {
	t.Helper()
	var e kmsproto.Error
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Header().Get("Content-Type") != kmsproto.MediaType {
		t.Fatalf("%v: %q is no answer of the protocol", err, w.Body)
	}
	return &e
}

func TestOnlyDigestsAreSigned(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := testServer(defaultLimits(), map[string]crypto.Signer{"rsa": key, "ec": curve})
	long := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	rows := map[string]struct {
		method, path, body string
		status             int
		code               kmsproto.Code
	}{
		"not JSON":                    {"POST", "/v1/sign", "x", 400, kmsproto.BadRequest},
		"nothing":                     {"POST", "/v1/sign", "", 400, kmsproto.BadRequest},
		"two bodies":                  {"POST", "/v1/sign", `{"key":"rsa","hash":"SHA-256","digest":"` + long(32) + `"}{}`, 400, kmsproto.BadRequest},
		"a field unknown":             {"POST", "/v1/sign", `{"key":"rsa","hash":"SHA-256","digest":"` + long(32) + `","raw":true}`, 400, kmsproto.BadRequest},
		"a body without end":          {"POST", "/v1/sign", `{"key":"` + strings.Repeat("a", kmsproto.MaxBody) + `"}`, 400, kmsproto.BadRequest},
		"a message as it is":          {"POST", "/v1/sign", `{"key":"rsa","hash":"","digest":"` + long(19) + `"}`, 400, kmsproto.BadRequest},
		"a short digest":              {"POST", "/v1/sign", `{"key":"rsa","hash":"SHA-256","digest":"` + long(31) + `"}`, 400, kmsproto.BadRequest},
		"a long digest":               {"POST", "/v1/sign", `{"key":"rsa","hash":"SHA-256","digest":"` + long(64) + `"}`, 400, kmsproto.BadRequest},
		"a broken hash":               {"POST", "/v1/sign", `{"key":"rsa","hash":"SHA-1","digest":"` + long(20) + `"}`, 400, kmsproto.BadRequest},
		"PSS with a key that is none": {"POST", "/v1/sign", `{"key":"ec","hash":"SHA-256","digest":"` + long(32) + `","pss":{"saltLength":-1}}`, 400, kmsproto.BadRequest},
		"a salt that is none":         {"POST", "/v1/sign", `{"key":"rsa","hash":"SHA-256","digest":"` + long(32) + `","pss":{"saltLength":-2}}`, 400, kmsproto.BadRequest},
		"an unknown key":              {"POST", "/v1/sign", `{"key":"x","hash":"SHA-256","digest":"` + long(32) + `"}`, 404, kmsproto.UnknownKey},
		"an unknown key's half":       {"GET", "/v1/key/x", "", 404, kmsproto.UnknownKey},
		"another version":             {"POST", "/v2/sign", "", 404, kmsproto.NotFound},
		"another method":              {"DELETE", "/v1/key/rsa", "", 404, kmsproto.NotFound},
		"RSA":                         {"POST", "/v1/sign", `{"key":"rsa","hash":"SHA-256","digest":"` + long(32) + `"}`, 200, ""},
		"RSA with PSS":                {"POST", "/v1/sign", `{"key":"rsa","hash":"SHA-512","digest":"` + long(64) + `","pss":{"saltLength":-1}}`, 200, ""},
		"ECDSA":                       {"POST", "/v1/sign", `{"key":"ec","hash":"SHA-384","digest":"` + long(48) + `"}`, 200, ""},
		"a public half":               {"GET", "/v1/key/rsa", "", 200, ""},
		"what it is":                  {"GET", "/about", "", 200, ""},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			w := ask(s, row.method, row.path, row.body)
			if w.Code != row.status {
				t.Errorf("status %d, want %d: %s", w.Code, row.status, w.Body)
			}
			if row.code != "" && failure(t, w).Code != row.code {
				t.Errorf("got %s, want %s", w.Body, row.code)
			}
		})
	}
}

func TestSignatureOfPSSVerifies(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s := testServer(defaultLimits(), map[string]crypto.Signer{"rsa": key})
	digest := sha256.Sum256([]byte("x"))
	body, err := json.Marshal(kmsproto.SignRequest{Key: "rsa", Hash: "SHA-256", Digest: digest[:], PSS: &kmsproto.PSS{SaltLength: -1}})
	if err != nil {
		t.Fatal(err)
	}
	var answer kmsproto.SignResponse
	if err := json.Unmarshal(ask(s, "POST", "/v1/sign", string(body)).Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	if err := rsa.VerifyPSS(&key.PublicKey, crypto.SHA256, digest[:], answer.Signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}); err != nil {
		t.Error(err)
	}
}

// slow is a key that answers after a time.
type slow struct {
	crypto.Signer
	after time.Duration
	err   error
}

func (k slow) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	time.Sleep(k.after)
	return []byte{1}, k.err
}

var body = `{"key":"ca","hash":"SHA-256","digest":"` + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 32)) + `"}`

func slowServer(k slow, signatures int) *server {
	l := defaultLimits()
	l.signatures = signatures
	k.Signer = &ecdsa.PrivateKey{}
	return testServer(l, map[string]crypto.Signer{"ca": k})
}

func TestSlowDeviceTimesOutAndKeepsItsSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := slowServer(slow{after: 25 * time.Second}, 1)
		began := time.Now()
		if w := ask(s, "POST", "/v1/sign", body); w.Code != 504 || failure(t, w).Code != kmsproto.KeyTimedOut {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if w := ask(s, "POST", "/v1/sign", body); w.Code != 503 || failure(t, w).Code != kmsproto.Busy {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("took %s", took)
		}
		if len(s.lost) != 0 {
			t.Error("given up too early")
		}
		time.Sleep(time.Minute)
	})
}

func TestDeviceThatNeverAnswersIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := slowServer(slow{after: 2 * time.Minute}, 2)
		ask(s, "POST", "/v1/sign", body)
		time.Sleep(51 * time.Second)
		select {
		case err := <-s.lost:
			if !strings.Contains(err.Error(), "no answer in 1m0s") {
				t.Error(err)
			}
		default:
			t.Error("it waits on")
		}
		time.Sleep(2 * time.Minute)
	})
}

func TestAskerWhoLeftIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := slowServer(slow{after: 5 * time.Second}, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		w := httptest.NewRecorder()
		s.handler().ServeHTTP(w, httptest.NewRequestWithContext(ctx, "POST", "/v1/sign", strings.NewReader(body)))
		if took := time.Since(began); took != time.Second || w.Code != http.StatusGatewayTimeout {
			t.Errorf("took %s, %d", took, w.Code)
		}
		time.Sleep(time.Minute)
	})
}

func TestErrorsOfDevices(t *testing.T) {
	for text, lost := range map[string]bool{
		"pkcs11: 0x32: CKR_DEVICE_REMOVED":         true,
		"pkcs11: 0xB3: CKR_SESSION_HANDLE_INVALID": true,
		"pkcs11: 0x70: CKR_MECHANISM_INVALID":      false,
		"throttled":                                false,
	} {
		s := slowServer(slow{err: errors.New(text)}, 1)
		if w := ask(s, "POST", "/v1/sign", body); w.Code != 502 || failure(t, w).Message != text {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if (len(s.lost) == 1) != lost {
			t.Errorf("%s: the process ends: %v", text, len(s.lost) == 1)
		}
	}
}
