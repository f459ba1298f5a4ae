package csr

// Verdict is what a decision comes to.
type Verdict string

// The verdicts.
const (
	Approve   Verdict = "Approve"
	Deny      Verdict = "Deny"
	Undecided Verdict = "Undecided" // to be looked at again, or by a person
)

// Reason is one sentence of a decision. ID is stable and public.
type Reason struct {
	ID      string `json:"id"`
	Message string `json:"message"`
}

// Review is a decision with its reasons.
type Review struct {
	Verdict Verdict  `json:"verdict"`
	Reasons []Reason `json:"reasons"`
}
