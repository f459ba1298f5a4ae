package certmanager

import (
	"context"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
)

// Events tells people about objects, as Events of the Kubernetes API.
type Events interface {
	Tell(o object, warning bool, reason, message string)
}

// An Event is a write as large as those that issue a certificate. Where thousands are
// issued at once not each gets its own: so many at once, then so many each second. What
// warns has a limit of its own, so that it is not lost among what went well.
const (
	eventBurst, eventRate     = 100, 5
	warningBurst, warningRate = 500, 10
)

type recorder struct {
	events          record.EventRecorder
	normal, warning flowcontrol.RateLimiter
}

// NewEvents records Events until the context ends.
func NewEvents(ctx context.Context, client kubernetes.Interface) Events {
	b := record.NewBroadcaster(record.WithContext(ctx))
	b.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	context.AfterFunc(ctx, b.Shutdown)
	return &recorder{
		events: b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubepki"}),
		normal: flowcontrol.NewTokenBucketRateLimiter(eventRate, eventBurst), warning: flowcontrol.NewTokenBucketRateLimiter(warningRate, warningBurst),
	}
}

func (r *recorder) Tell(o object, warning bool, reason, message string) {
	kind, limit := corev1.EventTypeNormal, r.normal
	if warning {
		kind, limit = corev1.EventTypeWarning, r.warning
	}
	if !limit.TryAccept() {
		return
	}
	r.events.Event(&corev1.ObjectReference{
		APIVersion: cmapi.SchemeGroupVersion.String(), Kind: o.kind, Namespace: o.namespace, Name: o.name, UID: o.uid,
	}, kind, reason, message)
}

type noEvents struct{}

func (noEvents) Tell(object, bool, string, string) {}
