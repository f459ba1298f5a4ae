package kubesource

import (
	"context"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// feed is how some objects are asked for.
type feed struct {
	object string // for client-go's log
	lister cache.ListerWatcherWithContext
	// read takes what matters from an object; ok is false where it is none of ours.
	read func(object any) (c content, ok bool)
}

func byName(name string) string {
	return fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
}

// only lists and watches one object. client-go's NewListWatchFromClient does that
// for REST clients, which fake clients have none of.
func only[L runtime.Object](name string, list func(context.Context, metav1.ListOptions) (L, error), follow func(context.Context, metav1.ListOptions) (watch.Interface, error)) cache.ListerWatcherWithContext {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = byName(name)
			return list(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = byName(name)
			return follow(ctx, o)
		},
	}
}

func secretFeed(client kubernetes.Interface, namespace, name string) feed {
	api := client.CoreV1().Secrets(namespace)
	return feed{
		object: Secret{namespace, name}.String(),
		lister: only(name, api.List, api.Watch),
		read: func(object any) (content, bool) {
			o, ok := object.(*corev1.Secret)
			if !ok || o.Name != name {
				return content{}, false
			}
			return content{name, pick(o.Data, certificateKey, privateKey, authorityKey)}, true
		},
	}
}

func configMapFeed(client kubernetes.Interface, namespace, name, key string) feed {
	api := client.CoreV1().ConfigMaps(namespace)
	return feed{
		object: ConfigMap(namespace, name, key).String(),
		lister: only(name, api.List, api.Watch),
		read: func(object any) (content, bool) {
			o, ok := object.(*corev1.ConfigMap)
			if !ok || o.Name != name {
				return content{}, false
			}
			c := content{name, pick(o.BinaryData, key)}
			if text, ok := o.Data[key]; ok {
				c.data[key] = []byte(text)
			}
			return c, true
		},
	}
}

// pick takes some keys, so that nothing else stays in memory.
func pick(data map[string][]byte, keys ...string) map[string][]byte {
	picked := map[string][]byte{}
	for _, k := range keys {
		if v, ok := data[k]; ok {
			picked[k] = v
		}
	}
	return picked
}

func (b Bundle) feed(client kubernetes.Interface) feed {
	switch b.kind {
	case kindSecret:
		return secretFeed(client, b.namespace, b.name)
	case kindConfigMap:
		return configMapFeed(client, b.namespace, b.name, b.key)
	}
	return feed{object: b.String(), lister: newTrustBundles(client, b), read: b.readTrustBundle}
}

// readTrustBundle reads both versions, whose text is the same; it is kept under
// the empty key.
func (b Bundle) readTrustBundle(object any) (content, bool) {
	var meta metav1.ObjectMeta
	var spec certificatesv1.ClusterTrustBundleSpec
	switch o := object.(type) {
	case *certificatesv1.ClusterTrustBundle:
		meta, spec = o.ObjectMeta, o.Spec
	case *certificatesv1beta1.ClusterTrustBundle:
		meta, spec = o.ObjectMeta, certificatesv1.ClusterTrustBundleSpec(o.Spec)
	default:
		return content{}, false
	}
	is := meta.Name == b.name
	if b.kind == kindTrustBundles {
		is = spec.SignerName == b.signer && b.selector().Matches(labelSet(meta.Labels))
	}
	return content{meta.Name, map[string][]byte{"": []byte(spec.TrustBundle)}}, is
}
