package join

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// RequestError tells that a CertificateSigningRequest gave no certificate.
type RequestError struct {
	Name   string // of the request
	State  string // "denied", "failed", "deleted", "waiting for approval" or "approved, and waiting for its signer"
	Reason string // what who denied it or failed to sign it says; may be empty
	Waited time.Duration
}

// The states of a [RequestError].
const (
	stateDenied   = "denied"
	stateFailed   = "failed"
	stateDeleted  = "deleted"
	statePending  = "waiting for approval"
	stateApproved = "approved, and waiting for its signer"
)

func (e *RequestError) Error() string {
	switch e.State {
	case statePending, stateApproved:
		return fmt.Sprintf("no certificate after %s: request %s is still %s", e.Waited.Round(time.Second), e.Name, e.State)
	case stateDeleted:
		return fmt.Sprintf("request %s was deleted before it gave a certificate", e.Name)
	case stateFailed:
		return fmt.Sprintf("request %s failed: its signer says %s", e.Name, e.because())
	}
	return fmt.Sprintf("request %s was denied: %s", e.Name, e.because())
}

func (e *RequestError) because() string {
	if e.Reason == "" {
		return "no reason is given"
	}
	return e.Reason
}

// Hint tells what to do, as a command of an administrator where there is one.
func (e *RequestError) Hint() string {
	switch e.State {
	case statePending:
		return fmt.Sprintf("%s; then run this again: it goes on with the same request", approveCommand(e.Name))
	case stateApproved:
		return "see whether kube-controller-manager, or what signs instead of it, is running; then run this again: it goes on with the same request"
	case stateDeleted:
		return "run this again: it sends another request"
	}
	return fmt.Sprintf("once the cause is mended, an administrator runs kubectl delete csr %s; then run this again", e.Name)
}

func approveCommand(name string) string {
	return fmt.Sprintf("an administrator looks at it with kubepki csr review %s and allows it with kubepki csr approve %s", name, name)
}

// AccessError tells that the API server cannot be used with a credential.
type AccessError struct {
	Server string // URL
	With   string // what was shown: "the token of FILE", "the new certificate"
	Err    error
	hint   string
}

func (e *AccessError) Error() string { return e.Server + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *AccessError) Unwrap() error { return e.Err }

// Hint tells what to do.
func (e *AccessError) Hint() string { return e.hint }

// refused explains why a call failed, and tells whether another attempt may
// help.
func refused(server, with string, err error) (explained error, again bool) {
	e := &AccessError{Server: server, With: with, Err: err}
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &untrusted):
		e.Err = fmt.Errorf("its certificate is not trusted: %w", untrusted.Err)
		e.hint = "compare the authority in the kubeconfig with the cluster's: kubepki show " + strings.TrimPrefix(server, "https://")
	case apierrors.IsUnauthorized(err):
		e.Err = fmt.Errorf("does not accept %s (401 Unauthorized)", with)
		e.hint = "a bootstrap token may have expired or been deleted: an administrator makes another with kubepki token create; a certificate may be of another cluster"
	case apierrors.IsForbidden(err):
		e.Err = fmt.Errorf("accepts %s and allows too little: %w", with, err)
		e.hint = "nodes may join when group system:bootstrappers (or that of the token) is bound to ClusterRole system:node-bootstrapper"
	default:
		return e, transient(err)
	}
	return e, false
}

// transient tells whether another attempt may help: everything that is no
// answer of the API server, and answers that ask for another.
func transient(err error) bool {
	if errors.As(err, new(apierrors.APIStatus)) {
		return apierrors.IsTooManyRequests(err) || apierrors.IsInternalError(err) || apierrors.IsServerTimeout(err) ||
			apierrors.IsTimeout(err) || apierrors.IsServiceUnavailable(err) || apierrors.IsUnexpectedServerError(err)
	}
	return true
}

// ExpiredError tells that a client has no valid credential left to ask with.
type ExpiredError struct {
	Why       string // what is wrong with the credential, with its file
	Bootstrap string // the bootstrap kubeconfig, as the caller of the program knows it
	Waiting   bool   // the bootstrap kubeconfig is there
}

func (e *ExpiredError) Error() string {
	return e.Why + ": nothing valid is left to ask for another certificate with"
}

// Hint tells what to do.
func (e *ExpiredError) Hint() string {
	if e.Waiting {
		return fmt.Sprintf("run kubepki node join: it joins anew with %s", e.Bootstrap)
	}
	return fmt.Sprintf("on a control plane run kubepki kubeconfig bootstrap, bring what it writes to %s, and run kubepki node join", e.Bootstrap)
}

// pause is between two attempts to reach an API server.
const pause = 2 * time.Second

// persist repeats a call while another attempt may help and there is time.
func (c *client) persist(ctx context.Context, server, with string, call func(context.Context) error) error {
	var last error
	for {
		err := call(ctx)
		if err == nil {
			return nil
		}
		if errors.Is(ctx.Err(), context.Canceled) {
			return fmt.Errorf("%s: interrupted: run this again to go on", server)
		}
		if ctx.Err() != nil && last != nil {
			return last // tells more than that the time is over
		}
		err, again := refused(server, with, err)
		if !again || ctx.Err() != nil {
			return err
		}
		if last == nil || last.Error() != err.Error() {
			c.say("%s; trying again", err)
		}
		last = err
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}
