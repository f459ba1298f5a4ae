//go:build !nocloud

package main

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/kubepki/kubepki/internal/signer"
)

// awsKMS answers GetPublicKey and Sign as AWS KMS does (AWS JSON 1.1), for one
// key: the library in front of it is the real one, the cloud is not.
func awsKMS(t *testing.T, key crypto.Signer) *httptest.Server {
	t.Helper()
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			KeyID            string `json:"KeyId"`
			Message          []byte
			MessageType      string
			SigningAlgorithm string
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.KeyID != "the-key" {
			http.Error(w, `{"__type":"NotFoundException"}`, http.StatusBadRequest)
			return
		}
		answer := map[string]any{"KeyId": q.KeyID}
		switch target := r.Header.Get("X-Amz-Target"); {
		case target == "TrentService.GetPublicKey":
			answer["PublicKey"], answer["KeySpec"], answer["KeyUsage"] = public, "ECC_NIST_P256", "SIGN_VERIFY"
			answer["SigningAlgorithms"] = []string{"ECDSA_SHA_256"}
		case target == "TrentService.Sign" && q.MessageType == "DIGEST" && q.SigningAlgorithm == "ECDSA_SHA_256":
			signature, err := key.Sign(rand.Reader, q.Message, crypto.SHA256)
			if err != nil {
				t.Error(err)
			}
			answer["Signature"] = signature
		default:
			http.Error(w, `{"__type":"UnsupportedOperationException"}`, http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(s.Close)
	return s
}

func TestKeyInAWS(t *testing.T) {
	cloud := awsKMS(t, newKey(t))
	k := &token{dir: t.TempDir(), env: os.Environ()}
	env := []string{"AWS_ENDPOINT_URL=" + cloud.URL, "AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=secret", "AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null"}
	socket := k.path("run/kms.sock")
	k.start(t, env, "--socket", socket, "--key", "ca=awskms:region=eu-central-1;key-id=the-key")
	makeAuthority(t, socket, "ca", k.path("ca.crt"))
	source, err := signer.KMS(socket, "ca", k.path("ca.crt"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := signOne(t, source, "n1"); err != nil {
		t.Error(err)
	}
	p := k.start(t, env, "--socket", k.path("other/kms.sock"), "--key", "ca=awskms:region=eu-central-1;key-id=another")
	<-p.exited
	if got := p.ProcessState.ExitCode(); got != exitFailed {
		t.Errorf("exit %d: %s", got, p.log.String())
	}
}
