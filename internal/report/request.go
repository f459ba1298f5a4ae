package report

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/inspect"
	"github.com/kubepki/kubepki/internal/trust"
)

// Request is one row of `kubepki csr list`.
type Request struct {
	Name       string    `json:"name"`
	UID        string    `json:"uid"`
	Created    time.Time `json:"created"`
	State      csr.State `json:"state"`
	SignerName string    `json:"signerName"`
	// Username and Groups are those of the requester.
	Username string   `json:"username"`
	Groups   []string `json:"groups"`
	Usages   []string `json:"usages"`
	// ExpirationSeconds is the life that is asked for, absent where none is.
	ExpirationSeconds *int32 `json:"expirationSeconds,omitempty"`
	// Subject is the one that is asked for, as a distinguished name of RFC
	// 2253. Problem says why it cannot be shown.
	Subject string `json:"subject,omitempty"`
	Problem string `json:"problem,omitempty"`
	inspect.Names
	// Review is present with --review, for requests that wait.
	Review *csr.Review `json:"review,omitempty"`
}

// NewRequest puts a request into its public form.
func NewRequest(r csr.Request, review *csr.Review) Request {
	row := Request{
		Name: r.Name, UID: r.UID, Created: r.Created.UTC().Truncate(time.Second), State: r.State, SignerName: r.SignerName,
		Username: r.Username, Groups: r.Groups, Usages: r.Usages, ExpirationSeconds: r.ExpirationSeconds, Review: review,
	}
	if row.Groups == nil {
		row.Groups = []string{}
	}
	if row.Usages == nil {
		row.Usages = []string{}
	}
	block, _ := pem.Decode(r.PEM)
	if block == nil {
		row.Problem = "is no PEM"
		return row
	}
	asked, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		row.Problem = err.Error()
		return row
	}
	row.Subject = trust.SubjectText(asked.RawSubject)
	row.DNSNames, row.EmailAddresses = asked.DNSNames, asked.EmailAddresses
	for _, a := range asked.IPAddresses {
		row.IPAddresses = append(row.IPAddresses, a.String())
	}
	for _, u := range asked.URIs {
		row.URIs = append(row.URIs, u.String())
	}
	return row
}

// RequestHead is the head of the rows that [Request.Row] gives.
func RequestHead(wide, reviewed bool) []string {
	head := []string{"NAME", "AGE", "SIGNER", "REQUESTER", "SUBJECT", "STATE", "DURATION"}
	if wide {
		head = append(head, "NAMES", "USAGES", "GROUPS")
	}
	if reviewed {
		head = append(head, "VERDICT", "REASON")
	}
	return head
}

// Row is a request as one row of a table.
func (r *Request) Row(at time.Time, wide, reviewed bool, p Palette) []string {
	signer := r.SignerName
	if !wide {
		signer = strings.TrimPrefix(signer, "kubernetes.io/")
	}
	row := []string{r.Name, r.age(at), signer, r.Username, r.asked(), string(r.State), r.duration()}
	if wide {
		row = append(row, strings.Join(r.All(), ","), strings.Join(r.Usages, ","), strings.Join(r.Groups, ","))
	}
	for i, cell := range row {
		row[i] = orNone(Plain(cell))
	}
	if reviewed {
		verdict, reason := "-", "-"
		if r.Review != nil {
			verdict = p.verdict(r.Review.Verdict)
			if len(r.Review.Reasons) > 0 {
				reason = Plain(r.Review.Reasons[0].ID)
			}
		}
		row = append(row, verdict, reason)
	}
	return row
}

func orNone(cell string) string {
	if cell == "" {
		return "-"
	}
	return cell
}

func (r *Request) age(at time.Time) string {
	if r.Created.IsZero() {
		return ""
	}
	return roughly(max(at.Sub(r.Created), 0))
}

func (r *Request) asked() string {
	if r.Problem != "" {
		return "unreadable: " + r.Problem
	}
	return r.Subject
}

func (r *Request) duration() string {
	if r.ExpirationSeconds == nil {
		return ""
	}
	d := time.Duration(*r.ExpirationSeconds) * time.Second
	switch {
	case d > 0 && d%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d > 0 && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d > 0 && d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}
