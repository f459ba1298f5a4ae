package csr

import (
	"fmt"
	"slices"
	"strings"
)

const (
	nodePrefix = "system:node:"
	nodesGroup = "system:nodes"
)

// Permission returns the permission that the requester of a request must have
// for an approval without a person: "nodeclient" or "selfnodeclient", the
// subresources that k/k pkg/controller/certificates/approver/sarapprove.go asks
// for. It returns "" where the request is not of a kind that needs one.
func Permission(r Request) string {
	if r.SignerName != KubeAPIServerClientKubeletSigner || r.State != Pending {
		return ""
	}
	f, fault := read(r.PEM)
	switch {
	case fault != nil || !strings.HasPrefix(f.asked.CommonName, nodePrefix):
		return ""
	case r.Username == f.asked.CommonName && slices.Contains(r.Groups, nodesGroup):
		return "selfnodeclient"
	}
	return "nodeclient"
}

// Decide decides on a request. What is wrong whatever the facts may be is
// denied even where facts are missing.
func Decide(r Request, f Facts, p Policy) Review {
	if r.State != Pending {
		return Review{Undecided, []Reason{{alreadyDecided, fmt.Sprintf("the request is %s", lower(string(r.State)))}}}
	}
	rules := p.rules(r.SignerName)
	if len(rules) == 0 && !isBuiltIn(r.SignerName) {
		return Review{Undecided, []Reason{{signerNoRule, fmt.Sprintf("no rule of the policy is for signer %s", quote(r.SignerName))}}}
	}
	j := &judgement{}
	if r.ExpirationSeconds != nil && *r.ExpirationSeconds < 600 {
		j.deny(lifeTooShort, "a life of %d seconds is asked for, the shortest is 600", *r.ExpirationSeconds)
	}
	form, fault := read(r.PEM)
	if fault != nil {
		j.deny(fault.id, "%s", fault.message)
		return j.review()
	}
	j.judgeKey(form, f, r.Username, form.asked.CommonName)
	switch r.SignerName {
	case KubeAPIServerClientKubeletSigner:
		j.judgeKubeletClient(r, form, f, p)
	case KubeletServingSigner:
		j.judgeKubeletServing(r, form, f, p)
	default:
		j.judgeByRules(r, form, p, rules)
	}
	return j.review()
}

func isBuiltIn(signer string) bool {
	switch signer {
	case KubeAPIServerClientSigner, KubeAPIServerClientKubeletSigner, KubeletServingSigner, LegacyUnknownSigner:
		return true
	}
	return false
}

// judgement collects reasons. Of each id it keeps the first, so that a request
// with a thousand bad names has not a thousand reasons.
type judgement struct{ approved, denied, undecided []Reason }

func (j *judgement) approve(id, format string, args ...any) { add(&j.approved, id, format, args...) }
func (j *judgement) deny(id, format string, args ...any)    { add(&j.denied, id, format, args...) }
func (j *judgement) doubt(id, format string, args ...any)   { add(&j.undecided, id, format, args...) }

// denyIf denies where it is sure, and leaves undecided where it is not yet.
func (j *judgement) denyIf(sure bool, id, format string, args ...any) {
	if sure {
		j.deny(id, format, args...)
		return
	}
	j.doubt(id, format, args...)
}

func add(reasons *[]Reason, id, format string, args ...any) {
	if !slices.ContainsFunc(*reasons, func(r Reason) bool { return r.ID == id }) {
		*reasons = append(*reasons, Reason{id, fmt.Sprintf(format, args...)})
	}
}

// review is Deny where anything is wrong, and Approve only where nothing is
// open and somebody approves.
func (j *judgement) review() Review {
	switch {
	case len(j.denied) > 0:
		return Review{Deny, j.denied}
	case len(j.undecided) > 0:
		return Review{Undecided, j.undecided}
	}
	return Review{Approve, j.approved}
}
