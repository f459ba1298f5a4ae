package certmanager

import (
	"context"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/rollover"
	"github.com/kubepki/kubepki/internal/workload"
)

// census is who uses and who lacks which anchor of an issuer.
type census struct {
	lacking map[rollover.ID]int
	leaves  map[rollover.ID]int
	others  map[rollover.ID]time.Time // until when certificates live that others hold
	places  int                       // Secrets that are to hold the bundle
	unknown int                       // of them, of a CA that no record names
	example types.NamespacedName      // one that lacks the newest
}

// certificatesOf is how many Certificates name an issuer.
func (s *stores) certificatesOf(key issuerKey) int {
	n := 0
	for at, k := range s.certificates.each() {
		if i, ok := issuerOf(k.value.Spec.IssuerRef, at.Namespace); ok && i == key {
			n++
		}
	}
	return n
}

// census looks at all Secrets. Whoever has a certificate of an anchor counts, whatever
// issuer it names: who verifies it does not ask.
func (s *stores) census(key issuerKey, rec *caRecord, at time.Time) census {
	c := census{lacking: map[rollover.ID]int{}, leaves: map[rollover.ID]int{}, others: map[rollover.ID]time.Time{}}
	target := rec.Target()
	for name, k := range s.secrets.each() {
		f := &k.value.SecretFacts
		if f.Leaf == ([32]byte{}) || !f.NotAfter.After(at) {
			continue
		}
		id, known := rec.signerOf(f.Signer, f.SignedBy)
		if known {
			c.leaves[id]++
		}
		if i, ok := issuerOf(f.Issuer, name.Namespace); !ok || i != key || !s.written(name, f) {
			continue
		}
		c.places++
		if !known {
			c.unknown++
			continue
		}
		for _, a := range rec.Anchors {
			if !f.Bundle.Has(workload.AnchorID(a.ID)) {
				c.lacking[a.ID]++
				if a.ID == target.ID {
					c.example = name
				}
			}
		}
	}
	for _, k := range s.requests.each() {
		f := k.value
		if f.Owner != "" || f.State != workload.RequestIssued || !f.NotAfter.After(at) {
			continue
		}
		if id, ok := rec.signerOf(f.Signer, workload.AnchorID{}); ok && f.NotAfter.After(c.others[id]) {
			c.others[id] = f.NotAfter
		}
	}
	return c
}

// written tells whether a Certificate is there that writes a Secret.
func (s *stores) written(secret types.NamespacedName, f *workload.SecretFacts) bool {
	o, _ := s.certificates.get(types.NamespacedName{Namespace: secret.Namespace, Name: f.CertificateName})
	return o != nil && o.Spec.SecretName == secret.Name
}

// signerOf is the anchor by which a chain is verified; false: it is of no known one.
func (r *caRecord) signerOf(name workload.Signer, signedBy workload.AnchorID) (rollover.ID, bool) {
	if name == (workload.Signer{}) {
		return rollover.ID{}, false
	}
	if id := rollover.ID(signedBy); r.certificates[id] != nil {
		return id, true
	}
	var found rollover.ID
	n := 0
	for id, c := range r.certificates {
		if workload.SignerOf(c) == name {
			found = id
			n++
		}
	}
	return found, n == 1
}

// carry is what a change of the CA asks of a Certificate, and what its ca.crt shall hold.
func (c *Controller) carry(ctx context.Context, o *cmapi.Certificate, f *workload.SecretFacts) (workload.Carry, []byte) {
	key, ok := issuerOf(o.Spec.IssuerRef, o.Namespace)
	if !ok || !f.Exists {
		return workload.Carry{}, nil
	}
	issuer := c.issuer(key)
	if issuer != nil && issuer.GetSpec().SelfSigned != nil && o.Spec.IsCA {
		return c.carryRoot(ctx, o, f)
	}
	v := c.viewOf(ctx, issuer)
	if v == nil {
		return workload.Carry{}, nil
	}
	if was, ok := issuerOf(f.Issuer, o.Namespace); !ok || was != key {
		return workload.Carry{}, nil // it is to be issued anew anyhow
	}
	id, known := v.record.signerOf(f.Signer, f.SignedBy)
	if !known {
		return workload.Carry{}, nil
	}
	carry := workload.Carry{Bundle: v.wanted, Due: v.plan.Due(id, string(o.UID))}
	if id != v.record.Signing {
		carry.Hold = v.plan.Hold
	}
	return carry, v.bundle
}

// viewOf is what is known of the CAs of an issuer; nil: it is not carried over, or
// nothing is signed now.
func (c *Controller) viewOf(ctx context.Context, issuer cmapi.GenericIssuer) *view {
	if issuer == nil || issuer.GetSpec().CA == nil || !isReady(issuer) || !c.Ours(refOf(issuer), issuer.GetNamespace()) {
		return nil
	}
	_, v, err := c.rollovers.signer(ctx, issuer)
	if err != nil {
		return nil
	}
	return v
}

// carryRoot is what ca.crt of a root's own Secret shall hold: what the issuers that sign
// with it publish, for there are readers who take it from there.
func (c *Controller) carryRoot(ctx context.Context, o *cmapi.Certificate, f *workload.SecretFacts) (workload.Carry, []byte) {
	var best *view
	for _, issuer := range c.issuersOf(secretOf(o)) {
		v := c.viewOf(ctx, issuer)
		if v == nil || v.record.Target().Certificate != f.Leaf {
			continue
		}
		if best == nil || len(v.bundle) > len(best.bundle) || len(v.bundle) == len(best.bundle) && string(v.bundle) < string(best.bundle) {
			best = v
		}
	}
	if best == nil {
		return workload.Carry{}, nil
	}
	return workload.Carry{Bundle: best.wanted}, best.bundle
}
