package mtls

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync/atomic"
	"time"
)

// Issuer gets certificates signed: mtls/kubesource has one for the Kubernetes
// API.
type Issuer interface {
	// Issue has a request (PKCS #10, DER) signed, and waits for it no longer than
	// ctx lives. It is called by one goroutine at a time.
	Issue(ctx context.Context, request []byte) (*Issued, error)
}

// Issued is what an [Issuer] was given.
type Issued struct {
	// Chain is the certificate, then the authorities between it and the anchor.
	Chain []*x509.Certificate
	// Bundle holds the authorities of the other side; nil: those of before.
	Bundle *Bundle
}

// Renewal says what certificate a [Renewing] shall have.
type Renewal struct {
	// Issuer signs.
	Issuer Issuer
	// Request is what is asked for, as [x509.CreateCertificateRequest] takes it: the
	// subject and the names, such as URIs. Each of them must be in the certificate.
	// It must not be changed any more.
	Request x509.CertificateRequest
	// Usage is what the certificate must be good for, as in [Files].
	Usage x509.ExtKeyUsage
	// Bundle holds the authorities of the other side until the issuer gives others;
	// nil: nobody is trusted. [Join] takes them from another source.
	Bundle *Bundle
	// After is the part of its life after which a certificate is renewed, above 0
	// and below 1; 0: two thirds.
	After float64
	// Jitter is the part of its life by which it may be renewed earlier, at random,
	// so that many programs that were started at once do not renew at once; 0: a
	// tenth, or half of After if that is less; below 0: none.
	Jitter float64
	// Timeout is how long the issuer may take; 0: 15 minutes, what a kubelet gives
	// its signer.
	Timeout time.Duration
	// MaxRetry is the longest pause after a failure; 0: 5 minutes. The first is of a
	// second, each next one is twice as long, up to a fifth less at random, and none
	// is longer than a tenth of what remains of the certificate's life.
	MaxRetry time.Duration
	// Told hears of each certificate and of each failure, in the goroutine of Run;
	// nil: nobody does.
	Told func(Renewed)
}

// Renewed tells of a certificate, or of why there is none.
type Renewed struct {
	// Certificate is the new one; nil: what was before stays.
	Certificate *x509.Certificate
	// Err is what failed.
	Err error
	// Next is when it is tried again.
	Next time.Time
}

// Renewing is a [Source] that has its certificate from an [Issuer], and another
// one, with a new key, long before it expires. It may be used by several
// goroutines.
type Renewing struct {
	config Renewal
	memory Memory
	tally  tally
	asOf   atomic.Pointer[time.Time]
	asked  chan struct{} // by Renew
	ready  chan struct{}
	failed atomic.Pointer[error] // what failed last
	runs   atomic.Bool
}

const (
	renewAfter   = 2.0 / 3
	renewJitter  = 0.1
	firstRetry   = time.Second
	issueTimeout = 15 * time.Minute // k8s.io/client-go/util/certificate, certificateWaitTimeout
	longestRetry = 5 * time.Minute
	// longestChain is far above what anybody has.
	longestChain = 10
)

// NewRenewing makes a source that has nothing until Run has it issued. The error
// says which field cannot be.
func NewRenewing(c Renewal) (*Renewing, error) {
	c.After = cmp.Or(c.After, renewAfter)
	c.Jitter = max(cmp.Or(c.Jitter, min(renewJitter, c.After/2)), 0)
	c.Timeout, c.MaxRetry = cmp.Or(c.Timeout, issueTimeout), cmp.Or(c.MaxRetry, longestRetry)
	if c.Told == nil {
		c.Told = func(Renewed) {}
	}
	switch {
	case c.Issuer == nil:
		return nil, errors.New("mtls.Renewal: Issuer is not set")
	case !(c.After > 0 && c.After < 1) || !(c.Jitter < c.After):
		return nil, errors.New("mtls.Renewal: After is not between 0 and 1, or Jitter not below it")
	case c.Timeout < 0 || c.MaxRetry < 0:
		return nil, errors.New("mtls.Renewal: Timeout or MaxRetry is below 0")
	}
	if _, _, err := makeRequest(&c.Request); err != nil {
		return nil, fmt.Errorf("mtls.Renewal: Request: %w", err)
	}
	return &Renewing{config: c, asked: make(chan struct{}, 1), ready: make(chan struct{})}, nil
}

// Snapshot returns the newest certificate, which has expired where the issuer has
// failed for long enough. Before the first it is an error, and says what has
// failed.
func (r *Renewing) Snapshot() (*Snapshot, error) {
	if s, err := r.memory.Snapshot(); err == nil {
		return s, nil
	}
	if why := r.failed.Load(); why != nil {
		return nil, fmt.Errorf("no certificate has been issued yet: %w", *why)
	}
	return nil, errors.New("no certificate has been issued yet")
}

// WaitReady waits until there is a first Snapshot, while Run runs. The error is
// that of ctx, with what has failed.
func (r *Renewing) WaitReady(ctx context.Context) error {
	select {
	case <-r.ready:
		return nil
	case <-ctx.Done():
		_, err := r.Snapshot()
		if err == nil {
			return nil
		}
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
}

// Renew asks for a new certificate now rather than when it is due, for instance
// because the authorities have changed. It does not wait for it.
func (r *Renewing) Renew() {
	select {
	case r.asked <- struct{}{}:
	default: // it is asked for
	}
}

// Status tells how the issuer fares: Failing from a failure to the next
// certificate.
func (r *Renewing) Status() Status {
	var asOf time.Time
	if at := r.asOf.Load(); at != nil {
		asOf = *at
	}
	return r.tally.status(asOf)
}

// Run has certificates issued until ctx ends, and returns nil then. It returns an
// error where it runs already.
func (r *Renewing) Run(ctx context.Context) error {
	if !r.runs.CompareAndSwap(false, true) {
		return errors.New("mtls.Renewing runs already")
	}
	defer r.runs.Store(false)
	pause := time.Duration(0) // after a failure
	for {
		snapshot, err := r.renew(ctx)
		if ctx.Err() != nil {
			return nil
		}
		now := time.Now()
		r.tally.note(err)
		var next time.Time
		if err == nil {
			pause = 0
			next = r.due(snapshot.Certificate.Leaf, now)
			r.asOf.Store(&now)
			r.isReady()
			r.config.Told(Renewed{Certificate: snapshot.Certificate.Leaf, Next: next})
		} else {
			r.failed.Store(&err)
			pause = r.retry(pause, now)
			next = now.Add(pause - time.Duration(float64(pause)/5*mathrand.Float64())) //nolint:gosec // spreads load, keeps no secret
			r.config.Told(Renewed{Err: err, Next: next})
		}
		if !r.wait(ctx, next) {
			return nil
		}
	}
}

// isReady wakes those who wait for the first certificate. Only Run calls it.
func (r *Renewing) isReady() {
	select {
	case <-r.ready:
	default:
		close(r.ready)
	}
}

// renew has one certificate issued and shows it.
func (r *Renewing) renew(ctx context.Context) (*Snapshot, error) {
	key, request, err := makeRequest(&r.config.Request)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.config.Timeout)
	defer cancel()
	issued, err := r.config.Issuer.Issue(ctx, request.Raw)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the issuer: %w", err)
	case issued == nil:
		return nil, errors.New("the issuer has given nothing")
	}
	if err := checkIssued(issued.Chain, request, r.config.Usage); err != nil {
		return nil, fmt.Errorf("what was issued is not taken: %w", err)
	}
	pair := &tls.Certificate{PrivateKey: key, Leaf: issued.Chain[0]}
	for _, c := range issued.Chain {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	s := &Snapshot{Certificate: pair, Bundle: cmp.Or(issued.Bundle, r.bundle())}
	return s, r.memory.Set(*s)
}

func (r *Renewing) bundle() *Bundle {
	if s, err := r.memory.Snapshot(); err == nil {
		return s.Bundle
	}
	return r.config.Bundle
}

// makeRequest asks for what a template says, with a key of its own. What was
// asked for is read from the request: extensions of the template count too.
func makeRequest(template *x509.CertificateRequest) (crypto.Signer, *x509.CertificateRequest, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, nil, err
	}
	request, err := x509.ParseCertificateRequest(der)
	return key, request, err
}

// due is when a certificate that was given now is to be renewed. Its life counts
// from now: signers backdate, by more than the whole life of some.
func (r *Renewing) due(c *x509.Certificate, now time.Time) time.Time {
	part := r.config.After - r.config.Jitter*mathrand.Float64() //nolint:gosec // spreads load, keeps no secret
	return now.Add(max(time.Duration(float64(c.NotAfter.Sub(now))*part), firstRetry))
}

// retry is the pause after a failure that came after a pause.
func (r *Renewing) retry(before time.Duration, now time.Time) time.Duration {
	pause := min(max(2*before, firstRetry), r.config.MaxRetry)
	if s, err := r.memory.Snapshot(); err == nil {
		if left := s.Certificate.Leaf.NotAfter.Sub(now); left > 0 {
			pause = min(pause, max(left/10, firstRetry))
		}
	}
	return pause
}

// wait waits until a time, or until somebody asks; it returns false when ctx has
// ended. It looks at the clock once a minute: timers stand still while a machine
// is suspended, and do not see that the clock was set.
func (r *Renewing) wait(ctx context.Context, until time.Time) bool {
	for until = until.Round(0); ; {
		left := until.Sub(time.Now().Round(0))
		if left <= 0 {
			return true
		}
		timer := time.NewTimer(min(left, time.Minute))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-r.asked:
			timer.Stop()
			return true
		case <-timer.C:
		}
	}
}
