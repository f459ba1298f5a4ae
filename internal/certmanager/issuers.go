package certmanager

import (
	"context"
	"errors"
	"fmt"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/workload"
)

// handleIssuer verifies an issuer and writes its condition Ready.
func (c *Controller) handleIssuer(ctx context.Context, key issuerKey) error {
	issuer := c.issuer(key)
	if issuer == nil || issuer.GetDeletionTimestamp() != nil {
		c.authorities.forget(c.namesAuthority)
		again, err := c.rollovers.orphaned(ctx, key)
		if again > 0 {
			c.issuerQueue.AddAfter(key, again)
		}
		return err
	}
	if !c.Ours(refOf(issuer), key.namespace) {
		return nil
	}
	signer := c.signers[kindOf(issuer.GetSpec())]
	if signer == nil && kindOf(issuer.GetSpec()) != "" {
		return nil // of a kind that others serve
	}
	health, err := verify(ctx, signer, issuer)
	if health.Reason == "" && err != nil {
		return err
	}
	switch {
	case issuer.GetSpec().CA == nil:
		err = errors.Join(err, c.rollovers.forget(ctx, key))
	case health.Ready:
		err = errors.Join(err, c.rollOver(ctx, issuer, &health))
	}
	if wrote := c.writeHealth(ctx, key, issuer, health); wrote != nil {
		return errors.Join(err, wrote)
	}
	if health.Again > 0 {
		c.issuerQueue.AddAfter(key, health.Again)
	}
	return err
}

// verify asks who signs for an issuer whether it can, if the spec can be at all.
func verify(ctx context.Context, signer Issuer, issuer cmapi.GenericIssuer) (Health, error) {
	if err := workload.AdmitIssuer(issuer.GetSpec()); err != nil {
		return Health{Reason: workload.ReasonInvalidSpec, Message: err.Error()}, nil //nolint:nilerr // it is the answer, not a failure to find one
	}
	return signer.Verify(ctx, issuer)
}

// refOf is how objects name an issuer.
func refOf(issuer cmapi.GenericIssuer) cmmeta.IssuerReference {
	ref := cmmeta.IssuerReference{Name: issuer.GetName(), Kind: cmapi.IssuerKind, Group: cmapi.SchemeGroupVersion.Group}
	if issuer.GetNamespace() == "" {
		ref.Kind = cmapi.ClusterIssuerKind
	}
	return ref
}

// namesAuthority tells whether an issuer names a Secret.
func (c *Controller) namesAuthority(secret types.NamespacedName) bool {
	return len(c.issuersOf(secret)) > 0
}

// writeHealth writes the condition Ready of an issuer where it has changed.
func (c *Controller) writeHealth(ctx context.Context, key issuerKey, issuer cmapi.GenericIssuer, h Health) error {
	status := *issuer.GetStatus().DeepCopy()
	if h.Change != nil {
		h.Change(&status)
	}
	ready := cmmeta.ConditionFalse
	if h.Ready {
		ready = cmmeta.ConditionTrue
	}
	setIssuerCondition(&status, issuer.GetGeneration(), ready, h.Reason, h.Message, now())
	if equality.Semantic.DeepEqual(status, *issuer.GetStatus()) {
		return nil
	}
	if isReady(issuer) != h.Ready || !h.Ready {
		c.Events.Tell(issuerObject(issuer), !h.Ready, h.Reason, h.Message)
	}
	o := issuerObject(issuer)
	o.version = version(issuer.GetResourceVersion())
	w, err := c.Client.putStatus(ctx, o, status)
	if err != nil {
		return fmt.Errorf("writing the status of %s %s: %w", o.kind, o.name, err)
	}
	at := types.NamespacedName{Namespace: key.namespace, Name: key.name}
	if key.namespace == "" {
		changed := issuer.(*cmapi.ClusterIssuer).DeepCopy()
		changed.Status, changed.ResourceVersion = status, w.Metadata.ResourceVersion
		c.clusterIssuers.wrote(at, w.version(), changed)
		return nil
	}
	changed := issuer.(*cmapi.Issuer).DeepCopy()
	changed.Status, changed.ResourceVersion = status, w.Metadata.ResourceVersion
	c.issuers.wrote(at, w.version(), changed)
	return nil
}

func issuerObject(issuer cmapi.GenericIssuer) object {
	o := object{kind: cmapi.IssuerKind, resource: issuers, namespace: issuer.GetNamespace(), name: issuer.GetName(), uid: issuer.GetUID()}
	if o.namespace == "" {
		o.kind, o.resource = cmapi.ClusterIssuerKind, clusterIssuers
	}
	return o
}

// setIssuerCondition sets the condition Ready. The time of the last transition stays
// where its status does.
func setIssuerCondition(s *cmapi.IssuerStatus, generation int64, status cmmeta.ConditionStatus, reason, message string, at time.Time) {
	transition := metav1.NewTime(at)
	ready := cmapi.IssuerCondition{
		Type: cmapi.IssuerConditionReady, Status: status, Reason: reason, Message: message, LastTransitionTime: &transition, ObservedGeneration: generation,
	}
	for i := range s.Conditions {
		if old := &s.Conditions[i]; old.Type == ready.Type {
			if old.Status == status {
				ready.LastTransitionTime = old.LastTransitionTime
			}
			*old = ready
			return
		}
	}
	s.Conditions = append(s.Conditions, ready)
}
