package certmanager

import (
	"context"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// A watch comes back sooner than client-go would have it.
const (
	watchRetryFirst = 200 * time.Millisecond
	watchRetryLast  = 10 * time.Second
)

// watch feeds a store with the objects of a resource until the context ends. No more than
// one whole object is in memory, also while they are listed.
func watch(ctx context.Context, client rest.Interface, resource, namespace string, narrow func(*metav1.ListOptions), kind any, s cache.ReflectorStore) {
	source := cache.NewFilteredListWatchFromClient(client, resource, namespace, narrow)
	if t, ok := s.(cache.TransformingStore); ok && emptyOne(kind) != nil {
		l := listed{client: client, resource: resource, namespace: namespace, narrow: narrow, kind: kind, reduce: t.Transformer()}
		follow(ctx, notStreamed{&cache.ListWatch{ListWithContextFunc: l.list, WatchFuncWithContext: source.WatchFuncWithContext}}, resource, kind, s)
		return
	}
	follow(ctx, source, resource, kind, s)
}

// watchMetadata is watch for the metadata of objects alone: nothing else is sent.
func watchMetadata(ctx context.Context, client metadata.Interface, resource schema.GroupVersionResource, namespace string, narrow func(*metav1.ListOptions), s cache.ReflectorStore) {
	of := client.Resource(resource).Namespace(namespace)
	source := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			narrow(&o)
			return of.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			narrow(&o)
			return of.Watch(ctx, o)
		},
	}, client)
	follow(ctx, source, resource.Resource, &metav1.PartialObjectMetadata{}, s)
}

func follow(ctx context.Context, source cache.ListerWatcher, resource string, kind any, s cache.ReflectorStore) {
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
