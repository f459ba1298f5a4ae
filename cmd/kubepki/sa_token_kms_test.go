package main

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/kmsproto"
)

// serveKMS speaks the protocol of kubepki-kms, as the holder of one key, sa.
func serveKMS(t *testing.T, keyPEM []byte) (socket string) {
	t.Helper()
	key, err := issue.ParsePrivateKey(keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+kmsproto.AboutPath, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(kmsproto.About{Program: "kubepki-kms", Versions: []string{kmsproto.Version}})
	})
	mux.HandleFunc("GET "+kmsproto.KeyPath+"sa", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(kmsproto.Key{Name: "sa", PublicKey: public})
	})
	mux.HandleFunc("POST "+kmsproto.SignPath, func(w http.ResponseWriter, r *http.Request) {
		var q kmsproto.SignRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		signature, err := key.Sign(rand.Reader, q.Digest, kmsproto.Hashes()[q.Hash])
		if err != nil {
			t.Error(err)
		}
		_ = json.NewEncoder(w).Encode(kmsproto.SignResponse{Signature: signature})
	})
	// A path of its own: those of sockets may not be long.
	dir, err := os.MkdirTemp("", "kms")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "kms.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	return socket
}

func TestTokensAreSignedByAKeyElsewhere(t *testing.T) {
	for _, algorithm := range []string{"RSA-2048", "ECDSA-P256", "ECDSA-P384"} {
		t.Run(algorithm, func(t *testing.T) {
			root := controlPlaneRoot(t, algorithm)
			file := filepath.Join(root, "etc/kubernetes/pki/sa.key")
			keyPEM, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			socket := serveKMS(t, keyPEM)
			// It is nowhere on this disk any more.
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			out, talk := here(t, "sa", "token", "ci/robot", "--root", root, "--key", "kms:sa", "--kms-socket", socket, "--uid", accountUID)
			if _, err := verifierOf(t, root, time.Now()).Verify(t.Context(), strings.TrimSpace(out)); err != nil || strings.Contains(talk, "other keys") {
				t.Errorf("%v; it says %s", err, talk)
			}
		})
	}
}
