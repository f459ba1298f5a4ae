package csr

// Permission returns the permission that the requester of a request must have
// for an approval without a person: "nodeclient" or "selfnodeclient", the
// subresources that k/k pkg/controller/certificates/approver/sarapprove.go asks
// for. It returns "" where the request is not of a kind that needs one.
func Permission(Request) string { return "" }

// Lookups returns the names that DNS is to be asked for before a decision, for
// [Facts.Resolved]: none where the policy does not ask DNS.
func Lookups(Request, Policy) []string { return nil }

// Decide decides on a request.
func Decide(Request, Facts, Policy) Review {
	return Review{Verdict: Undecided, Reasons: []Reason{{ID: "not-decided", Message: "nothing decides on this request"}}}
}
