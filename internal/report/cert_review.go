package report

import (
	"cmp"
	"io"

	"github.com/kubepki/kubepki/internal/csr"
)

// CertReviewList is the answer of `kubepki cert review`.
type CertReviewList struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Items      []CertReview `json:"items"`
}

// CertReview is what a workload policy says of one request.
type CertReview struct {
	// Of is certificaterequest or certificate: then it is of the request that a controller
	// would make.
	Of        string `json:"of"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Source    string `json:"source,omitempty"` // the file that it stands in, absent for one of the cluster
	Issuer    string `json:"issuer"`
	// Decided is Approved or Denied where somebody has decided already.
	Decided string      `json:"decided,omitempty"`
	Verdict csr.Verdict `json:"verdict"`
	Reason  string      `json:"reason"`
	Rule    string      `json:"rule,omitempty"` // that decided, or was asked last
	Message string      `json:"message"`
}

// NewCertReviews puts reviews into their public form.
func NewCertReviews(items []CertReview) *CertReviewList {
	if items == nil {
		items = []CertReview{}
	}
	return &CertReviewList{APIVersion: APIVersion, Kind: "CertificateReviewList", Items: items}
}

// Rows prints one row for each review.
func (l *CertReviewList) Rows(w io.Writer, p Palette) error {
	var rows [][]string
	for _, i := range l.Items {
		rows = append(rows, []string{
			Plain(i.Namespace), i.Of + "/" + Plain(i.Name), orDash(i.Decided), p.verdict(i.Verdict), Plain(i.Reason), orDash(Plain(i.Rule)), curtail(Plain(i.Message), rowText),
		})
	}
	return Table(w, []string{"NAMESPACE", "REQUEST", "DECIDED", "VERDICT", "REASON", "RULE", "MESSAGE"}, rows)
}

func orDash(text string) string { return cmp.Or(text, "-") }
