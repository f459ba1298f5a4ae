package certmanager

import (
	"context"
	"errors"
	"fmt"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/workload"
)

// caIssuer signs with the authority in a Secret: Issuers with spec.ca.
type caIssuer struct {
	authorities *authorities
	rollovers   *rollovers
	// cluster is the namespace of the Secrets that ClusterIssuers name.
	cluster string
}

// AtOnce is true: the key is at hand.
func (*caIssuer) AtOnce() bool { return true }

func (i *caIssuer) secret(issuer cmapi.GenericIssuer) types.NamespacedName {
	return caSecret(issuer, i.cluster)
}

// caSecret is the Secret that an issuer with spec.ca names; those of ClusterIssuers
// are in the namespace cluster.
func caSecret(issuer cmapi.GenericIssuer, cluster string) types.NamespacedName {
	namespace := issuer.GetNamespace()
	if namespace == "" {
		namespace = cluster
	}
	return types.NamespacedName{Namespace: namespace, Name: issuer.GetSpec().CA.SecretName}
}

// Verify tells whether the Secret holds an authority that can sign.
func (i *caIssuer) Verify(ctx context.Context, issuer cmapi.GenericIssuer) (Health, error) {
	const failed = "Error getting keypair for CA issuer: "
	authority, err := i.authorities.get(ctx, i.secret(issuer))
	switch {
	case errors.Is(err, errInvalid) || apierrors.IsNotFound(err):
		return Health{Reason: "ErrGetKeyPair", Message: failed + err.Error()}, nil // the watch tells when it changes
	case err != nil:
		return Health{Reason: "ErrGetKeyPair", Message: failed + err.Error()}, err
	}
	if unusable := authority.Usable(now()); unusable != nil {
		return Health{Reason: "ErrInvalidKeyPair", Message: failed + unusable.Error()}, nil //nolint:nilerr // it is the answer, not a failure to find one
	}
	return Health{Ready: true, Reason: "KeyPairVerified", Message: "Signing CA verified", Again: authority.NotAfter().Sub(now()) + time.Second}, nil
}

// Sign signs.
func (i *caIssuer) Sign(ctx context.Context, order Order) (Answer, error) {
	key := i.secret(order.Issuer)
	authority, carried, err := i.rollovers.signer(ctx, order.Issuer)
	switch {
	case apierrors.IsNotFound(err):
		return Answer{Reason: "SecretMissing", Message: fmt.Sprintf("Referenced secret %s not found: %v", key, err)}, nil
	case errors.Is(err, errInvalid):
		return Answer{Reason: "SecretInvalidData", Message: fmt.Sprintf("Failed to parse signing CA keypair from secret %s: %v", key, err)}, nil
	case err != nil:
		return Answer{}, err
	}
	if unusable := authority.Usable(now()); unusable != nil { // it waits for another authority
		return Answer{Reason: "SecretInvalidData", Message: fmt.Sprintf("The authority in secret %s cannot sign: %v", key, unusable)}, nil
	}
	issued, err := workload.Sign(order.Asked, authority, order.Issuer.GetSpec().CA, now())
	if err != nil {
		return Answer{Failed: true, Reason: "SigningError", Message: fmt.Sprintf("Error signing certificate: %v", err)}, nil
	}
	if carried == nil {
		return Answer{Issued: issued}, nil
	}
	issued.CA = carried.bundle
	if owner := metav1.GetControllerOfNoCopy(order.Request); owner == nil || owner.Kind != cmapi.CertificateKind {
		if err := i.rollovers.given(ctx, order.Issuer, authority, issued.Leaf); err != nil {
			return Answer{}, err
		}
	}
	return Answer{Issued: issued}, nil
}
