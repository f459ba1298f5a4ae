package join

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/certificate/csr"
	"k8s.io/klog/v2"

	"github.com/kubepki/kubepki/internal/trust"
)

// How often a waiting client looks at its request, beside the watch, to tell
// what it waits for. Ten thousand of them are to be bearable.
const (
	firstLook = 3 * time.Second
	nextLook  = 30 * time.Second
)

// obtain asks for a certificate and waits for it. The key inUse is not asked
// with again. It returns the name of the request, too.
func (c *client) obtain(ctx context.Context, config *rest.Config, id Identity, inUse crypto.PublicKey) (*pair, string, error) {
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, "", fmt.Errorf("making a client for %s: %w", config.Host, err)
	}
	key, name, err := c.keyAndName(ctx, api, id, inUse)
	if err != nil {
		return nil, name, err
	}
	uid, err := c.send(ctx, api, config.Host, key, name, id)
	if err != nil {
		return nil, name, err
	}
	certificate, err := c.await(ctx, api, name, uid)
	if err != nil {
		return nil, name, err
	}
	chain, err := trust.ParseCertificates(certificate)
	if err != nil {
		return nil, name, fmt.Errorf("request %s: the certificate that was issued: %w", name, err)
	}
	p := &pair{key: key, chain: chain}
	if err := p.check(id, time.Now()); err != nil {
		return nil, name, fmt.Errorf("request %s: the certificate that was issued cannot be used: %w", name, err)
	}
	return p, name, nil
}

// keyAndName takes up the key of an interrupted run, unless its request has
// come to an end that no certificate can come of.
func (c *client) keyAndName(ctx context.Context, api kubernetes.Interface, id Identity, inUse crypto.PublicKey) (crypto.Signer, string, error) {
	key, fresh, err := c.store.pendingKey(inUse)
	if err != nil {
		return nil, "", err
	}
	name, err := requestName(key.Public(), id)
	if err != nil || fresh {
		return key, name, err
	}
	old, err := api.CertificatesV1().CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
	switch {
	case err != nil:
		return key, name, nil //nolint:nilerr // not there, or sending it will say
	case spent(old, time.Now()):
		c.say("request %s gave a certificate that has expired: asking with a new key", name)
		if err := c.store.disk.remove(c.store.pending()); err != nil {
			return nil, name, err
		}
		return c.keyAndName(ctx, api, id, inUse)
	}
	c.say("going on with request %s of %s", name, date(old.CreationTimestamp.Time))
	return key, name, nil
}

// spent tells whether what a request gave is of no use any more.
func spent(r *certificatesv1.CertificateSigningRequest, now time.Time) bool {
	if len(r.Status.Certificate) == 0 {
		return false
	}
	chain, err := trust.ParseCertificates(r.Status.Certificate)
	return err != nil || now.After(chain[0].NotAfter)
}

// send sends the request, or finds it there.
func (c *client) send(ctx context.Context, api kubernetes.Interface, server string, key crypto.Signer, name string, id Identity) (types.UID, error) {
	der, err := cert.MakeCSRFromTemplate(key, &x509.CertificateRequest{Subject: *id.subject()})
	if err != nil {
		return "", fmt.Errorf("making the request: %w", err)
	}
	var lifetime *time.Duration
	if c.o.Lifetime > 0 {
		lifetime = &c.o.Lifetime
	}
	var uid types.UID
	err = c.persist(ctx, server, "what was shown", func(ctx context.Context) error {
		_, got, err := csr.RequestCertificateWithContext(quiet(ctx), api, der, name, id.signer(), lifetime, usages(key.Public()), key)
		uid = got
		return err
	})
	if err != nil {
		return "", fmt.Errorf("sending request %s: %w", name, err)
	}
	c.say("request %s for %s is at %s", name, id, server)
	return uid, nil
}

// quiet keeps client-go's own log lines away: what matters is said here.
func quiet(ctx context.Context) context.Context { return klog.NewContext(ctx, logr.Discard()) }

// await waits until the request is answered.
func (c *client) await(ctx context.Context, api kubernetes.Interface, name string, uid types.UID) ([]byte, error) {
	began := time.Now()
	waiting, stop := context.WithCancelCause(quiet(ctx))
	defer stop(nil)
	go c.look(waiting, stop, api, name)
	certificate, err := csr.WaitForCertificate(waiting, api, name, uid)
	if err == nil {
		return certificate, nil
	}
	if cause := context.Cause(waiting); ctx.Err() == nil && cause != nil {
		return nil, cause
	}
	// The time may be over, and what became of the request is to be said.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	r, getErr := api.CertificatesV1().CertificateSigningRequests().Get(last, name, metav1.GetOptions{})
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, fmt.Errorf("interrupted while request %s waits: run this again to go on", name)
	case apierrors.IsNotFound(getErr):
		return nil, &RequestError{Name: name, State: stateDeleted}
	case getErr != nil:
		return nil, fmt.Errorf("waiting for request %s: %w", name, getErr)
	}
	state, reason := stateOf(r)
	if state == "" { // deleted, and made again by somebody else
		return nil, fmt.Errorf("waiting for request %s: %w", name, err)
	}
	return nil, &RequestError{Name: name, State: state, Reason: reason, Waited: time.Since(began)}
}

// look tells from time to time what a request waits for, and ends the waiting
// when nothing is to be expected of it, which client-go's wait would not see.
func (c *client) look(ctx context.Context, stop context.CancelCauseFunc, api kubernetes.Interface, name string) {
	told := ""
	for after := firstLook; ; after = nextLook {
		select {
		case <-ctx.Done():
			return
		case <-time.After(after):
		}
		r, err := api.CertificatesV1().CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
		switch {
		case ctx.Err() != nil:
			return
		case apierrors.IsUnauthorized(err):
			explained, _ := refused("waiting for request "+name, "the credential any more", err)
			stop(explained)
			return
		case err != nil:
			c.say("waiting for request %s: %s", name, err)
			continue
		}
		state, _ := stateOf(r)
		switch {
		case state == statePending && told != state:
			c.say("request %s is %s: %s", name, state, approveCommand(name))
		case state != "":
			c.say("request %s is %s", name, state)
		}
		told = state
	}
}

// stateOf is empty for a request that gave a certificate.
func stateOf(r *certificatesv1.CertificateSigningRequest) (state, reason string) {
	state = statePending
	for _, condition := range r.Status.Conditions {
		switch condition.Type {
		case certificatesv1.CertificateDenied:
			return stateDenied, said(condition)
		case certificatesv1.CertificateFailed:
			return stateFailed, said(condition)
		case certificatesv1.CertificateApproved:
			state = stateApproved
		}
	}
	if len(r.Status.Certificate) > 0 {
		return "", ""
	}
	return state, ""
}

func said(c certificatesv1.CertificateSigningRequestCondition) string {
	if c.Message == "" {
		return c.Reason
	}
	return c.Reason + ": " + c.Message
}
