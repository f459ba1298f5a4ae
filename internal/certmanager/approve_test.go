package certmanager

import (
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestApproveSigners(t *testing.T) {
	for name, row := range map[string]struct {
		signers ApproveSigners
		ref     cmmeta.IssuerReference
		want    Verdict
	}{
		"an Issuer of cert-manager":                {BuiltInSigners(), cmmeta.IssuerReference{Name: "a"}, Approved},
		"a ClusterIssuer":                          {BuiltInSigners(), cmmeta.IssuerReference{Name: "a", Kind: "ClusterIssuer"}, Approved},
		"an issuer of another group":               {BuiltInSigners(), cmmeta.IssuerReference{Name: "a", Group: "example.org"}, Undecided},
		"an Issuer by its namespace and name":      {ApproveSigners{"issuers.cert-manager.io/n.a"}, cmmeta.IssuerReference{Name: "a"}, Approved},
		"the same of another namespace":            {ApproveSigners{"issuers.cert-manager.io/m.a"}, cmmeta.IssuerReference{Name: "a"}, Undecided},
		"a ClusterIssuer of an Issuer's name":      {ApproveSigners{"issuers.cert-manager.io/n.a"}, cmmeta.IssuerReference{Name: "n.a", Kind: "ClusterIssuer"}, Undecided},
		"another group that is named":              {ApproveSigners{"others.example.org/*"}, cmmeta.IssuerReference{Name: "a", Kind: "Other", Group: "example.org"}, Approved},
		"another kind of a group that is named":    {ApproveSigners{"others.example.org/*"}, cmmeta.IssuerReference{Name: "a", Kind: "Third", Group: "example.org"}, Undecided},
		"a name that would reach over the pattern": {ApproveSigners{"issuers.cert-manager.io/*"}, cmmeta.IssuerReference{Name: "a/b"}, Undecided},
	} {
		if err := row.signers.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		r := &cmapi.CertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "n"}, Spec: cmapi.CertificateRequestSpec{IssuerRef: row.ref}}
		if got, err := row.signers.Approve(t.Context(), r, nil); err != nil || got.Verdict != row.want {
			t.Errorf("%s: %v, %v, want %v", name, got.Verdict, err, row.want)
		}
	}
	for _, bad := range []string{"issuers", "issuers/a", "issuers.cert-manager.io/", "issuers.cert-manager.io/a/b", "issuers.cert-manager.io/[", ""} {
		if (ApproveSigners{bad}).Validate() == nil {
			t.Errorf("%q is let through", bad)
		}
	}
}
