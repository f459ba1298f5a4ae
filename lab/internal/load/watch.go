package load

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
)

// watchSeconds is how long the server keeps a watch, so that a run sees watches
// end and begin again.
const watchSeconds = 60

// watched writes a number into an object and waits until a watch has told of it.
// One watch serves many requests. Where the server ends it, it is opened again
// from the last version that was seen, which must lose nothing.
type watched struct {
	user *user
	site *site

	object *corev1.ConfigMap
	number int
	seen   string // the last version that the watch told of
	events watch.Interface
	cancel context.CancelFunc // ends the watch
}

// makeWatched makes the object that is watched.
func (s *site) makeWatched(ctx context.Context, c *clients) (err error) {
	object := &corev1.ConfigMap{ObjectMeta: s.meta("watched"), Data: map[string]string{"number": "0"}}
	s.watched, err = c.core.ConfigMaps(namespace).Create(ctx, object, metav1.CreateOptions{})
	return err
}

func (w *watched) close() {
	w.end()
	w.user.close()
}

func (w *watched) end() {
	if w.events != nil {
		w.events.Stop()
		w.cancel()
		w.events = nil
	}
}

func (w *watched) do(ctx context.Context) error {
	if w.object == nil {
		w.object, w.seen = w.site.watched, w.site.watched.ResourceVersion
	}
	return w.user.call(func(c *clients) error {
		if err := w.open(ctx, c); err != nil {
			return err
		}
		written, err := w.write(ctx, c)
		if err != nil {
			return err
		}
		for {
			arrived, err := w.next(ctx, written)
			if errors.Is(err, errEnded) {
				if err = w.open(ctx, c); err == nil {
					continue
				}
			}
			if arrived || err != nil {
				return err
			}
		}
	})
}

// write writes the next number and returns the object's new version. A write
// that failed may have happened, so that the version is read anew after it.
func (w *watched) write(ctx context.Context, c *clients) (string, error) {
	all := c.core.ConfigMaps(namespace)
	w.number++
	w.object.Data = map[string]string{"number": strconv.Itoa(w.number)}
	updated, err := all.Update(ctx, w.object, metav1.UpdateOptions{})
	if err != nil {
		w.object.ResourceVersion = "" // the next write does not depend on what has become of this one
		return "", err
	}
	w.object = updated
	return updated.ResourceVersion, nil
}

// open opens the watch, unless it is open.
func (w *watched) open(ctx context.Context, c *clients) error {
	if w.events != nil {
		return nil
	}
	// The watch is to outlive the request that opens it, but not to hang in it.
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	inTime := context.AfterFunc(ctx, cancel)
	events, err := c.core.ConfigMaps(namespace).Watch(longer, metav1.ListOptions{
		FieldSelector: "metadata.name=" + w.object.Name, ResourceVersion: w.seen, TimeoutSeconds: ptr.To[int64](watchSeconds),
	})
	if err == nil && !inTime() {
		events.Stop()
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		return fmt.Errorf("open the watch: %w", err)
	}
	w.events, w.cancel = events, cancel
	return nil
}

// errEnded tells that the server has ended a watch.
var errEnded = errors.New("the watch has ended")

// next takes the next event and tells whether it is the one of a version.
func (w *watched) next(ctx context.Context, version string) (bool, error) {
	select {
	case <-ctx.Done():
		w.end()
		return false, fmt.Errorf("the watch has not told of the write of %d in time", w.number)
	case event, ok := <-w.events.ResultChan():
		if !ok {
			w.end()
			return false, errEnded
		}
		object, ok := event.Object.(*corev1.ConfigMap)
		if event.Type == watch.Error || !ok {
			return false, w.broken(event)
		}
		before, got := w.seen, object.ResourceVersion
		w.seen = got
		if event.Type != watch.Modified && before != "" {
			return false, fmt.Errorf("the watch tells of %s after version %s", event.Type, before)
		}
		return got == version, nil
	}
}

// broken ends a watch that has told of an error. When the server no longer knows
// the version, what came after it is lost, and the watch begins anew.
func (w *watched) broken(event watch.Event) error {
	w.end()
	err := apierrors.FromObject(event.Object)
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		w.seen = ""
	}
	return fmt.Errorf("the watch has told of an error: %w", err)
}
