package certmanager

import (
	"context"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// A watch comes back sooner than client-go would have it.
const (
	watchRetryFirst = 200 * time.Millisecond
	watchRetryLast  = 10 * time.Second
)

// watch feeds a store with the objects of a resource until the context ends. The
// reflector has the list streamed, so that no more than one whole object is in memory.
func watch(ctx context.Context, client rest.Interface, resource, namespace string, narrow func(*metav1.ListOptions), kind any, s cache.ReflectorStore) {
	source := cache.NewFilteredListWatchFromClient(client, resource, namespace, narrow)
	r := cache.NewReflectorWithOptions(source, kind, s, cache.ReflectorOptions{
		Name:    "kubepki/" + resource,
		Backoff: &wait.Backoff{Duration: watchRetryFirst, Cap: watchRetryLast, Steps: 30, Factor: 2, Jitter: 0.5},
	})
	r.RunWithContext(ctx)
}

func all(*metav1.ListOptions) {}

// ofCertificates has the API server tell of the Secrets of certificates alone: those
// that cert-manager and we have labelled.
func ofCertificates(o *metav1.ListOptions) {
	o.LabelSelector = labels.Set{cmapi.PartOfCertManagerControllerLabelKey: "true"}.String()
}

// named has the API server tell of one object alone.
func named(name string) func(*metav1.ListOptions) {
	return func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	}
}
