package tokenhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// maxDocument is how large what an issuer publishes may be, in bytes.
const maxDocument = 1 << 20

// fetchTimeout bounds one exchange.
const fetchTimeout = 10 * time.Second

// Fetch gets a document of an issuer: over https alone, redirections included,
// for whoever can change it can make tokens. The client may be nil: one that
// trusts the authorities of the system. The error names the URL.
func Fetch(ctx context.Context, client *http.Client, from string) ([]byte, error) {
	u, err := url.Parse(from)
	if err != nil {
		return nil, errors.New("the URL of the keys does not parse") // it may hold a password
	}
	data, err := fetch(ctx, client, u)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u.Redacted(), err)
	}
	return data, nil
}

func fetch(ctx context.Context, client *http.Client, from *url.URL) ([]byte, error) {
	if err := secure(from); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from.String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json, application/jwk-set+json")
	answer, err := securely(client).Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the URL is named already
		}
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }() // it was only read
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %s", answer.Status)
	}
	data, err := io.ReadAll(io.LimitReader(answer.Body, maxDocument+1))
	if err == nil && len(data) > maxDocument {
		err = fmt.Errorf("larger than %d bytes", maxDocument)
	}
	return data, err
}

func secure(u *url.URL) error {
	if u.Scheme != "https" || u.Host == "" {
		return errors.New("not https: whoever is between could put keys of his own there")
	}
	if u.User != nil {
		return errors.New("there is a user in the URL: leave it out, keys are for everybody")
	}
	return nil
}

// securely returns a client that follows a redirection to https alone, and to
// nobody who might ask for a credential of the URL.
func securely(client *http.Client) *http.Client {
	c := http.Client{}
	if client != nil {
		c = *client
	}
	before := c.CheckRedirect
	c.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if err := secure(r.URL); err != nil {
			return err
		}
		if before != nil {
			return before(r, via)
		}
		if len(via) >= 5 {
			return errors.New("redirected too often")
		}
		return nil
	}
	return &c
}
