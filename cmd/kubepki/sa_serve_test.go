package main

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/saserver"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/token"
)

const servedIssuer = "https://tokens.example.test/east"

// served is a running kubepki sa serve with its files.
type served struct {
	t            *testing.T
	dir, issuer  string
	ca           issue.Authority
	signer       *token.Signer
	url, metrics string
	process      *exec.Cmd
	ended        chan error

	mu  sync.Mutex
	log bytes.Buffer
}

func (s *served) path(name string) string { return filepath.Join(s.dir, name) }

func (s *served) write(name string, data []byte) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), data, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *served) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// key makes a key of service accounts, with its PEM.
func (s *served) key() (*token.Signer, []byte) {
	s.t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	s.check(err)
	signer, err := token.NewSigner(key)
	s.check(err)
	data, err := issue.EncodePrivateKey(key)
	s.check(err)
	return signer, data
}

// leaf makes a certificate for loopback, and writes it as a pair of files.
func (s *served) leaf(name string, usage x509.ExtKeyUsage) tls.Certificate {
	s.t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	s.check(err)
	now := time.Now()
	c, err := issue.Sign(issue.Template{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"}, Usages: []x509.ExtKeyUsage{usage}, NotBefore: now.Add(-issue.Backdate), NotAfter: now.Add(time.Hour),
	}, key.Public(), s.ca)
	s.check(err)
	data, err := issue.EncodePrivateKey(key)
	s.check(err)
	s.write(name+".crt", trust.EncodeCertificates(c))
	s.write(name+".key", data)
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: crypto.PrivateKey(key), Leaf: c}
}

// authority makes the one of servers and clients.
func (s *served) authority() {
	s.t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	s.check(err)
	now := time.Now()
	root, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: "ca"}, Authority: true, NotBefore: now.Add(-issue.Backdate), NotAfter: now.Add(time.Hour)}, key)
	s.check(err)
	s.ca = issue.Authority{Certificate: root, Key: key}
	s.write("ca.crt", trust.EncodeCertificates(root))
}

// startServing makes the files and starts the program, as a user would.
func startServing(t *testing.T, issuer string, flags ...string) *served {
	t.Helper()
	s := &served{t: t, issuer: issuer, dir: t.TempDir(), ended: make(chan error, 1)}
	s.authority()
	s.leaf("server", x509.ExtKeyUsageServerAuth)
	signer, private := s.key()
	s.signer = signer
	s.write("sa.key", private) // a private one: nothing of it may come out

	args := append([]string{
		"sa", "serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--key", s.path("sa.key"), "--issuer", issuer,
		"--tls-cert-file", s.path("server.crt"), "--tls-private-key-file", s.path("server.key"),
	}, flags...)
	for i, a := range args {
		args[i] = strings.ReplaceAll(a, "DIR", s.dir)
	}
	s.process = exec.Command("kubepki", args...)
	s.process.Env = environment()
	talk, err := s.process.StderrPipe()
	s.check(err)
	s.check(s.process.Start())
	t.Cleanup(func() { s.process.Process.Kill() })
	addresses := make(chan [2]string, 2)
	go s.follow(talk, addresses)
	for range 2 {
		select {
		case a := <-addresses:
			switch a[0] {
			case "serving":
				s.url = "https://" + a[1]
			case "metrics":
				s.metrics = "http://" + a[1]
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("it does not serve: %s", s.logged())
		}
	}
	return s
}

// follow reads the log, and tells the addresses in it.
func (s *served) follow(talk io.Reader, addresses chan<- [2]string) {
	lines := bufio.NewScanner(talk)
	for lines.Scan() {
		s.mu.Lock()
		s.log.Write(append(lines.Bytes(), '\n'))
		s.mu.Unlock()
		var line struct{ Msg, Address string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Address != "" {
			addresses <- [2]string{line.Msg, line.Address}
		}
	}
	s.ended <- s.process.Wait()
}

func (s *served) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// client shows a certificate if one is given.
func (s *served) client(show ...tls.Certificate) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(s.ca.Certificate)
	config := &tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: show}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}, Timeout: 10 * time.Second}
}

// page is what was answered, and the number of the certificate that was shown.
type page struct {
	status       int
	header       http.Header
	body, serial string
}

func (s *served) get(c *http.Client, url string) page {
	s.t.Helper()
	answer, err := c.Get(url)
	s.check(err)
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	s.check(err)
	p := page{status: answer.StatusCode, header: answer.Header, body: string(data)}
	if answer.TLS != nil {
		p.serial = answer.TLS.PeerCertificates[0].SerialNumber.String()
	}
	return p
}

func (s *served) token(signer *token.Signer) string {
	s.t.Helper()
	now := time.Now()
	text, err := signer.Sign(token.Claims{
		Issuer: s.issuer, Audiences: []string{s.issuer}, Expires: now.Add(time.Hour), IssuedAt: now, NotBefore: now,
		Namespace: "ci", ServiceAccount: token.Ref{Name: "robot", UID: "6f5c0c2e"},
	})
	s.check(err)
	return text
}

// review asks about a token; the status is that of HTTP.
func (s *served) review(c *http.Client, text string) (status int, body string) {
	s.t.Helper()
	q := fmt.Sprintf(`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":%q}}`, text)
	answer, err := c.Post(s.url+"/tokenreview", "application/json", strings.NewReader(q))
	s.check(err)
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	s.check(err)
	return answer.StatusCode, string(data)
}

// soon waits until something is so.
func (s *served) soon(what string, so func() bool) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); !so(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s: not so; the log: %s", what, s.logged())
		}
	}
}

func (s *served) stop() {
	s.t.Helper()
	s.check(s.process.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-s.ended:
		if err != nil || !strings.Contains(s.logged(), `"stopping: `) || !strings.Contains(s.logged(), `"stopped"`) {
			s.t.Errorf("%v: %s", err, s.logged())
		}
	case <-time.After(20 * time.Second):
		s.t.Fatal("it does not end")
	}
}

func TestServedDocumentsAreThoseOfOut(t *testing.T) {
	s := startServing(t, servedIssuer)
	runKubepki(t, "sa", "serve", "--out", s.path("www"), "--key", s.path("sa.key"), "--issuer", servedIssuer)
	for path, mediaType := range map[string]string{"/east/.well-known/openid-configuration": "application/json", "/east/openid/v1/jwks": "application/jwk-set+json"} {
		file, err := os.ReadFile(s.path("www" + path))
		s.check(err)
		got := s.get(s.client(), s.url+path)
		if got.body != string(file) || got.header.Get("Content-Type") != mediaType || got.header.Get("Cache-Control") != "public, max-age=3600" {
			t.Errorf("%s: %+v", path, got)
		}
		if strings.Contains(got.body, `"d"`) {
			t.Error("a private key is published")
		}
	}
	if !strings.Contains(s.logged(), "whoever reaches this server can try tokens") {
		t.Errorf("no warning: %s", s.logged())
	}
	s.stop()
}

func TestServedReviewsFollowTheFiles(t *testing.T) {
	s := startServing(t, servedIssuer, "--client-ca-file", "DIR/ca.crt", "--allowed-name", "west", "--username-prefix", "east:", "--groups-prefix", "east:", "--log-level", "debug")
	west := s.client(s.leaf("west", x509.ExtKeyUsageClientAuth))
	before := s.token(s.signer)
	if status, body := s.review(west, before); status != 200 || !strings.Contains(body, `"username":"east:system:serviceaccount:ci:robot"`) {
		t.Fatalf("%d %s", status, body)
	}
	if status, _ := s.review(s.client(s.leaf("other", x509.ExtKeyUsageClientAuth)), before); status != 403 {
		t.Errorf("another client: %d", status)
	}
	if status, _ := s.review(s.client(), before); status != 401 {
		t.Errorf("no client: %d", status)
	}

	// A file half written changes nothing; the new key takes the place of the old.
	next, private := s.key()
	after := s.token(next)
	s.write("sa.key", private[:len(private)/2])
	s.soon("the half is refused", func() bool {
		if _, body := s.review(west, before); !strings.Contains(body, `"authenticated":true`) {
			t.Fatalf("the token of before: %s", body)
		}
		return strings.Contains(s.logged(), "changed keys were not taken up")
	})
	s.write("new.key", private)
	s.check(os.Rename(s.path("new.key"), s.path("sa.key")))
	s.soon("the token of the new key is accepted", func() bool {
		_, body := s.review(west, after)
		return strings.Contains(body, `"authenticated":true`)
	})
	if _, body := s.review(west, before); strings.Contains(body, `"authenticated":true`) || !strings.Contains(body, "the token is refused") {
		t.Errorf("the token of the key of before: %s", body) // remembered or not
	}

	figures := s.get(http.DefaultClient, s.metrics+"/metrics").body
	for _, want := range []string{
		`kubepki_reloads_total{result="refused",what="keys"} 1`, `kubepki_reloads_total{result="taken-up",what="keys"} 1`,
		`kubepki_token_reviews_total{reason="caller",result="rejected"} 2`, `kubepki_token_reviews_total{reason="key-unknown",result="refused"}`,
		"kubepki_token_keys 1", "kubepki_serving_certificate_not_after_seconds ", "kubepki_token_review_seconds_count ",
	} {
		if !strings.Contains(figures, want) {
			t.Errorf("no %s in %s", want, figures)
		}
	}
	if ready := s.get(http.DefaultClient, s.metrics+"/readyz"); ready.body != "ok\n" {
		t.Errorf("ready: %+v", ready)
	}
	s.stop()
	for _, text := range []string{before, after} {
		if _, signature, _ := strings.Cut(text[strings.Index(text, ".")+1:], "."); strings.Contains(s.logged(), signature) {
			t.Error("the log holds a token")
		}
	}
}

func TestServedCertificateFollowsItsFiles(t *testing.T) {
	s := startServing(t, servedIssuer, "--cache-ttl", "0", "--issuer", "https://also.example.test")
	standing := s.client()
	serial := func(c *http.Client) string { return s.get(c, s.url+"/openid/v1/jwks").serial }
	before := serial(standing)
	s.leaf("server", x509.ExtKeyUsageServerAuth)
	s.soon("the new certificate is shown", func() bool { return serial(s.client()) != before })
	if serial(standing) != before {
		t.Error("the connection of before was dropped")
	}
	s.stop()
}

// A client that shows its certificate to each server gets what everybody gets, and
// no review.
func TestUnrelatedClientGetsTheDocuments(t *testing.T) {
	s := startServing(t, servedIssuer, "--client-ca-file", "DIR/ca.crt")
	foreign := &served{t: t, dir: t.TempDir()}
	foreign.authority()
	stranger := foreign.leaf("stranger", x509.ExtKeyUsageClientAuth)
	c := s.client(stranger)
	c.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &stranger, nil }
	for range 2 {
		if got := s.get(c, s.url+"/east/openid/v1/jwks"); got.status != 200 {
			t.Errorf("the keys: %+v", got)
		}
		if status, body := s.review(c, s.token(s.signer)); status != 403 {
			t.Errorf("a review: %d %s", status, body)
		}
		c.CloseIdleConnections()
	}
	s.stop()
}

// Connections that do nothing keep nobody away: the oldest of them goes for who comes.
// Health has a listener of its own.
func TestIdleConnectionsStarveNobody(t *testing.T) {
	s := startServing(t, servedIssuer, "--review=false")
	var idle []net.Conn
	for range saserver.MaxConnections {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "https://"))
		s.check(err)
		defer c.Close()
		idle = append(idle, c)
	}
	if got := s.get(s.client(), s.url+"/openid/v1/jwks"); got.status != 200 {
		t.Errorf("beside them: %+v", got)
	}
	s.check(idle[0].SetReadDeadline(time.Now().Add(30 * time.Second)))
	if _, err := idle[0].Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("there is no bound: the oldest stays: %v", err)
	}
	if ready := s.get(http.DefaultClient, s.metrics+"/readyz"); ready.body != "ok\n" {
		t.Errorf("ready: %+v", ready)
	}
}

// A file that is put right with what it held before is as good as a new one.
func TestMendedFileIsToldOf(t *testing.T) {
	s := startServing(t, servedIssuer)
	before, err := os.ReadFile(s.path("sa.key"))
	s.check(err)
	ask := func(want string) func() bool {
		return func() bool {
			s.get(s.client(), s.url+"/openid/v1/jwks")
			return strings.Contains(s.logged(), want)
		}
	}
	s.write("sa.key", []byte("broken"))
	s.soon("it is told of", ask(`"changed keys were not taken up"`))
	s.write("sa.key", before)
	s.soon("it is mended", ask(`"changed keys were taken up"`))
	if figures := s.get(http.DefaultClient, s.metrics+"/metrics").body; !strings.Contains(figures, `kubepki_reloads_total{result="taken-up",what="keys"} 1`) {
		t.Error(figures)
	}
	s.stop()
}

// Old clusters have issuers that are no URLs.
func TestIssuerThatNobodyDiscoversIsReviewed(t *testing.T) {
	s := startServing(t, "kubernetes.default.svc")
	if got := s.get(s.client(), s.url+"/.well-known/openid-configuration"); got.status != 404 {
		t.Errorf("its metadata: %+v", got)
	}
	if _, body := s.review(s.client(), s.token(s.signer)); !strings.Contains(body, `"authenticated":true`) {
		t.Errorf("its token: %s", body)
	}
	if !strings.Contains(s.logged(), "the issuer cannot be discovered") {
		t.Errorf("no warning: %s", s.logged())
	}
	s.stop()
}

// kubeadm's issuer is a URL, and one that others do not reach.
func TestIssuerInsideOfTheClusterIsWarnedOf(t *testing.T) {
	s := startServing(t, "https://kubernetes.default.svc.cluster.local")
	if got := s.get(s.client(), s.url+"/.well-known/openid-configuration"); got.status != 200 {
		t.Errorf("its metadata: %+v", got)
	}
	if !strings.Contains(s.logged(), "others cannot find the documents") {
		t.Errorf("no warning: %s", s.logged())
	}
	s.stop()
}
