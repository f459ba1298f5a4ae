package workload

import "time"

// Carry is what a change of the issuer's CA asks of a Certificate. The zero value asks
// nothing.
type Carry struct {
	// Bundle is what ca.crt shall hold; zero: what it holds.
	Bundle Bundle
	// Due is when the certificate is to be issued anew because its CA goes; zero: never.
	Due time.Time
	// Hold is until when a renewal that can wait waits; zero: it does not.
	Hold time.Time
}

// Reasons and messages of what is done because a CA changes.
const (
	reasonCARollover  = "CARollover"
	messageCARollover = "Renewing certificate as the CA of its issuer has changed"
	reasonBundle      = "CABundleMismatch"
	reasonPassword    = "KeystorePasswordChanged"
	messagePassword   = "a keystore of Secret was made with another password than the one that spec.keystores refers to"
	messageBundle     = "ca.crt of Secret is not what the issuer publishes"
)

// holdMargin is how long before its end a certificate is renewed that would otherwise
// wait.
const holdMargin = time.Minute

// carried is when a certificate is renewed that is due at a time by itself, and whether
// it is then only because of its CA.
func (s *State) carried(due time.Time) (time.Time, bool) {
	c := &s.Carry
	if s.Secret.NotAfter.IsZero() || due.IsZero() { // nothing to renew, or never to be renewed
		return due, false
	}
	if hold := c.Hold; due.Before(hold) {
		due = hold
		if last := s.Secret.NotAfter.Add(-holdMargin); last.Before(due) {
			due = last
		}
	}
	if c.Due.IsZero() {
		return due, false
	}
	at := c.Due
	if r := s.Certificate.Spec.Renewal; r != nil {
		if opens, err := inWindow(s.Secret.NotBefore, s.Secret.NotAfter, at, r.Windows); err == nil {
			at = opens
		}
	}
	if !at.Before(due) {
		return due, false
	}
	return at, true
}

// lacksBundle tells whether ca.crt is to be written again.
func (s *State) lacksBundle() bool {
	return s.Carry.Bundle != (Bundle{}) && s.Carry.Bundle != s.Secret.Bundle && PairProblem(s.Secret) == nil
}
