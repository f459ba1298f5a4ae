package controller

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/signer"
)

// DefaultDuration is the longest life of a certificate where the policy does not
// say: kube-controller-manager's --cluster-signing-duration.
const DefaultDuration = 365 * 24 * time.Hour

// signature is a certificate with its chain in PEM, or why there is none.
type signature struct {
	chain []byte
	leaf  leaf
	err   error
}

// signature signs. It has no context: what makes signatures elsewhere has
// limits of its own.
func (c *CSR) signature(source signer.Source, r csr.Request) (s signature) {
	began := time.Now()
	authority, err := source.Authority()
	if err != nil {
		return signature{err: err}
	}
	if authority.Certificate == nil {
		return signature{err: errors.New("there is no authority to sign with")}
	}
	sum := likeness(r)
	if s, ok := c.alike.get(sum, authority.Certificate.Raw, began); ok {
		return s
	}
	if s.chain, s.err = csr.Sign(r, authority, c.longest(r.SignerName), began); s.err != nil {
		return s
	}
	c.Metrics.signing.WithLabelValues(r.SignerName).Observe(since(began))
	var ok bool
	if s.leaf, ok = readLeaf(s.chain); !ok {
		s.err = errors.New("the certificate that was made does not parse")
		return s
	}
	c.alike.put(sum, authority.Certificate.Raw, s, began)
	return s
}

// longest is the longest life that a signer gives.
func (c *CSR) longest(signerName string) time.Duration {
	if d, ok := c.Policy.MaxDuration[signerName]; ok {
		return d
	}
	if d, ok := c.Policy.MaxDuration[""]; ok {
		return d
	}
	return DefaultDuration
}

// isAuthority tells whether a key is one of an authority that signs here.
func (c *CSR) isAuthority(sum [32]byte) bool {
	if slices.Contains(c.Authorities, sum) {
		return true
	}
	for _, source := range c.Sources {
		authority, err := source.Authority()
		if err != nil {
			continue
		}
		if authority.Certificate != nil && sha256.Sum256(authority.Certificate.RawSubjectPublicKeyInfo) == sum {
			return true
		}
		for _, above := range authority.Chain {
			if sha256.Sum256(above.RawSubjectPublicKeyInfo) == sum {
				return true
			}
		}
	}
	return false
}

// sign signs a request that somebody has approved, perhaps this controller in an
// earlier life.
func (c *CSR) sign(ctx context.Context, it *item, body *certificatesv1.CertificateSigningRequest, r csr.Request) (outcome, error) {
	return c.publish(ctx, it, body, r, c.signature(c.Sources[r.SignerName], r))
}

// publish writes a certificate into the object, or that there will be none.
func (c *CSR) publish(ctx context.Context, it *item, body *certificatesv1.CertificateSigningRequest, r csr.Request, s signature) (outcome, error) {
	o := *body
	var never *csr.UnsignableError
	switch {
	case errors.As(s.err, &never):
		o.Status.Conditions = append(slices.Clip(o.Status.Conditions), certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue,
			Reason: unsignableReason, Message: never.Message, LastUpdateTime: metav1.Now(),
		})
	case s.err != nil:
		return failed, &stepError{"sign", s.err}
	default:
		// Before anybody can have the certificate.
		if err := c.Issuance.append(r, it, s); err != nil {
			return failed, &stepError{"issuance-log", fmt.Errorf("issuance log: %w", err)}
		}
		o.Status.Certificate = s.chain
	}
	answer, err := c.api.UpdateStatus(ctx, &o, metav1.UpdateOptions{})
	if err != nil {
		return c.refused(ctx, it, "publish", err)
	}
	c.ledger.wrote(it, see(answer, c.wants))
	c.issued(it, r, s, never)
	return finished, nil
}
