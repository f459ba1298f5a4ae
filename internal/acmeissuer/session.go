package acmeissuer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	"github.com/mholt/acmez/v3/acme"

	"github.com/kubepki/kubepki/internal/trust"
)

const (
	// maxAnswer bounds what is read of one answer of a server, in bytes: a chain of
	// certificates is the largest.
	maxAnswer = 1 << 20
	// maxDirectory bounds the directory alike.
	maxDirectory = 64 << 10
	// requestTimeout bounds one request, its answer included.
	requestTimeout = 30 * time.Second
)

// session is one account at one server.
type session struct {
	client  *acme.Client
	account acme.Account
	// directory is what the server offers.
	directory acme.Directory
	// full is a client that knows of renewal information, which [session.client] does
	// not: the library would ask for it with each chain that it fetches.
	full *acme.Client

	settings [32]byte
	opened   time.Time
}

// open reads the directory of an issuer's server. The account is not asked for.
func open(ctx context.Context, config *cmacme.ACMEIssuer, key crypto.Signer, agent string, now time.Time) (*session, error) {
	base, err := transportFor(config)
	if err != nil {
		return nil, err
	}
	s := &session{account: acme.Account{PrivateKey: key}, settings: settingsOf(config), opened: now}
	if err := s.readDirectory(ctx, base, config.Server); err != nil {
		return nil, err
	}
	without := s.directory
	without.RenewalInfo = ""
	if s.client, err = s.library(base, config.Server, without, agent); err != nil {
		return nil, err
	}
	s.full, err = s.library(base, config.Server, s.directory, agent)
	return s, err
}

// settingsOf sums up what a session depends on.
func settingsOf(c *cmacme.ACMEIssuer) [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%q %t %q", c.Server, c.SkipTLSVerify, c.CABundle))
}

// readDirectory reads what a server offers, before the library does: it would hold a
// lock of the whole process while it waits, so that one Issuer with a server that
// does not answer would hold up all others, and it would keep what came for twelve
// hours for every Issuer of that address, whomever that one trusts.
func (s *session) readDirectory(ctx context.Context, base http.RoundTripper, server string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server, nil)
	if err != nil {
		return told(fmt.Sprintf("spec.acme.server %q is no URL", server))
	}
	client := &http.Client{Transport: base, Timeout: requestTimeout, CheckRedirect: onlyHTTPS}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answers its directory with HTTP %d", response.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, maxDirectory+1))
	if err != nil {
		return err
	}
	if len(data) > maxDirectory || json.Unmarshal(data, &s.directory) != nil {
		return errors.New("what spec.acme.server answers is no directory of ACME")
	}
	for _, u := range []string{s.directory.NewNonce, s.directory.NewAccount, s.directory.NewOrder} {
		if parsed, err := url.Parse(u); err != nil || parsed.Scheme != "https" || parsed.Host == "" {
			return errors.New("the directory of the server lacks newNonce, newAccount or newOrder, as URLs of https")
		}
	}
	return nil
}

// onlyHTTPS follows a few redirects, and never one to another scheme.
func onlyHTTPS(r *http.Request, via []*http.Request) error {
	if len(via) > 3 || r.URL.Scheme != "https" {
		return http.ErrUseLastResponse
	}
	return nil
}

// library makes a client of the library that takes the directory from memory. What it
// keeps for all clients it keeps by the directory's URL: a fragment, which is never
// sent, makes that differ where the directory or the trust does.
func (s *session) library(base http.RoundTripper, server string, d acme.Directory, agent string) (*acme.Client, error) {
	body, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append(s.settings[:], body...))
	return &acme.Client{
		Directory: server + "#" + hex.EncodeToString(sum[:16]),
		HTTPClient: &http.Client{
			Transport:     &transport{base: base, server: server, directory: body},
			Timeout:       requestTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		UserAgent: agent,
		// One never waits in the library: [Orders.Step] comes again.
		PollTimeout: time.Nanosecond,
	}, nil
}

// transport answers for the directory, bounds what is read, and keeps Retry-After.
type transport struct {
	base      http.RoundTripper
	server    string
	directory []byte
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	bare := *r.URL
	bare.Fragment = ""
	if r.Method == http.MethodGet && bare.String() == t.server {
		return &http.Response{
			StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
			Header: http.Header{"Content-Type": {"application/json"}},
			Body:   io.NopCloser(bytes.NewReader(t.directory)), ContentLength: int64(len(t.directory)),
		}, nil
	}
	if r.URL.Scheme != "https" {
		return nil, errors.New("the server names an address that is not of https")
	}
	response, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if h, ok := r.Context().Value(hintKey{}).(*hint); ok {
		h.retryAfter = retryAfter(response.Header.Get("Retry-After"))
	}
	response.Body = http.MaxBytesReader(nil, response.Body, maxAnswer)
	return response, nil
}

// hint is what the server last said of when to come again; 0: nothing.
type hint struct{ retryAfter time.Duration }

type hintKey struct{}

func withHint(ctx context.Context) (context.Context, *hint) {
	h := &hint{}
	return context.WithValue(ctx, hintKey{}, h), h
}

func retryAfter(text string) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(max(min(seconds, int(longestWait/time.Second)), 0)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(time.Until(at), 0), longestWait)
	}
	return 0
}

// transportFor trusts what an issuer says.
func transportFor(config *cmacme.ACMEIssuer) (*http.Transport, error) {
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: requestTimeout, IdleConnTimeout: time.Minute,
		MaxIdleConnsPerHost: 4, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: config.SkipTLSVerify}, // #nosec G402 -- spec.acme.skipTLSVerify, which the condition Ready says aloud
	}
	if len(config.CABundle) > 0 {
		anchors, err := trust.ParseCertificates(config.CABundle)
		if err != nil || len(anchors) == 0 {
			return nil, told("spec.acme.caBundle holds no certificates in PEM")
		}
		pool := x509.NewCertPool()
		for _, a := range anchors {
			pool.AddCert(a)
		}
		t.TLSClientConfig.RootCAs = pool
	}
	return t, nil
}
