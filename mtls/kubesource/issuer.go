package kubesource

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/mtls"
)

// Issuer is an [mtls.Issuer] that asks a signer of the cluster, by a
// CertificateSigningRequest of certificates.k8s.io/v1 each time. Somebody must
// approve them. It takes the rights to create, list and watch them.
type Issuer struct {
	// Client is who asks: what signers look at.
	Client kubernetes.Interface
	// SignerName is such as kubernetes.io/kube-apiserver-client.
	SignerName string
	// Usages are what is asked for, such as digital signature and client auth.
	Usages []certificatesv1.KeyUsage
	// Expiration is how long the certificate shall live, 10 minutes at least; 0: as
	// the signer likes. A signer may give less.
	Expiration time.Duration
	// Prefix begins the names of the requests, which a random part ends; "": mtls-.
	Prefix string
}

// minExpiration is what the API accepts (k8s.io/api/certificates/v1,
// CertificateSigningRequestSpec.ExpirationSeconds).
const minExpiration = 10 * time.Minute

// Issue creates a request and waits for its certificate as long as ctx lives. The
// error names the request, and says whether it was denied, has failed, was
// removed, or is still waited for and by whom. The request stays: the cluster's
// cleaner removes it.
func (i *Issuer) Issue(ctx context.Context, request []byte) (*mtls.Issued, error) {
	o, err := i.object(request)
	if err != nil {
		return nil, err
	}
	requests := i.Client.CertificatesV1().CertificateSigningRequests()
	if o, err = requests.Create(ctx, o, metav1.CreateOptions{}); err != nil {
		return nil, fmt.Errorf("creating a certificate signing request for signer %s: %w", i.SignerName, err)
	}
	certificate, err := await(ctx, i.Client, o)
	if err != nil {
		return nil, fmt.Errorf("certificate signing request %s for signer %s: %w", o.Name, i.SignerName, err)
	}
	chain, err := trust.ParseCertificates(certificate)
	if err != nil {
		return nil, fmt.Errorf("certificate signing request %s: status.certificate: %w", o.Name, err)
	}
	return &mtls.Issued{Chain: chain}, nil
}

func (i *Issuer) object(request []byte) (*certificatesv1.CertificateSigningRequest, error) {
	switch {
	case i.Client == nil:
		return nil, errors.New("kubesource.Issuer: Client is not set")
	case i.SignerName == "":
		return nil, errors.New("kubesource.Issuer: SignerName is not set")
	case len(i.Usages) == 0:
		return nil, errors.New("kubesource.Issuer: Usages is not set")
	case i.Expiration != 0 && i.Expiration < minExpiration:
		return nil, fmt.Errorf("kubesource.Issuer: Expiration is %s: the API takes %s at least", i.Expiration, minExpiration)
	}
	spec := certificatesv1.CertificateSigningRequestSpec{
		Request: pem.EncodeToMemory(&pem.Block{Type: trust.RequestType, Bytes: request}), SignerName: i.SignerName, Usages: i.Usages,
	}
	if i.Expiration != 0 {
		seconds := int32(min(i.Expiration/time.Second, math.MaxInt32))
		spec.ExpirationSeconds = &seconds
	}
	prefix := i.Prefix
	if prefix == "" {
		prefix = "mtls-"
	}
	return &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{GenerateName: prefix}, Spec: spec}, nil
}
