package kube

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// maxAnswer bounds one answer of the API server, in bytes: a page of the largest
// objects that etcd takes is smaller. maxPages bounds one list.
const (
	maxAnswer = 256 << 20
	maxPages  = 400
)

// metadataOnly asks for objects without what they hold.
const metadataOnly = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

// getter asks an API server for objects in JSON. Only GET is ever asked.
type getter struct {
	client  *http.Client
	base    *url.URL
	timeout time.Duration
}

func newGetter(config *rest.Config, timeout time.Duration) (*getter, error) {
	config = rest.CopyConfig(config)
	config.Timeout = 0 // each request has its own
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: server: %w", err)
	}
	shared, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	client := *shared // it may be that of net/http
	// A redirect would take the request to whom nobody has named.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &getter{client: &client, base: base, timeout: timeout}, nil
}

// answerError is an answer other than 200.
type answerError struct {
	code          int
	message       string
	continueToken string // of 410 Gone
}

// Error says what the API server says, shortened.
func (e *answerError) Error() string {
	text := strconv.Itoa(e.code) + " " + http.StatusText(e.code)
	if e.message != "" {
		text += ": " + e.message
	}
	return text
}

// absent tells of an object, or a kind of object, that is not there.
func absent(err error) bool {
	var status *answerError
	return errors.As(err, &status) && status.code == http.StatusNotFound
}

// get reads JSON into a value, nil: what is answered does not matter. It returns
// what the server presented.
func (g *getter) get(ctx context.Context, path string, q url.Values, accept string, into any) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	u := *g.base
	u.Path, u.RawPath, u.RawQuery = strings.TrimSuffix(u.Path, "/")+path, "", q.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if accept == "" {
		accept = "application/json"
	}
	request.Header.Set("Accept", accept)
	response, err := g.client.Do(request)
	if err != nil {
		return nil, g.plain(ctx, err)
	}
	defer func() { _ = response.Body.Close() }()
	var chain []*x509.Certificate
	if response.TLS != nil {
		chain = response.TLS.PeerCertificates
	}
	body := &io.LimitedReader{R: response.Body, N: maxAnswer}
	if response.StatusCode != http.StatusOK {
		return chain, readStatus(response.StatusCode, body)
	}
	if into == nil {
		return chain, nil
	}
	if err := json.NewDecoder(body).Decode(into); err != nil {
		if body.N <= 0 {
			return chain, fmt.Errorf("its answer is larger than %d bytes", maxAnswer)
		}
		if ctx.Err() != nil {
			return chain, g.plain(ctx, ctx.Err())
		}
		return chain, errors.New("its answer is not the JSON that was asked for")
	}
	return chain, nil
}

// plain takes the request's URL out of an error, and names a timeout.
func (g *getter) plain(ctx context.Context, err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		err = of.Err
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s", g.timeout)
	}
	return err
}

func readStatus(code int, body io.Reader) error {
	const most = 64 << 10
	e := &answerError{code: code}
	var status metav1.Status
	if data, err := io.ReadAll(io.LimitReader(body, most)); err == nil && json.Unmarshal(data, &status) == nil {
		e.message, e.continueToken = shortened(status.Message), status.Continue
	}
	return e
}

// shortened cuts what others wrote to what a line can hold.
func shortened(text string) string {
	const most = 300
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// list is one page of objects.
type list[T any] struct {
	metav1.ListMeta `json:"metadata"`
	Items           []T `json:"items"`
}

// eachPage calls each with page after page of objects, and returns how many there
// were.
func eachPage[T any](ctx context.Context, g *getter, path string, q url.Values, size int, accept string, each func([]T)) (int, error) {
	count := 0
	q.Set("limit", strconv.Itoa(size))
	for range maxPages {
		var page list[T]
		_, err := g.get(ctx, path, q, accept, &page)
		var status *answerError
		if errors.As(err, &status) && status.code == http.StatusGone && status.continueToken != "" {
			q.Set("continue", status.continueToken)
			continue
		}
		if err != nil {
			return count, err
		}
		count += len(page.Items)
		each(page.Items)
		if page.Continue == "" {
			return count, nil
		}
		q.Set("continue", page.Continue)
	}
	return count, fmt.Errorf("there are more than the %d that were looked at", count)
}
