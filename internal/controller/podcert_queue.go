package controller

import (
	"strings"

	"k8s.io/client-go/util/workqueue"
)

// newPodQueue makes a queue of requests by NAMESPACE/NAME, in which namespaces
// take turns: ten thousand new pods of one do not hold up those of another.
func newPodQueue() workqueue.TypedRateLimitingInterface[string] {
	limits := workqueue.NewTypedItemExponentialFailureRateLimiter[string](podRetryFirst, podRetryLast)
	line := workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[string]{Queue: &namespaceTurns{waiting: map[string][]string{}}})
	return workqueue.NewTypedRateLimitingQueueWithConfig(limits, workqueue.TypedRateLimitingQueueConfig[string]{
		DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[string]{Queue: line}),
	})
}

// namespaceTurns is the order of a work queue, whose lock guards it.
type namespaceTurns struct {
	turns   []string            // namespaces that have something to give, next first
	waiting map[string][]string // their keys, oldest first
	length  int
}

// Touch is told of a key that waits already.
func (*namespaceTurns) Touch(string) {}

func (t *namespaceTurns) Push(key string) {
	namespace, _, _ := strings.Cut(key, "/")
	if len(t.waiting[namespace]) == 0 {
		t.turns = append(t.turns, namespace)
	}
	t.waiting[namespace] = append(t.waiting[namespace], key)
	t.length++
}

func (t *namespaceTurns) Len() int { return t.length }

// Pop is called when there is something to give.
func (t *namespaceTurns) Pop() string {
	namespace := t.turns[0]
	t.turns = t.turns[1:]
	keys := t.waiting[namespace]
	if len(keys) > 1 {
		t.waiting[namespace] = keys[1:]
		t.turns = append(t.turns, namespace)
	} else {
		delete(t.waiting, namespace)
	}
	t.length--
	return keys[0]
}
