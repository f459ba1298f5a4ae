package certmanager

import (
	"context"
	"crypto"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/workload"
)

// Issuer signs for the Issuers and ClusterIssuers of one kind, such as those with
// spec.ca. Its methods are called by several goroutines.
type Issuer interface {
	// AtOnce says that Sign answers without waiting for anybody: the key of a
	// Certificate then stays in memory until its certificate is there.
	AtOnce() bool
	// Verify tells whether an issuer can sign. An error says that it will be tried
	// again; the health counts beside it where its Reason is set.
	Verify(ctx context.Context, issuer cmapi.GenericIssuer) (Health, error)
	// Sign answers an approved request, or says when to ask again. An error says that
	// nothing is known and that it will be tried again.
	Sign(ctx context.Context, order Order) (Answer, error)
}

// Health is the condition Ready of an issuer.
type Health struct {
	Ready           bool
	Reason, Message string
	// Change, if not nil, changes what else its status has, such as acme.
	Change func(*cmapi.IssuerStatus)
	// Again is when to verify again; zero: when something changes.
	Again time.Duration
}

// Order is an approved request, and who is to answer it.
type Order struct {
	Issuer  cmapi.GenericIssuer
	Request *cmapi.CertificateRequest
	Asked   *workload.Asked
	// Key is the private key of the request where this process holds it, nil otherwise.
	Key crypto.Signer
}

// Answer is one of three: a certificate, an end without one, or a wait.
type Answer struct {
	Issued *workload.Issued
	// Failed says that asking again would come to the same.
	Failed bool
	// Invalid says that no request like this can ever be answered.
	Invalid bool
	// Reason and Message tell why there is no certificate.
	Reason, Message string
	// Again is when to ask again; 0: when the issuer or the request changes.
	Again time.Duration
}

// kindOf names the kind of an issuer by the field of its spec; "": it has none.
func kindOf(s *cmapi.IssuerSpec) string {
	switch {
	case s.ACME != nil:
		return "acme"
	case s.CA != nil:
		return "ca"
	case s.Vault != nil:
		return "vault"
	case s.SelfSigned != nil:
		return "selfSigned"
	case s.Venafi != nil:
		return "venafi"
	}
	return ""
}

// issuerKey names an issuer of cert-manager.io; the namespace is "" for a
// ClusterIssuer.
type issuerKey struct{ namespace, name string }

func (k issuerKey) kind() string {
	if k.namespace == "" {
		return cmapi.ClusterIssuerKind
	}
	return cmapi.IssuerKind
}

// issuerOf is the key of the issuer that an object of a namespace names; false where it
// is none of cert-manager.io.
func issuerOf(ref cmmeta.IssuerReference, namespace string) (issuerKey, bool) {
	ref = workload.IssuerOf(ref)
	switch {
	case ref.Group != cmapi.SchemeGroupVersion.Group:
		return issuerKey{}, false
	case ref.Kind == cmapi.ClusterIssuerKind:
		return issuerKey{name: ref.Name}, true
	case ref.Kind == cmapi.IssuerKind:
		return issuerKey{namespace, ref.Name}, true
	}
	return issuerKey{}, false
}
