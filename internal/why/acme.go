package why

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
)

// acme looks at the order and its challenges.
func (t *teller) acme(request string) *Cause {
	o := t.order()
	if o == nil {
		if t.Orders.Look != Found || t.At.Sub(t.request.CreationTimestamp.Time) < grace {
			return nil
		}
		return t.idle(request, "the request is approved, and nobody has made an order of it")
	}
	where := t.id("order", o.Name)
	if isRateLimit(o.Status.Reason) {
		return &Cause{ID: CauseRate, Where: where, Text: "the ACME server refuses for now: " + o.Status.Reason, Until: retryAfter(o.Status.Reason),
			Advice: "wait: each new try counts too; for trials use the staging server of the authority"}
	}
	for _, c := range t.challenges(o) {
		if cause := t.challenge(c); cause != nil {
			return cause
		}
	}
	switch o.Status.State {
	case cmacme.Invalid, cmacme.Errored, cmacme.Expired:
		return &Cause{ID: CauseOrder, Where: where, Text: fmt.Sprintf("the order is %s: %s", o.Status.State, orText(o.Status.Reason, "the ACME server does not say why")), Fix: t.renew(),
			Advice: "mend what it says, then ask anew"}
	case cmacme.Unknown:
		if t.At.Sub(o.CreationTimestamp.Time) >= grace {
			return t.idle(where, "the order has not been sent to the ACME server")
		}
	}
	return nil
}

// challenges are those of an order, the worst first.
func (t *teller) challenges(o *cmacme.Order) []*cmacme.Challenge {
	var list []*cmacme.Challenge
	if t.Challenges.Object != nil {
		for i := range *t.Challenges.Object {
			if c := &(*t.Challenges.Object)[i]; owned(c.OwnerReferences, string(o.UID)) {
				list = append(list, c)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b *cmacme.Challenge) int {
		return cmp.Or(badness(b)-badness(a), strings.Compare(a.Spec.DNSName, b.Spec.DNSName), strings.Compare(a.Name, b.Name))
	})
	return list
}

func badness(c *cmacme.Challenge) int {
	switch {
	case c.Status.State == cmacme.Valid:
		return 0
	case failed(c.Status.State):
		return 4
	case c.Status.Processing && !c.Status.Presented:
		return 3
	case c.Status.Presented:
		return 2
	}
	return 1
}

func failed(s cmacme.State) bool {
	return s == cmacme.Invalid || s == cmacme.Errored || s == cmacme.Expired
}

func (t *teller) challenge(c *cmacme.Challenge) *Cause {
	where := t.id("challenge", c.Name)
	describe := t.kubectl("describe", "challenge", c.Name)
	of := fmt.Sprintf("%s of %s", c.Spec.Type, c.Spec.DNSName)
	reason := orText(c.Status.Reason, "nothing says why")
	switch {
	case c.Status.State == cmacme.Valid:
		return nil
	case isRateLimit(c.Status.Reason):
		return &Cause{ID: CauseRate, Where: where, Text: "the ACME server refuses for now: " + reason, Until: retryAfter(reason), Advice: "wait: each new try counts too"}
	case failed(c.Status.State):
		return &Cause{ID: CauseChallenge, Where: where, Text: fmt.Sprintf("the ACME server did not accept %s: %s", of, reason), Fix: t.look(c),
			Advice: "when it answers as it shall: " + t.renew()}
	case !c.Status.Processing:
		return &Cause{ID: CauseQueued, Where: where, Text: of + " waits for its turn: only so many challenges are worked on at once, and one for each name", Fix: command("kubectl", "get", "challenges", "-A")}
	case !c.Status.Presented:
		return &Cause{ID: CausePresent, Where: where, Text: fmt.Sprintf("the answer to %s could not be put in place: %s", of, reason), Fix: describe,
			Advice: "look at the solver of the issuer (spec.acme.solvers): its provider, its Secret, the Ingress or Gateway that it uses"}
	case c.Status.Reason == "" || !strings.Contains(strings.ToLower(c.Status.Reason), "propagat"):
		return &Cause{ID: CauseServer, Where: where, Text: fmt.Sprintf("the ACME server has been asked to look at %s: %s", of, orText(c.Status.Reason, "it has not answered")), Fix: t.look(c)}
	case c.Spec.Type == cmacme.ACMEChallengeTypeDNS01:
		return &Cause{ID: CauseDNS, Where: where, Text: fmt.Sprintf("the TXT record for %s is not at all nameservers of the zone yet: %s", of, reason), Fix: t.look(c),
			Advice: "if it stays so: is the zone delegated to where the record was written, and does the controller ask the right resolvers?"}
	}
	return &Cause{ID: CauseHTTP, Where: where, Text: fmt.Sprintf("the answer to %s cannot be had from the controller: %s", of, reason), Fix: t.look(c),
		Advice: "does the name lead to the cluster's Ingress, on port 80, without a redirect to somewhere else?"}
}

// look is how to look at what the ACME server looks at. The token is public.
func (t *teller) look(c *cmacme.Challenge) string {
	if c.Spec.Type == cmacme.ACMEChallengeTypeDNS01 {
		return command("dig", "+short", "TXT", "_acme-challenge."+strings.TrimPrefix(c.Spec.DNSName, "*."))
	}
	return command("curl", "-v", "http://"+c.Spec.DNSName+"/.well-known/acme-challenge/"+c.Spec.Token)
}

// isRateLimit tells whether an ACME server says that there is too much of something
// (RFC 8555 section 6.6).
func isRateLimit(text string) bool {
	text = strings.ToLower(text)
	return strings.Contains(text, "ratelimited") || strings.Contains(text, "rate limit") || strings.Contains(text, "429 ") || strings.Contains(text, "too many certificates")
}

var retry = regexp.MustCompile(`retry after (\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)`)

// retryAfter is the time that Let's Encrypt names; nil where none is named.
func retryAfter(text string) *time.Time {
	m := retry.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	at, err := time.Parse(time.DateTime, strings.Replace(m[1], "T", " ", 1))
	if err != nil {
		return nil
	}
	return &at
}
