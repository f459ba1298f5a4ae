package workload

import (
	"crypto/sha256"
	"encoding/pem"
	"slices"
	"strconv"
	"time"
	"unique"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// RequestState is how far a CertificateRequest has come.
type RequestState uint8

// The states of a request. All but RequestOpen are final.
const (
	RequestOpen RequestState = iota
	RequestIssued
	RequestFailed
	RequestDenied
	RequestInvalid // an approver or issuer says that it can never be
)

// RequestFacts are what is kept of a CertificateRequest.
type RequestFacts struct {
	Name string
	UID  types.UID
	Made time.Time // when it was created
	// Owner is the UID of the Certificate that it is a request of, and Certificate that
	// one's name; "": of none.
	Owner       types.UID
	Certificate string
	// Revision is the number that its annotation has; 0: none that can be read.
	Revision int
	// Digest is that of its wish, and Key the SHA-256 sum of its public key
	// (SubjectPublicKeyInfo); of requests of Certificates alone. Unreadable says that
	// there is neither.
	Digest, Key [32]byte
	Unreadable  bool
	// Leaf is the SHA-256 sum of its certificate (DER); zero: it has none.
	Leaf [32]byte
	Issuer      cmmeta.IssuerReference
	State       RequestState
	Approved    bool
	// Ready is the reason of its condition Ready; "": it has none.
	Ready string
	// Reason and Message are those of the condition that ended it without a certificate.
	Reason, Message string
	// FailedAt is when; zero: nobody says.
	FailedAt time.Time
}

// FactsOfRequest takes what is kept of a request.
func FactsOfRequest(o *cmapi.CertificateRequest) *RequestFacts {
	f := &RequestFacts{Name: o.Name, UID: o.UID, Made: o.CreationTimestamp.Time, Issuer: IssuerOf(o.Spec.IssuerRef)}
	f.Issuer = cmmeta.IssuerReference{Name: same(f.Issuer.Name), Kind: same(f.Issuer.Kind), Group: same(f.Issuer.Group)}
	f.settle(&o.Status)
	if owner := metav1.GetControllerOfNoCopy(o); owner != nil && owner.Kind == cmapi.CertificateKind {
		f.Owner, f.Certificate = owner.UID, owner.Name
		f.Revision = revisionOf(o)
		f.read(o)
	}
	return f
}

func same(s string) string { return unique.Make(s).Value() }

// revisionOf is the revision that a request's annotation has, 0 where it has none.
func revisionOf(o *cmapi.CertificateRequest) int {
	n, err := strconv.ParseInt(o.Annotations[cmapi.CertificateRequestRevisionAnnotationKey], 10, 0)
	if err != nil || n < 0 {
		return 0
	}
	return int(n)
}

func (f *RequestFacts) read(o *cmapi.CertificateRequest) {
	wish, public, err := Recall(o)
	if err == nil {
		f.Digest, f.Key = wish.Digest(), KeyID(public)
	}
	f.Unreadable = err != nil
	if chain := o.Status.Certificate; f.State == RequestIssued && len(chain) <= maxAnswer {
		if block, _ := pem.Decode(chain); block != nil {
			f.Leaf = sha256.Sum256(block.Bytes)
		}
	}
}

// settle reads the conditions. What is denied is denied, whatever an issuer that does not
// look has made of it.
func (f *RequestFacts) settle(s *cmapi.CertificateRequestStatus) {
	if s.FailureTime != nil {
		f.FailedAt = s.FailureTime.Time
	}
	end := func(state RequestState, c *cmapi.CertificateRequestCondition) {
		f.State, f.Reason, f.Message = state, same(c.Reason), c.Message
	}
	if c := RequestCondition(s, cmapi.CertificateRequestConditionReady); c != nil {
		f.Ready = same(c.Reason)
		switch {
		case c.Reason == cmapi.CertificateRequestReasonFailed:
			end(RequestFailed, c)
		case c.Reason == cmapi.CertificateRequestReasonIssued && c.Status == cmmeta.ConditionTrue:
			f.State = RequestIssued
		}
	}
	if c := RequestCondition(s, cmapi.CertificateRequestConditionInvalidRequest); c != nil && c.Status == cmmeta.ConditionTrue {
		end(RequestInvalid, c)
	}
	if c := RequestCondition(s, cmapi.CertificateRequestConditionDenied); c != nil && c.Status == cmmeta.ConditionTrue {
		end(RequestDenied, c)
	}
	if c := RequestCondition(s, cmapi.CertificateRequestConditionApproved); c != nil && c.Status == cmmeta.ConditionTrue {
		f.Approved = f.State != RequestDenied
	}
}

// RequestCondition returns a condition of a request, nil where it has none.
func RequestCondition(s *cmapi.CertificateRequestStatus, kind cmapi.CertificateRequestConditionType) *cmapi.CertificateRequestCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == kind {
			return &s.Conditions[i]
		}
	}
	return nil
}

// SetRequestCondition sets a condition of a request. The time of the last transition
// stays where the status of the condition does.
func SetRequestCondition(s *cmapi.CertificateRequestStatus, kind cmapi.CertificateRequestConditionType, status cmmeta.ConditionStatus, reason, message string, now time.Time) {
	at := metav1.NewTime(now)
	c := cmapi.CertificateRequestCondition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: &at}
	if old := RequestCondition(s, kind); old != nil {
		if old.Status == status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		*old = c
		return
	}
	s.Conditions = append(s.Conditions, c)
}

// oldest are the requests that are more than a limit, by revision, up to the current
// one. Those without a revision are nobody's to remove.
func oldest(all []*RequestFacts, current, limit int) []*RequestFacts {
	var numbered []*RequestFacts
	for _, r := range all {
		if r.Revision > 0 && r.Revision <= current {
			numbered = append(numbered, r)
		}
	}
	if len(numbered) <= limit {
		return nil
	}
	slices.SortStableFunc(numbered, func(a, b *RequestFacts) int { return a.Revision - b.Revision })
	return numbered[:len(numbered)-limit]
}
