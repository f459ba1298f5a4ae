package controller

import (
	"context"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// Events tells people about requests, as Events of the Kubernetes API. They say
// nothing of the policy: `kubepki csr review` and the log do.
type Events interface {
	Denied(*certificatesv1.CertificateSigningRequest)
	Undecided(name string, uid types.UID)
}

// What Events of one process may cost: so many at once, then one each second.
const (
	eventBurst = 50
	eventRate  = 1
)

type recorder struct{ events record.EventRecorder }

// NewEvents records Events until the context ends. Alike ones are put together;
// so that a flood of requests makes no flood of Events, all of them share one
// limit.
func NewEvents(ctx context.Context, client kubernetes.Interface) Events {
	b := record.NewBroadcaster(record.WithContext(ctx), record.WithCorrelatorOptions(record.CorrelatorOptions{
		BurstSize: eventBurst, QPS: eventRate,
		SpamKeyFunc: func(*corev1.Event) string { return "" },
	}))
	b.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	context.AfterFunc(ctx, b.Shutdown)
	return recorder{b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubepki"})}
}

func (r recorder) Denied(o *certificatesv1.CertificateSigningRequest) {
	r.events.Event(reference(o.Name, o.UID), corev1.EventTypeWarning, "Denied", "The request was denied; kubepki csr review --as-pending tells why.")
}

func (r recorder) Undecided(name string, uid types.UID) {
	r.events.Event(reference(name, uid), corev1.EventTypeNormal, "Undecided", "The request has waited for long; kubepki csr review tells for what.")
}

func reference(name string, uid types.UID) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "certificates.k8s.io/v1", Kind: "CertificateSigningRequest", Name: name, UID: uid}
}
