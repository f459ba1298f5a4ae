package why

import (
	"crypto/sha256"
	"fmt"
	"strings"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"

	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

// secret tells whether somebody else has written the Secret. While it is issued, or a
// failure is waited out, that is not what is waited for.
func (t *teller) secret() *Cause {
	if t.Secret.Look != Found || t.issuing || t.failedUntil().After(t.At) {
		return nil
	}
	s := t.Secret.Object
	if name := s.Facts.CertificateName; name != "" && name != t.o.Name {
		return &Cause{ID: CauseOtherSecret, Where: t.secretID,
			Text:   fmt.Sprintf("the Secret was issued for Certificate %q, which is gone or names another now", name),
			Fix:    t.kubectl("delete", "secret", t.o.Spec.SecretName),
			Advice: "where nobody needs what is in it any more: it is issued anew then. Otherwise give spec.secretName another name"}
	}
	if text := t.edited(); text != "" {
		return &Cause{ID: CauseEdited, Where: t.secretID, Text: text + t.writers(), Fix: t.renew(), Advice: "what was written by hand is lost then"}
	}
	return nil
}

// edited says what shows that the Secret is not as a controller left it.
func (t *teller) edited() string {
	if t.problem != nil && t.problem.Reason != workload.ReasonDoesNotExist {
		return "the Secret " + problemText(t.problem)
	}
	if t.request == nil || t.next() || len(t.request.Status.Certificate) == 0 {
		return ""
	}
	issued, err := trust.ParseCertificates(t.request.Status.Certificate)
	if err != nil || t.Secret.Object.Facts.Leaf == sha256.Sum256(issued[0].Raw) {
		return ""
	}
	return "the Secret holds another certificate than the one that was issued (" + t.id("certificaterequest", t.request.Name) + ")"
}

// writers says who wrote it, as far as that is known.
func (t *teller) writers() string {
	s := t.Secret.Object
	if len(s.Writers) == 0 {
		return ""
	}
	return fmt.Sprintf("; %s wrote it %s", strings.Join(s.Writers, ", "), ago(t.At.Sub(s.Changed)))
}

func requestCondition(r *cmapi.CertificateRequest, kind cmapi.CertificateRequestConditionType) *cmapi.CertificateRequestCondition {
	if r == nil {
		return nil
	}
	for i := range r.Status.Conditions {
		if r.Status.Conditions[i].Type == kind {
			return &r.Status.Conditions[i]
		}
	}
	return nil
}

// problemText is what is wrong with a Secret, without why cert-manager says so.
func problemText(p *workload.Problem) string {
	return strings.TrimPrefix(p.Message, "Issuing certificate as Secret ")
}
