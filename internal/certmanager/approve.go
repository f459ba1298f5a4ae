package certmanager

import (
	"context"
	"fmt"
	"path"
	"strings"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/workload"
)

// Approver decides on requests for certificates.
type Approver interface {
	// Approve decides on a request as the API server holds it. An error says that
	// nothing is known: it will be asked again.
	Approve(ctx context.Context, r *cmapi.CertificateRequest, asked *workload.Asked) (Approval, error)
}

// Verdict is what an approver says.
type Verdict uint8

// The verdicts. What is not known is Undecided.
const (
	Undecided Verdict = iota
	Approved
	Denied
)

// Approval is a verdict, and why, as the condition has it.
type Approval struct {
	Verdict         Verdict
	Reason, Message string
}

// ApproveSigners approves every request to the signers that it names, as cert-manager's
// own approver does: KINDs.GROUP/NAME, KINDs.GROUP/NAMESPACE.NAME or KINDs.GROUP/*, as in
// the value approveSignerNames of cert-manager's chart. Others it leaves undecided.
type ApproveSigners []string

// BuiltInSigners are the issuers of cert-manager.io.
func BuiltInSigners() ApproveSigners {
	return ApproveSigners{issuers + "." + cmapi.SchemeGroupVersion.Group + "/*", clusterIssuers + "." + cmapi.SchemeGroupVersion.Group + "/*"}
}

// Validate tells which name is none.
func (a ApproveSigners) Validate() error {
	for _, name := range a {
		kind, rest, ok := strings.Cut(name, "/")
		_, err := path.Match(rest, "")
		if !ok || !strings.Contains(kind, ".") || rest == "" || strings.Contains(rest, "/") || err != nil {
			return fmt.Errorf("%q is not KINDs.GROUP/NAME, such as %s", name, BuiltInSigners()[0])
		}
	}
	return nil
}

// Approve approves.
func (a ApproveSigners) Approve(_ context.Context, r *cmapi.CertificateRequest, _ *workload.Asked) (Approval, error) {
	for _, name := range signerNames(r.Spec.IssuerRef, r.Namespace) {
		for _, pattern := range a {
			if ok, err := path.Match(pattern, name); ok && err == nil {
				return Approval{Verdict: Approved, Reason: "cert-manager.io", Message: "Certificate request has been approved by cert-manager.io"}, nil
			}
		}
	}
	return Approval{}, nil
}

// signerNames are the names of an issuer as a signer. Of an issuer of another group
// nobody here knows whether it has a namespace.
func signerNames(ref cmmeta.IssuerReference, namespace string) []string {
	ref = workload.IssuerOf(ref)
	kind := strings.ToLower(ref.Kind) + "s." + ref.Group + "/"
	within, cluster := kind+namespace+"."+ref.Name, kind+ref.Name
	switch {
	case ref.Group != cmapi.SchemeGroupVersion.Group:
		return []string{within, cluster}
	case ref.Kind == cmapi.ClusterIssuerKind:
		return []string{cluster}
	}
	return []string{within}
}
