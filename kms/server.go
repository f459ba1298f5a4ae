package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/kubepki/kubepki/internal/kmsproto"
)

// limits bound what clients and devices may take.
type limits struct {
	timeout     time.Duration // for a signature to be made
	stuck       time.Duration // after which a device that gave no answer is given up
	signatures  int           // in the making at once
	connections int
}

func defaultLimits() limits {
	return limits{timeout: 10 * time.Second, stuck: time.Minute, signatures: 16, connections: 64}
}

// server answers the requests of the protocol.
type server struct {
	keys   *keyring
	limits limits
	slots  chan struct{}
	lost   chan error // ends the process; holds one
	log    *slog.Logger
}

// serve listens and answers until ctx ends, or until a device is lost.
func serve(ctx context.Context, o *options, keys *keyring, log *slog.Logger) error {
	l, err := listen(o.socket, o.allowed, o.limits.connections, log)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }() // Shutdown has closed it already
	lost := make(chan error, 1)
	s := &server{keys, o.limits, make(chan struct{}, o.limits.signatures), lost, log}
	h := &http.Server{
		Handler: s.handler(), MaxHeaderBytes: 8 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: o.limits.timeout + 10*time.Second, IdleTimeout: 2 * time.Minute,
	}
	done := make(chan error, 1)
	go func() { done <- h.Serve(l) }()
	for name, k := range keys.keys {
		log.Info("key", "name", name, "scheme", k.scheme, "type", fmt.Sprintf("%T", k.signer.Public()))
	}
	log.Info("listening", "socket", l.Addr().String(), "users", o.allowed)
	select {
	case err := <-done:
		return err
	case err = <-lost:
		err = fmt.Errorf("the device is lost: %w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := h.Shutdown(last); err != nil {
		log.Warn("connections were cut", "error", err.Error())
	}
	return err
}

// lose ends the process: a supervisor starts another.
func (s *server) lose(err error) {
	select {
	case s.lost <- err:
	default: // it ends already
	}
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+kmsproto.AboutPath, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, kmsproto.About{Program: "kubepki-kms", Versions: []string{kmsproto.Version}})
	})
	mux.HandleFunc("GET "+kmsproto.KeyPath+"{name}", s.key)
	mux.HandleFunc("POST "+kmsproto.SignPath, s.sign)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, kmsproto.NotFound, "no such path or method: this is kubepki-kms, which speaks "+kmsproto.Version)
	})
	return mux
}

func (s *server) key(w http.ResponseWriter, r *http.Request) {
	k, ok := s.keys.keys[r.PathValue("name")]
	if !ok {
		refuse(w, http.StatusNotFound, kmsproto.UnknownKey, fmt.Sprintf("no key of the name %q", r.PathValue("name")))
		return
	}
	answer(w, http.StatusOK, kmsproto.Key{Name: k.name, PublicKey: k.public})
}

func (s *server) sign(w http.ResponseWriter, r *http.Request) {
	q, err := decode(http.MaxBytesReader(w, r.Body, kmsproto.MaxBody))
	if err != nil {
		refuse(w, http.StatusBadRequest, kmsproto.BadRequest, err.Error())
		return
	}
	k, ok := s.keys.keys[q.Key]
	if !ok {
		refuse(w, http.StatusNotFound, kmsproto.UnknownKey, fmt.Sprintf("no key of the name %q", q.Key))
		return
	}
	opts, err := signerOptions(q, k.signer.Public())
	if err != nil {
		refuse(w, http.StatusBadRequest, kmsproto.BadRequest, err.Error())
		return
	}
	began := time.Now()
	signature, failure := s.signature(r.Context(), k, q.Digest, opts)
	log := s.log.With("key", k.name, "hash", q.Hash, "digest", hex.EncodeToString(q.Digest), "seconds", time.Since(began).Seconds())
	if failure != nil {
		log.Error("not signed", "error", failure.Error())
		status := http.StatusBadGateway
		switch failure.Code {
		case kmsproto.Busy:
			status = http.StatusServiceUnavailable
		case kmsproto.KeyTimedOut:
			status = http.StatusGatewayTimeout
		}
		refuse(w, status, failure.Code, failure.Message)
		return
	}
	log.Info("signed")
	answer(w, http.StatusOK, kmsproto.SignResponse{Signature: signature})
}

// signature has a signature made within the limits. A call into a device cannot be
// taken back: one that is late keeps its slot until it returns.
func (s *server) signature(ctx context.Context, k *key, digest []byte, opts crypto.SignerOpts) ([]byte, *kmsproto.Error) {
	ctx, cancel := context.WithTimeout(ctx, s.limits.timeout)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, &kmsproto.Error{Code: kmsproto.Busy, Message: fmt.Sprintf("%d signatures are in the making", s.limits.signatures)}
	}
	type result struct {
		signature []byte
		err       error
	}
	results := make(chan result, 1)
	go func() {
		defer func() { <-s.slots }()
		stuck := time.AfterFunc(s.limits.stuck, func() { s.lose(fmt.Errorf("key %q gave no answer in %s", k.name, s.limits.stuck)) })
		defer stuck.Stop()
		signature, err := k.signer.Sign(rand.Reader, digest, opts)
		results <- result{signature, err}
	}()
	select {
	case r := <-results:
		if r.err == nil {
			return r.signature, nil
		}
		if isLost(r.err) {
			s.lose(fmt.Errorf("key %q: %w", k.name, r.err))
		}
		return nil, &kmsproto.Error{Code: kmsproto.KeyFailed, Message: r.err.Error()}
	case <-ctx.Done():
		return nil, &kmsproto.Error{Code: kmsproto.KeyTimedOut, Message: fmt.Sprintf("key %q gave no answer in %s", k.name, s.limits.timeout)}
	}
}

// decode reads one JSON value and nothing else.
func decode(body io.Reader) (*kmsproto.SignRequest, error) {
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	var q kmsproto.SignRequest
	if err := d.Decode(&q); err != nil {
		return nil, fmt.Errorf("the body does not parse: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the body")
	}
	return &q, nil
}

// signerOptions refuses whatever is no digest: a key that signed bytes of the
// asker's choosing could be led to sign something else than a certificate's
// sum (RSA without a hash signs any short message as it is).
func signerOptions(q *kmsproto.SignRequest, public crypto.PublicKey) (crypto.SignerOpts, error) {
	hash, ok := kmsproto.Hashes()[q.Hash]
	switch {
	case !ok:
		return nil, fmt.Errorf("hash %q is none of SHA-256, SHA-384 and SHA-512", q.Hash)
	case len(q.Digest) != hash.Size():
		return nil, fmt.Errorf("a digest of %s has %d bytes, not %d", q.Hash, hash.Size(), len(q.Digest))
	case q.PSS == nil:
		return hash, nil
	}
	if _, isRSA := public.(*rsa.PublicKey); !isRSA {
		return nil, errors.New("pss is for RSA keys")
	}
	if q.PSS.SaltLength < rsa.PSSSaltLengthEqualsHash || q.PSS.SaltLength > 1024 {
		return nil, fmt.Errorf("a salt of %d bytes is none", q.PSS.SaltLength)
	}
	return &rsa.PSSOptions{SaltLength: q.PSS.SaltLength, Hash: hash}, nil
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", kmsproto.MediaType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the connection is gone: nobody is there to be told
}

func refuse(w http.ResponseWriter, status int, code kmsproto.Code, message string) {
	answer(w, status, &kmsproto.Error{Code: code, Message: message})
}
