package load

import (
	"context"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// reads gets and lists in turn.
type reads struct {
	user *user
	n    int
}

func (r *reads) do(ctx context.Context) error {
	return r.user.call(func(c *clients) error {
		r.n++
		if r.n%2 == 0 {
			_, err := c.core.Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
			return err
		}
		list, err := c.core.Namespaces().List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) == 0 {
			return fmt.Errorf("the list of namespaces is empty")
		}
		return err
	})
}

// writes creates, updates and deletes an object, and reads it back each time.
type writes struct {
	user *user
	site *site
	n    int
}

func (w *writes) do(ctx context.Context) error {
	w.n++
	want := &corev1.ConfigMap{ObjectMeta: w.site.meta("write-" + strconv.Itoa(w.n)), Data: map[string]string{"step": "created"}}
	return w.user.call(func(c *clients) error {
		all := c.core.ConfigMaps(namespace)
		if _, err := all.Create(ctx, want, metav1.CreateOptions{}); err != nil {
			return err
		}
		got, err := w.read(ctx, c, want)
		if err != nil {
			return err
		}
		want.ResourceVersion, want.Data["step"] = got.ResourceVersion, "updated"
		if _, err := all.Update(ctx, want, metav1.UpdateOptions{}); err != nil {
			return err
		}
		if _, err := w.read(ctx, c, want); err != nil {
			return err
		}
		if err := all.Delete(ctx, want.Name, metav1.DeleteOptions{}); err != nil {
			return err
		}
		if _, err := all.Get(ctx, want.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("configmap %s is still there after it was deleted: %w", want.Name, err)
		}
		return nil
	})
}

// read reads an object back and compares.
func (w *writes) read(ctx context.Context, c *clients, want *corev1.ConfigMap) (*corev1.ConfigMap, error) {
	got, err := c.core.ConfigMaps(namespace).Get(ctx, want.Name, metav1.GetOptions{})
	if err == nil && got.Data["step"] != want.Data["step"] {
		return nil, fmt.Errorf("configmap %s: %q was written and %q read back", want.Name, want.Data["step"], got.Data["step"])
	}
	return got, err
}
