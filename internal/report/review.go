package report

import (
	"io"

	"github.com/kubepki/kubepki/internal/csr"
)

// Review is the answer of `kubepki csr review` for one request.
type Review struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	csr.Review
}

// ReviewList is its answer for several, in the order in which they were named.
type ReviewList struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Items      []ReviewedItem `json:"items"`
}

// ReviewedItem is the review of one of several requests.
type ReviewedItem struct {
	Name   string `json:"name"`             // metadata.name
	Source string `json:"source,omitempty"` // the file that it stands in, absent for one of the cluster
	csr.Review
}

// NewReviews puts reviews into their public form: one is a Review, several are
// a ReviewList.
func NewReviews(items []ReviewedItem) any {
	for i := range items {
		if items[i].Reasons == nil {
			items[i].Reasons = []csr.Reason{}
		}
	}
	if len(items) == 1 {
		return &Review{APIVersion: APIVersion, Kind: "Review", Review: items[0].Review}
	}
	return &ReviewList{APIVersion: APIVersion, Kind: "ReviewList", Items: items}
}

// ReviewRows prints a row for each reason of each review.
func ReviewRows(w io.Writer, items []ReviewedItem, p Palette) error {
	var rows [][]string
	for _, item := range items {
		reasons := item.Reasons
		if len(reasons) == 0 {
			reasons = []csr.Reason{{}}
		}
		for i, r := range reasons {
			name, verdict := Plain(item.Name), p.verdict(item.Verdict)
			if i > 0 {
				name, verdict = "", ""
			}
			rows = append(rows, []string{name, verdict, Plain(r.ID), Plain(r.Message)})
		}
	}
	return Table(w, []string{"NAME", "VERDICT", "REASON", "MESSAGE"}, rows)
}

// verdict colours what needs attention.
func (p Palette) verdict(v csr.Verdict) string {
	switch v {
	case csr.Approve:
		return p.Green(string(v))
	case csr.Deny:
		return p.Red(string(v))
	}
	return string(v)
}
