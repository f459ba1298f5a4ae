package csr

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// How long a certificate lives, as k/k pkg/controller/certificates/signer/
// signer.go has it: a wish for less than leastLife is one for leastLife,
// and backdating does not shorten a life below shortLife.
const (
	leastLife = 10 * time.Minute
	shortLife = 8 * time.Hour
)

// UnsignableError tells that a request will never be signed as it stands, so
// that trying again is of no use. The condition that says so in the Kubernetes
// API is Failed, with the reason SignerValidationFailure.
type UnsignableError struct{ Message string }

// Error returns the message, which is fit for the requester's eyes.
func (e *UnsignableError) Error() string { return e.Message }

func unsignable(format string, args ...any) error {
	return &UnsignableError{Message: fmt.Sprintf(format, args...)}
}

// Sign makes the certificate that an approved request asks for, in PEM: the
// leaf, then the chain of the authority. Whether the request is approved is for
// the caller to know.
//
// The life is the shortest of what is asked for, of maximum, which must be
// positive, and of what is left of the authority and its chain; it is backdated
// by [issue.Backdate] as kube-controller-manager does it (k/k pkg/controller/
// certificates/authority/policies.go). Subject and alternative names are those
// of the request, usages those of its object; no extension is copied.
//
// The error is an [UnsignableError] where the request is to blame; any other
// may pass. Sign may be called by several goroutines at once.
func Sign(r Request, a issue.Authority, maximum time.Duration, now time.Time) ([]byte, error) {
	s, err := readSignable(r)
	if err != nil {
		return nil, err
	}
	if a.Certificate == nil {
		return nil, errors.New("there is no authority to sign with")
	}
	if trust.SameKey(s.request.PublicKey, a.Certificate.PublicKey) {
		return nil, unsignable("the request is made with the key of the authority")
	}
	t := s.template
	if t.NotBefore, t.NotAfter, err = signedLife(r.ExpirationSeconds, a, maximum, now); err != nil {
		return nil, err
	}
	if t.Serial, err = issue.NewLongSerial(); err != nil {
		return nil, err
	}
	c, err := issue.Sign(t, s.request.PublicKey, a)
	if err != nil {
		return nil, err
	}
	return trust.EncodeCertificates(append([]*x509.Certificate{c}, a.Chain...)...), nil
}

// signedLife returns the bounds of a certificate's life.
func signedLife(asked *int32, a issue.Authority, maximum time.Duration, now time.Time) (notBefore, notAfter time.Time, err error) {
	if maximum <= 0 {
		return notBefore, notAfter, fmt.Errorf("a life of at most %s leaves nothing to sign", maximum)
	}
	end := a.Certificate.NotAfter
	for _, c := range a.Chain {
		if c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	if !now.Before(end) {
		return notBefore, notAfter, fmt.Errorf("authority %q, or one above it, expired at %s", a.Certificate.Subject, end.UTC().Format(time.RFC3339))
	}
	d := maximum
	if asked != nil {
		d = min(max(time.Duration(*asked)*time.Second, leastLife), maximum)
	}
	notAfter = now.Add(d)
	if d >= shortLife {
		notAfter = now.Add(d - issue.Backdate)
	}
	if notAfter.After(end) {
		notAfter = end
	}
	return now.Add(-issue.Backdate), notAfter, nil
}
