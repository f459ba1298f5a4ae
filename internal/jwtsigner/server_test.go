package jwtsigner_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	externaljwt "k8s.io/externaljwt/apis/v1"
	externaljwtalpha "k8s.io/externaljwt/apis/v1alpha1"

	"github.com/kubepki/kubepki/internal/jwtsigner"
	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/internal/unixsocket"
	"github.com/kubepki/kubepki/token"
)

// running is a server on a unix socket, with a client as kube-apiserver makes it.
type running struct {
	socket string
	conn   *grpc.ClientConn
	client externaljwt.ExternalJWTSignerClient
	log    safeBuffer
	stop   context.CancelFunc
	ended  chan error
}

type safeBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func serve(t testing.TB, files jwtsigner.Files, more ...func(*jwtsigner.Config)) *running {
	t.Helper()
	r := &running{socket: filepath.Join(t.TempDir(), "sa.sock"), ended: make(chan error, 1)}
	log := slog.New(slog.NewJSONHandler(&r.log, nil))
	keys, err := jwtsigner.OpenKeys(jwtsigner.KeysConfig{Files: files, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	config := jwtsigner.Config{
		Policy: jwtsigner.Policy{Issuers: []string{issuer}, MaxLife: 24 * time.Hour}, Keys: keys, RefreshHint: time.Minute, Log: log,
	}
	for _, f := range more {
		f(&config)
	}
	s, err := jwtsigner.NewServer(config)
	if err != nil {
		t.Fatal(err)
	}
	l, err := unixsocket.Listen(r.socket, unixsocket.Options{
		Users: []uint32{uint32(os.Geteuid())}, Mode: 0o600, Connections: jwtsigner.MaxConnections, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.ended <- s.Serve(ctx, l) }()
	if r.conn, err = grpc.NewClient("unix:"+r.socket, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	r.client = externaljwt.NewExternalJWTSignerClient(r.conn)
	t.Cleanup(func() {
		r.conn.Close()
		stop()
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *running) sign(t testing.TB, payload string) (string, error) {
	t.Helper()
	answer, err := r.client.Sign(t.Context(), &externaljwt.SignJWTRequest{Claims: payload})
	if err != nil {
		return "", err
	}
	return answer.Header + "." + payload + "." + answer.Signature, nil
}

// keySet is what the API server verifies with.
func (r *running) keySet(t testing.TB) *token.KeySet {
	t.Helper()
	answer, err := r.client.FetchKeys(t.Context(), &externaljwt.FetchKeysRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var all []token.Key
	for _, k := range answer.Keys {
		public, err := x509.ParsePKIXPublicKey(k.Key)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, token.Key{ID: k.KeyId, Public: public})
	}
	set, err := token.NewKeySet(all...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestSign(t *testing.T) {
	headers := map[string]string{tokentest.RSA: "RS256", tokentest.RSA4096: "RS256", tokentest.P256: "ES256", tokentest.P384: "ES384", tokentest.P521: "ES512"}
	for name, algorithm := range headers {
		t.Run(name, func(t *testing.T) {
			r := serve(t, jwtsigner.Files{Held: tokentest.Key(name)})
			text, err := r.sign(t, payload(time.Now(), time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(text, ".")
			header, err := base64.RawURLEncoding.DecodeString(first)
			if err != nil {
				t.Fatal(err)
			}
			want := `{"alg":"` + algorithm + `","kid":"` + idOf(t, tokentest.Key(name)) + `","typ":"JWT"}`
			if string(header) != want {
				t.Errorf("the header is %s, want %s", header, want)
			}
			v, err := token.NewVerifier(token.Config{Keys: r.keySet(t), Issuers: []string{issuer}})
			if err != nil {
				t.Fatal(err)
			}
			got, err := v.Verify(t.Context(), text)
			if err != nil {
				t.Fatal(err)
			}
			if got.User.Username != "system:serviceaccount:ns:sa" || got.Claims.Pod.Name != "p" {
				t.Errorf("it is of %+v", got.User)
			}
			for _, part := range strings.Split(text, ".") {
				if strings.Contains(r.log.String(), part) {
					t.Errorf("the log holds a part of the token:\n%s", r.log.String())
				}
			}
			if !strings.Contains(r.log.String(), `"msg":"signed","subject":"system:serviceaccount:ns:sa","audiences":["https://issuer.test"]`) {
				t.Errorf("the signature is not in the log:\n%s", r.log.String())
			}
		})
	}
}

func TestRefusalsAreNoSecretAndNoSignature(t *testing.T) {
	registry := prometheus.NewRegistry()
	r := serve(t, jwtsigner.Files{Held: tokentest.Key(tokentest.P256)}, func(c *jwtsigner.Config) { c.Metrics = jwtsigner.NewMetrics(registry) })
	bad := payload(time.Now(), 25*time.Hour)
	_, err := r.sign(t, bad)
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "24h0m0s is the most") || strings.Contains(err.Error(), bad) {
		t.Errorf("got %v", err)
	}
	if _, err := r.sign(t, payload(time.Now(), 24*time.Hour)); err != nil {
		t.Error(err)
	}
	if log := r.log.String(); !strings.Contains(log, `"level":"WARN","msg":"refused to sign"`) || strings.Contains(log, bad) {
		t.Errorf("the log says\n%s", log)
	}
	counted, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range counted {
		if m.GetName() == "kubepki_sa_sign_seconds" && len(m.Metric) != 2 {
			t.Errorf("calls are counted as %v, want one of OK and one of InvalidArgument", m.Metric)
		}
	}
	_, err = r.sign(t, strings.Repeat("A", 200<<10))
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message that is too long: %v", err)
	}
}

func TestFetchKeysAndMetadata(t *testing.T) {
	dir := t.TempDir()
	signing, next, old, legacy := tokentest.Key(tokentest.RSA), tokentest.Key(tokentest.P256), tokentest.Key(tokentest.P384), tokentest.Key(tokentest.P521)
	files := jwtsigner.Files{
		Signing:   put(t, filepath.Join(dir, "sa.key"), privatePEM(t, signing)),
		Published: []string{put(t, filepath.Join(dir, "more.pem"), publicPEM(t, next, signing)), put(t, filepath.Join(dir, "old.pub"), publicPEM(t, old))},
		Legacy:    []string{put(t, filepath.Join(dir, "legacy.pub"), publicPEM(t, legacy, old))},
	}
	began := time.Now()
	r := serve(t, files)
	answer, err := r.client.FetchKeys(t.Context(), &externaljwt.FetchKeysRequest{})
	if err != nil {
		t.Fatal(err)
	}
	type key struct {
		ID       string
		Excluded bool
	}
	var got, want []key
	for _, k := range answer.Keys {
		got = append(got, key{k.KeyId, k.ExcludeFromOidcDiscovery})
	}
	for _, k := range []crypto.Signer{signing, next, old} {
		want = append(want, key{idOf(t, k), false})
	}
	want = append(want, key{idOf(t, legacy), true})
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("keys (-want +got):\n%s", d)
	}
	if answer.RefreshHintSeconds != 60 || answer.DataTimestamp.CheckValid() != nil || answer.DataTimestamp.AsTime().Before(began.Add(-time.Second)) || answer.DataTimestamp.AsTime().After(time.Now()) {
		t.Errorf("the answer is %+v", answer)
	}
	about, err := r.client.Metadata(t.Context(), &externaljwt.MetadataRequest{})
	if err != nil || about.MaxTokenExpirationSeconds != 24*3600 {
		t.Errorf("metadata %+v, %v", about, err)
	}
}

// kube-apiserver 1.32 and 1.33 speak v1alpha1.
func TestOlderAPIServers(t *testing.T) {
	r := serve(t, jwtsigner.Files{Held: tokentest.Key(tokentest.P256)})
	client := externaljwtalpha.NewExternalJWTSignerClient(r.conn)
	keys, err := client.FetchKeys(t.Context(), &externaljwtalpha.FetchKeysRequest{})
	if err != nil || len(keys.Keys) != 1 || keys.RefreshHintSeconds != 60 {
		t.Fatalf("%+v, %v", keys, err)
	}
	text := payload(time.Now(), time.Hour)
	signed, err := client.Sign(t.Context(), &externaljwtalpha.SignJWTRequest{Claims: text})
	if err != nil {
		t.Fatal(err)
	}
	v, err := token.NewVerifier(token.Config{Keys: r.keySet(t), Issuers: []string{issuer}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), signed.Header+"."+text+"."+signed.Signature); err != nil {
		t.Error(err)
	}
	if about, err := client.Metadata(t.Context(), &externaljwtalpha.MetadataRequest{}); err != nil || about.MaxTokenExpirationSeconds != 24*3600 {
		t.Errorf("%+v, %v", about, err)
	}
}

// held is a key in a device.
type held struct {
	crypto.Signer
	sign func(digest []byte, opts crypto.SignerOpts) ([]byte, error)
}

func (h *held) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return h.sign(digest, opts)
}

func TestKeyThatWasExchangedWhereItIsHeld(t *testing.T) {
	for name, other := range map[string]string{"one like it": tokentest.FP256, "one of another kind": tokentest.RSA} {
		t.Run(name, func(t *testing.T) {
			key := &held{Signer: tokentest.Key(tokentest.P256)}
			key.sign = func(digest []byte, opts crypto.SignerOpts) ([]byte, error) { return key.Signer.Sign(nil, digest, opts) }
			r := serve(t, jwtsigner.Files{Held: key})
			if _, err := r.sign(t, payload(time.Now(), time.Hour)); err != nil {
				t.Fatal(err)
			}
			key.sign = func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
				return tokentest.Key(other).Sign(nil, digest, opts)
			}
			if text, err := r.sign(t, payload(time.Now(), time.Hour)); status.Code(err) != codes.Unavailable {
				t.Errorf("a token that nobody takes leaves: %q, %v", text, err)
			}
		})
	}
}

func TestDeviceThatFailsAndComesBack(t *testing.T) {
	key := &held{Signer: tokentest.Key(tokentest.P256)}
	key.sign = func([]byte, crypto.SignerOpts) ([]byte, error) { return nil, errors.New("the device is away") }
	r := serve(t, jwtsigner.Files{Held: key})
	if _, err := r.sign(t, payload(time.Now(), time.Hour)); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "the device is away") {
		t.Errorf("got %v", err)
	}
	key.sign = func(digest []byte, opts crypto.SignerOpts) ([]byte, error) { return key.Signer.Sign(nil, digest, opts) }
	if _, err := r.sign(t, payload(time.Now(), time.Hour)); err != nil {
		t.Error(err)
	}
}

// A device that hangs holds up only as many calls as it has signatures at once,
// and those only as long as they want to wait.
func TestDeviceThatHangs(t *testing.T) {
	key := &held{Signer: tokentest.Key(tokentest.P256)}
	hangs, begun := make(chan struct{}), make(chan struct{}, 100)
	key.sign = func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		begun <- struct{}{}
		<-hangs
		return key.Signer.Sign(nil, digest, opts)
	}
	r := serve(t, jwtsigner.Files{Held: key})
	got := make(chan codes.Code, 20)
	for range 20 {
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			_, err := r.client.Sign(ctx, &externaljwt.SignJWTRequest{Claims: payload(time.Now(), time.Hour)})
			got <- status.Code(err)
		}()
	}
	for range 20 {
		// Those that wait for their turn may hear that from the server first.
		if code := <-got; code != codes.DeadlineExceeded && code != codes.ResourceExhausted {
			t.Errorf("a call ended with %s", code)
		}
	}
	if n := len(begun); n != 16 {
		t.Errorf("%d signatures were begun, want 16", n)
	}
	r.keySet(t) // needs no signature
	close(hangs)
	if _, err := r.sign(t, payload(time.Now(), time.Hour)); err != nil {
		t.Errorf("when it goes on: %v", err)
	}
}

func TestStopFinishesWhatWasBegun(t *testing.T) {
	key := &held{Signer: tokentest.Key(tokentest.P256)}
	begun, goOn := make(chan struct{}), make(chan struct{})
	key.sign = func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		close(begun)
		<-goOn
		return key.Signer.Sign(nil, digest, opts)
	}
	r := serve(t, jwtsigner.Files{Held: key})
	signed := make(chan error, 1)
	go func() {
		_, err := r.sign(t, payload(time.Now(), time.Hour))
		signed <- err
	}()
	<-begun
	r.stop()
	for { // nobody new is let in
		if _, err := os.Lstat(r.socket); errors.Is(err, fs.ErrNotExist) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(goOn)
	if err := <-signed; err != nil {
		t.Error(err)
	}
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
	r.ended <- nil // for the clean-up
}

func TestKeyMetrics(t *testing.T) {
	dir := t.TempDir()
	keys, err := jwtsigner.OpenKeys(jwtsigner.KeysConfig{Files: jwtsigner.Files{
		Held: tokentest.Key(tokentest.RSA), Published: []string{put(t, filepath.Join(dir, "more.pem"), publicPEM(t, tokentest.Key(tokentest.RSA), tokentest.Key(tokentest.P256)))},
		Legacy: []string{put(t, filepath.Join(dir, "legacy.pub"), publicPEM(t, tokentest.Key(tokentest.P521)))},
	}})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(jwtsigner.KeyMetrics(keys))
	all, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range all[0].Metric {
		got = append(got, m.Label[0].GetValue()+" "+m.Label[1].GetValue())
	}
	want := []string{idOf(t, tokentest.Key(tokentest.RSA)) + " signing", idOf(t, tokentest.Key(tokentest.P256)) + " published", idOf(t, tokentest.Key(tokentest.P521)) + " legacy"}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What a token costs over the socket, beside its bare signature.
func BenchmarkSign(b *testing.B) {
	for _, name := range []string{tokentest.RSA, tokentest.P256} {
		b.Run(name, func(b *testing.B) {
			r := serve(b, jwtsigner.Files{Held: tokentest.Key(name)})
			text := payload(time.Now(), time.Hour)
			for b.Loop() {
				if _, err := r.sign(b, text); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"-bare", func(b *testing.B) {
			sum := sha256.Sum256([]byte(payload(time.Now(), time.Hour)))
			for b.Loop() {
				if _, err := tokentest.Key(name).Sign(rand.Reader, sum[:], crypto.SHA256); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
