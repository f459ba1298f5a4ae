package signer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/kmsproto"
)

// kmsTimeout bounds one exchange with kubepki-kms; it is longer than what
// kubepki-kms gives a device, so that its answer names the cause.
const kmsTimeout = 15 * time.Second

// KMS gives the authority of a certificate whose key is held by kubepki-kms,
// which listens at a unix socket and knows the key by a name. The certificate's
// file is as for [Files]; when it changes, the key is asked for anew, and both
// are taken up together.
//
// Signatures fail while kubepki-kms is away, and go on when it is back.
func KMS(socket, name, certificate string, told Told) (*Reloaded, error) {
	c := newKMSClient(socket)
	if err := c.shakeHands(); err != nil {
		return nil, err
	}
	return newReloaded([]string{certificate}, func(contents [][]byte) (issue.Authority, error) {
		public, err := c.publicKey(name)
		if err != nil {
			return issue.Authority{}, err
		}
		file, err := certificates(certificate, contents[0], public)
		if err != nil {
			return issue.Authority{}, err
		}
		return issue.Authority{Certificate: file[0], Key: &remoteKey{c, name, public}, Chain: issue.ChainOf(file)}, nil
	}, told)
}

// Key gives a key that kubepki-kms holds, by the name that it has there: to make
// the certificate of an authority whose key it shall be.
func Key(socket, name string) (crypto.Signer, error) {
	c := newKMSClient(socket)
	if err := c.shakeHands(); err != nil {
		return nil, err
	}
	public, err := c.publicKey(name)
	if err != nil {
		return nil, err
	}
	return &remoteKey{c, name, public}, nil
}

// remoteKey is a key of kubepki-kms. It may be used by several goroutines.
type remoteKey struct {
	client *kmsClient
	name   string
	public crypto.PublicKey
}

// Public returns the public half, as it was when the key was asked for.
func (k *remoteKey) Public() crypto.PublicKey { return k.public }

// Sign has a digest signed. The source of randomness is that of the device.
func (k *remoteKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	q := kmsproto.SignRequest{Key: k.name, Digest: digest}
	for name, h := range kmsproto.Hashes() {
		if opts != nil && opts.HashFunc() == h {
			q.Hash = name
		}
	}
	if q.Hash == "" {
		return nil, errors.New("kubepki-kms signs digests of SHA-256, SHA-384 and SHA-512 alone: the authority's key is of no other use")
	}
	if pss, ok := opts.(*rsa.PSSOptions); ok {
		q.PSS = &kmsproto.PSS{SaltLength: pss.SaltLength}
	}
	var answer kmsproto.SignResponse
	if err := k.client.call(http.MethodPost, kmsproto.SignPath, q, &answer); err != nil {
		return nil, err
	}
	if len(answer.Signature) == 0 {
		return nil, fmt.Errorf("kubepki-kms at %s: key %q: the answer holds no signature", k.client.socket, k.name)
	}
	return answer.Signature, nil
}

type kmsClient struct {
	socket string
	http   *http.Client
}

func newKMSClient(socket string) *kmsClient {
	dialer := &net.Dialer{Timeout: kmsTimeout}
	return &kmsClient{socket, &http.Client{Timeout: kmsTimeout, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute, DisableCompression: true,
	}}}
}

func (c *kmsClient) shakeHands() error {
	var about kmsproto.About
	if err := c.call(http.MethodGet, kmsproto.AboutPath, nil, &about); err != nil {
		return err
	}
	if !slices.Contains(about.Versions, kmsproto.Version) {
		return fmt.Errorf("kubepki-kms at %s speaks %q, not %s: use kubepki and kubepki-kms of one release", c.socket, about.Versions, kmsproto.Version)
	}
	return nil
}

func (c *kmsClient) publicKey(name string) (crypto.PublicKey, error) {
	var key kmsproto.Key
	if err := c.call(http.MethodGet, kmsproto.KeyPath+url.PathEscape(name), nil, &key); err != nil {
		return nil, err
	}
	public, err := x509.ParsePKIXPublicKey(key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("kubepki-kms at %s: key %q: %w", c.socket, name, err)
	}
	switch public.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
		return public, nil
	}
	return nil, fmt.Errorf("kubepki-kms at %s: key %q is of type %T: use RSA or ECDSA", c.socket, name, public)
}

// call makes one exchange. Asking twice for a signature does no harm, so a
// connection that died while it was idle is replaced, POST or not.
func (c *kmsClient) call(method, path string, question, answer any) error {
	var body io.Reader // none for GET
	if question != nil {
		data, err := json.Marshal(question)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	ctx, cancel := context.WithTimeout(context.Background(), kmsTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://kubepki-kms"+path, body)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", kmsproto.MediaType)
	r.Header["Idempotency-Key"] = nil // net/http: may be sent again, and is not sent itself
	response, err := c.http.Do(r)
	if err != nil {
		return fmt.Errorf("kubepki-kms at %s: %w", c.socket, withoutURL(err))
	}
	defer func() { _ = response.Body.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(response.Body, kmsproto.MaxBody))
	if err != nil {
		return fmt.Errorf("kubepki-kms at %s: %w", c.socket, err)
	}
	if response.StatusCode != http.StatusOK {
		failure := &kmsproto.Error{}
		if json.Unmarshal(data, failure) != nil || failure.Code == "" {
			return fmt.Errorf("kubepki-kms at %s: answers %s to %s: it is something else that listens there", c.socket, response.Status, path)
		}
		return fmt.Errorf("kubepki-kms at %s: %w", c.socket, failure)
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("kubepki-kms at %s: %w", c.socket, err)
	}
	return nil
}

// withoutURL drops the made-up URL of a request from its error.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
