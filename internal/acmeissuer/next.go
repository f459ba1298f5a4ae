package acmeissuer

import (
	"fmt"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
)

// act is the next thing to do for an order.
type act int

const (
	placeOrder act = iota
	readAuthorizations
	proveNames // challenges are made, and each is taken as far as it goes
	askOrder   // the server says how far the order is
	finalize
	fetchCertificate
	finish // the certificate is there
	giveUp // the order has failed
)

// nextOfOrder decides what an order needs, from its object alone.
func nextOfOrder(o *cmacme.Order) act {
	s := &o.Status
	switch {
	case failed(s.State):
		return giveUp
	case s.State == cmacme.Valid && len(s.Certificate) > 0:
		return finish
	case s.URL == "":
		return placeOrder
	case s.State == cmacme.Valid:
		return fetchCertificate
	case s.State == cmacme.Processing || s.FinalizeURL == "":
		return askOrder
	case s.State == cmacme.Ready:
		return finalize
	}
	for _, a := range s.Authorizations {
		if a.Identifier == "" {
			return readAuthorizations
		}
	}
	return proveNames
}

// afterProofs decides how an order goes on from the states of its challenges: an
// order is asked for when all have been proved or one never will be.
func afterProofs(challenges []*cmacme.Challenge) (ask bool) {
	all := true
	for _, c := range challenges {
		if failed(c.Status.State) {
			return true
		}
		all = all && c.Status.State == cmacme.Valid
	}
	return all
}

// step is the next thing to do for a challenge.
type step int

const (
	present      step = iota
	check             // whether all can see what was presented
	pause             // instead of the check, or between two
	accept            // the server is told to look
	askChallenge      // the server is asked what it saw
	cleanUp
	nothing // is left to do
)

// nextOfChallenge decides what a challenge needs, and how long to wait where it is
// pause.
func nextOfChallenge(c *cmacme.Challenge, now time.Time) (step, time.Duration) {
	s := &c.Status
	wait := c.Spec.Solver.WaitInsteadOfSelfCheck
	switch {
	case final(s.State) || c.DeletionTimestamp != nil:
		if finalizes(c) || s.Presented || s.Processing {
			return cleanUp, 0
		}
		return nothing, 0
	case s.State == cmacme.Processing:
		return askChallenge, 0
	case !s.Presented:
		return present, 0
	case wait == nil:
		return check, 0
	case s.PresentedAt != nil && !now.Before(s.PresentedAt.Add(wait.Duration)):
		return accept, 0
	case s.PresentedAt == nil:
		return present, 0
	}
	return pause, s.PresentedAt.Add(wait.Duration).Sub(now)
}

// failed tells whether an order or a challenge has come to a bad end.
func failed(s cmacme.State) bool {
	return s == cmacme.Invalid || s == cmacme.Expired || s == cmacme.Errored
}

// final tells whether a challenge has come to an end.
func final(s cmacme.State) bool { return s == cmacme.Valid || failed(s) }

// finalizes tells whether a challenge waits to be cleaned up.
func finalizes(c *cmacme.Challenge) bool {
	for _, f := range c.Finalizers {
		if f == cmacme.ACMEDomainQualifiedFinalizer || f == cmacme.ACMELegacyFinalizer {
			return true
		}
	}
	return false
}

// reasonOf says in one line why an order did not come to be, from its challenges and
// what the server said.
func reasonOf(said string, challenges []*cmacme.Challenge) string {
	for _, c := range challenges {
		if failed(c.Status.State) && c.Status.Reason != "" {
			name := c.Spec.DNSName
			if c.Spec.Wildcard {
				name = "*." + name
			}
			return bounded(fmt.Sprintf("%s was not proved by %s: %s", name, c.Spec.Type, c.Status.Reason))
		}
	}
	return said
}
