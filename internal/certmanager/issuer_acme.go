package certmanager

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/acmeissuer"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

// acmeIssuer has an ACME server sign: Issuers with spec.acme.
type acmeIssuer struct {
	orders *acmeissuer.Orders
	c      *Controller
}

func newACMEIssuer(orders *acmeissuer.Orders, c *Controller) *acmeIssuer {
	orders.Event, orders.Replaced = c.tellACME, c.replaced
	return &acmeIssuer{orders, c}
}

// AtOnce is false: names are proved first.
func (*acmeIssuer) AtOnce() bool { return false }

// Verify tells whether the server knows the issuer's account, and registers it where it
// does not.
func (i *acmeIssuer) Verify(ctx context.Context, issuer cmapi.GenericIssuer) (Health, error) {
	s, err := i.orders.Accounts.Verify(ctx, issuer)
	for _, w := range s.Warnings {
		i.c.Events.Tell(issuerObject(issuer), true, "Unsupported", w)
	}
	return Health{
		Ready: s.Condition.Status == cmmeta.ConditionTrue, Reason: s.Condition.Reason, Message: s.Condition.Message,
		Change: func(status *cmapi.IssuerStatus) { status.ACME = &s.Status },
	}, err
}

// Sign takes the request's Order a step further.
func (i *acmeIssuer) Sign(ctx context.Context, order Order) (Answer, error) {
	a, err := i.orders.Step(ctx, order.Request, order.Issuer)
	if err != nil {
		return Answer{}, err
	}
	if a.Reverify {
		i.c.issuerQueue.Add(issuerKey{order.Issuer.GetNamespace(), order.Issuer.GetName()})
	}
	switch a.Verdict {
	case acmeissuer.Issued:
		chain, err := trust.ParseCertificates(a.Chain)
		if err != nil || len(chain) == 0 {
			return Answer{Failed: true, Reason: "OrderBadCertificate", Message: fmt.Sprintf("The server's certificate cannot be read: %v", err)}, nil //nolint:nilerr // it is the answer
		}
		return Answer{Issued: &workload.Issued{Chain: a.Chain, Leaf: chain[0]}}, nil
	case acmeissuer.Failed:
		return Answer{Failed: true, Reason: a.Reason, Message: a.Message}, nil
	}
	return Answer{Reason: a.Reason, Message: a.Message, Again: a.Again}, nil
}

// sweepEvery is how often it is looked for challenges that nobody comes to any more.
const sweepEvery = time.Minute

// sweep cleans up after challenges until the context ends.
func (i *acmeIssuer) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		limited, cancel := context.WithTimeout(ctx, patience)
		err := i.orders.Sweep(limited, i.c.findIssuer)
		cancel()
		if err != nil && ctx.Err() == nil {
			i.c.Log.Warn("workloads: challenges were not swept", "error", err.Error())
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// findIssuer returns the issuer that an object in a namespace names, nil where it is
// gone, and whether it is ours.
func (c *Controller) findIssuer(ref cmmeta.IssuerReference, namespace string) (cmapi.GenericIssuer, bool) {
	key, ok := issuerOf(ref, namespace)
	if !ok || !c.Ours(ref, namespace) {
		return nil, false
	}
	return c.issuer(key), true
}

// tellACME tells users of a step, on an Order or a Challenge.
func (c *Controller) tellACME(o runtime.Object, warning bool, reason, message string) {
	at := object{apiVersion: cmacme.SchemeGroupVersion.String()}
	var m *metav1.ObjectMeta
	switch o := o.(type) {
	case *cmacme.Order:
		at.kind, m = cmacme.OrderKind, &o.ObjectMeta
	case *cmacme.Challenge:
		at.kind, m = cmacme.ChallengeKind, &o.ObjectMeta
	default:
		return
	}
	at.namespace, at.name, at.uid = m.Namespace, m.Name, m.UID
	c.Events.Tell(at, warning, reason, message)
}

// replaced returns the certificate that a request is to replace: the one in the Secret
// of its Certificate; nil where there is none.
func (c *Controller) replaced(ctx context.Context, r *cmapi.CertificateRequest) *x509.Certificate {
	o, _ := c.certificates.get(types.NamespacedName{Namespace: r.Namespace, Name: r.Annotations[cmapi.CertificateNameKey]})
	if o == nil {
		return nil
	}
	secret, err := c.readSecret(ctx, secretOf(o))
	if err != nil || secret == nil {
		return nil
	}
	chain, err := trust.ParseCertificates(secret.Data[corev1.TLSCertKey])
	if err != nil || len(chain) == 0 {
		return nil
	}
	return chain[0]
}
