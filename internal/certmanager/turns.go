package certmanager

import (
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
)

// newFairQueue makes a queue in which namespaces take turns: ten thousand new
// Certificates of one do not hold up those of another.
func newFairQueue() workqueue.TypedRateLimitingInterface[types.NamespacedName] {
	line := workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[types.NamespacedName]{Queue: &turns{waiting: map[string][]types.NamespacedName{}}})
	return workqueue.NewTypedRateLimitingQueueWithConfig(newLimits[types.NamespacedName](), workqueue.TypedRateLimitingQueueConfig[types.NamespacedName]{
		DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[types.NamespacedName]{Queue: line}),
	})
}

// turns is the order of a work queue, whose lock guards it.
type turns struct {
	next    []string                          // namespaces that have something to give
	waiting map[string][]types.NamespacedName // their keys, oldest first
	length  int
}

// Touch is told of a key that waits already.
func (*turns) Touch(types.NamespacedName) {}

func (t *turns) Push(key types.NamespacedName) {
	if len(t.waiting[key.Namespace]) == 0 {
		t.next = append(t.next, key.Namespace)
	}
	t.waiting[key.Namespace] = append(t.waiting[key.Namespace], key)
	t.length++
}

func (t *turns) Len() int { return t.length }

// Pop is called when there is something to give.
func (t *turns) Pop() types.NamespacedName {
	namespace := t.next[0]
	t.next = t.next[1:]
	keys := t.waiting[namespace]
	if len(keys) > 1 {
		t.waiting[namespace] = keys[1:]
		t.next = append(t.next, namespace)
	} else {
		delete(t.waiting, namespace)
	}
	t.length--
	return keys[0]
}
