package load

import (
	"context"
	"fmt"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// A leader renews its lease every two seconds, and has lost it when it has not
// for so long (LeaseDuration in k/component-base config/v1alpha1/defaults.go).
const leaderRenewal = 15 * time.Second

// managerStreams show that kube-controller-manager and kube-scheduler reach the
// API server: by what they do, and by the leases of the leaders.
func (s *site) managerStreams(context.Context, *clients) ([]*Stream, error) {
	manager, scheduler := &managed{user: s.administrator(), site: s}, &scheduled{user: s.administrator(), site: s}
	all := []*Stream{{Name: "controller-manager", Link: 5, Every: 5 * time.Second, Do: manager.do, Close: manager.user.close}}
	if len(s.nodes) > 0 {
		all = append(all, &Stream{Name: "scheduler", Link: 6, Every: 5 * time.Second, Do: scheduler.do, Close: scheduler.user.close})
	} else {
		s.absent("scheduler", 6, "no node has joined that a pod could be put on")
	}
	return append(all,
		s.leaseStream("controller-manager-lease", 5, metav1.NamespaceSystem, "kube-controller-manager", leaderRenewal),
		s.leaseStream("scheduler-lease", 6, metav1.NamespaceSystem, "kube-scheduler", leaderRenewal)), nil
}

// leaseStream looks whether a lease is renewed in time.
func (s *site) leaseStream(stream string, link int, space, name string, bound time.Duration) *Stream {
	user := s.administrator()
	return &Stream{Name: stream, Link: link, Every: time.Second, Close: user.close, Do: func(ctx context.Context) error {
		return user.call(func(c *clients) error {
			lease, err := c.coordination.Leases(space).Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if lease.Spec.RenewTime == nil {
				return fmt.Errorf("lease %s was never renewed", name)
			}
			if age := time.Since(lease.Spec.RenewTime.Time); age > bound {
				return fmt.Errorf("lease %s was last renewed %.1f s ago by %s", name, age.Seconds(), ptr.Deref(lease.Spec.HolderIdentity, "nobody"))
			}
			return nil
		})
	}}
}

// gate keeps the pods of the stream controller-manager from the scheduler, so
// that no kubelet has work with them.
const gate = "lab.kubepki.dev/load"

// managed creates a Deployment, waits for its pod, which three controllers have
// to make, deletes it, and waits until the garbage collector has taken the pod.
type managed struct {
	user *user
	site *site
	n    int
}

func (m *managed) do(ctx context.Context) error {
	m.n++
	meta := m.site.meta("deployment-" + strconv.Itoa(m.n))
	meta.Labels["app"] = meta.Name
	return m.user.call(func(c *clients) error {
		all := c.apps.Deployments(namespace)
		if _, err := all.Create(ctx, m.deployment(meta), metav1.CreateOptions{}); err != nil {
			return err
		}
		if err := m.pods(ctx, c, meta.Name, 1); err != nil {
			return err
		}
		soon := metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}
		if err := all.Delete(ctx, meta.Name, soon); err != nil {
			return err
		}
		return m.pods(ctx, c, meta.Name, 0)
	})
}

func (m *managed) deployment(meta metav1.ObjectMeta) *appsv1.Deployment {
	spec := m.site.pause()
	spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: gate}}
	return &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": meta.Name}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: meta.Labels}, Spec: spec},
	}}
}

// pods waits until the Deployment has as many pods.
func (m *managed) pods(ctx context.Context, c *clients, app string, want int) error {
	return eventually(ctx, func(ctx context.Context) error {
		pods, err := c.core.Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
		if err == nil && len(pods.Items) != want {
			return notYet(fmt.Sprintf("deployment %s has %d pods instead of %d", app, len(pods.Items), want))
		}
		return err
	})
}

// pause is a pod that runs nothing.
func (s *site) pause() corev1.PodSpec {
	return corev1.PodSpec{
		ServiceAccountName: s.account(), TerminationGracePeriodSeconds: ptr.To[int64](0),
		Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		Containers:  []corev1.Container{{Name: "pause", Image: "registry.k8s.io/pause:3.10"}},
	}
}

// scheduled creates a pod, waits until it is put on a node, and deletes it.
type scheduled struct {
	user *user
	site *site
	n    int
}

func (s *scheduled) do(ctx context.Context) error {
	s.n++
	pod := &corev1.Pod{ObjectMeta: s.site.meta("scheduled-" + strconv.Itoa(s.n)), Spec: s.site.pause()}
	return s.user.call(func(c *clients) error {
		all := c.core.Pods(namespace)
		if _, err := all.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			return err
		}
		err := eventually(ctx, func(ctx context.Context) error {
			got, err := all.Get(ctx, pod.Name, metav1.GetOptions{})
			if err == nil && got.Spec.NodeName == "" {
				return notYet(fmt.Sprintf("pod %s is on no node yet", pod.Name))
			}
			return err
		})
		if err != nil {
			return err
		}
		return all.Delete(ctx, pod.Name, metav1.DeleteOptions{})
	})
}
