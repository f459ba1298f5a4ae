package certmanager

import (
	"context"
	"errors"
	"fmt"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/workload"
)

// caIssuer signs with the authority in a Secret: Issuers with spec.ca.
type caIssuer struct {
	authorities *authorities
	// cluster is the namespace of the Secrets that ClusterIssuers name.
	cluster string
}

// AtOnce is true: the key is at hand.
func (*caIssuer) AtOnce() bool { return true }

func (i *caIssuer) secret(issuer cmapi.GenericIssuer) types.NamespacedName {
	namespace := issuer.GetNamespace()
	if namespace == "" {
		namespace = i.cluster
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
	if err := authority.Usable(now()); err != nil {
		return Health{Reason: "ErrInvalidKeyPair", Message: failed + err.Error()}, nil
	}
	return Health{Ready: true, Reason: "KeyPairVerified", Message: "Signing CA verified", Again: authority.NotAfter().Sub(now()) + time.Second}, nil
}

// Sign signs.
func (i *caIssuer) Sign(ctx context.Context, order Order) (Answer, error) {
	key := i.secret(order.Issuer)
	authority, err := i.authorities.get(ctx, key)
	switch {
	case apierrors.IsNotFound(err):
		return Answer{Reason: "SecretMissing", Message: fmt.Sprintf("Referenced secret %s not found: %v", key, err)}, nil
	case errors.Is(err, errInvalid):
		return Answer{Reason: "SecretInvalidData", Message: fmt.Sprintf("Failed to parse signing CA keypair from secret %s: %v", key, err)}, nil
	case err != nil:
		return Answer{}, err
	}
	if err := authority.Usable(now()); err != nil { // it waits for another authority
		return Answer{Reason: "SecretInvalidData", Message: fmt.Sprintf("The authority in secret %s cannot sign: %v", key, err)}, nil
	}
	issued, err := workload.Sign(order.Asked, authority, order.Issuer.GetSpec().CA, now())
	if err != nil {
		return Answer{Failed: true, Reason: "SigningError", Message: fmt.Sprintf("Error signing certificate: %v", err)}, nil
	}
	return Answer{Issued: issued}, nil
}
