package why

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The causes for which a Pod does not start, beside those of the Certificates that make
// its Secrets.
const (
	CausePodSecret = "pod-secret-unmade" //nolint:gosec // a name
	CausePodKey    = "pod-secret-key"    //nolint:gosec // a name
)

// PodSecret is a Secret that a Pod cannot start without.
type PodSecret struct {
	Name string
	// Keys are those that the Pod names; none: it takes what is there.
	Keys []string
	// By says where the Pod names it, as "volume tls".
	By string
}

// PodSecrets are the Secrets that a Pod cannot start without, in the order of its spec:
// of volumes and of the environment of containers. Optional ones are left out.
func PodSecrets(p *corev1.Pod) []PodSecret {
	var all []PodSecret
	add := func(name, by string, optional *bool, keys ...string) {
		if name == "" || optional != nil && *optional {
			return
		}
		i := slices.IndexFunc(all, func(s PodSecret) bool { return s.Name == name })
		if i < 0 {
			all, i = append(all, PodSecret{Name: name, By: by}), len(all)
		}
		for _, k := range keys {
			if !slices.Contains(all[i].Keys, k) {
				all[i].Keys = append(all[i].Keys, k)
			}
		}
	}
	for _, v := range p.Spec.Volumes {
		by := "volume " + v.Name
		if s := v.Secret; s != nil {
			add(s.SecretName, by, s.Optional, itemKeys(s.Items)...)
		}
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			if s := source.Secret; s != nil {
				add(s.Name, by, s.Optional, itemKeys(s.Items)...)
			}
		}
	}
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		by := "environment of container " + c.Name
		for _, e := range c.EnvFrom {
			if s := e.SecretRef; s != nil {
				add(s.Name, by, s.Optional)
			}
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				s := e.ValueFrom.SecretKeyRef
				add(s.Name, by, s.Optional, s.Key)
			}
		}
	}
	return all
}

func itemKeys(items []corev1.KeyToPath) []string {
	var keys []string
	for _, i := range items {
		keys = append(keys, i.Key)
	}
	return keys
}

// PodWant is a Secret of a Pod, and what is known of it.
type PodWant struct {
	PodSecret
	Secret Seen[Secret]
	// Answers are those on the Certificates that name the Secret.
	Answers []Answer
}

// retryMount is how long a kubelet may take to try again once a Secret is there
// (k/k pkg/util/goroutinemap/exponentialbackoff: up to 2m2s).
const retryMount = 2*time.Minute + 2*time.Second

// ExplainPod tells what a Pod waits for, of the Secrets that it cannot start without: an
// answer for each Certificate that makes one, and for each that is missing and that no
// Certificate makes. Other Secrets, which are there, are left out; events are those of the
// Pod.
func ExplainPod(p *corev1.Pod, wants []PodWant, events []Event, at time.Time) []Answer {
	var all []Answer
	id := "pod/" + p.Namespace + "/" + p.Name
	for _, w := range wants {
		step := Step{Object: id, Mark: Good, Text: "has Secret " + w.Name + " (" + w.By + ")"}
		if w.Secret.Look != Found {
			step.Mark, step.Text = Waits, "waits for Secret "+w.Name+" ("+w.By+")"
		}
		if w.Secret.unseen() {
			step.Mark, step.Text = Unknown, fmt.Sprintf("needs Secret %s (%s): %s", w.Name, w.By, unseenText(w.Secret.Look, w.Secret.Detail))
		}
		last := aboutSecret(events, w.Name, at)
		if last != nil && w.Secret.Look == Missing {
			step.Text += fmt.Sprintf(", %s %s", last.Reason, ago(at.Sub(last.Last)))
		}
		lacks := w.lacks()
		if lacks != "" {
			step.Mark, step.Text = Bad, fmt.Sprintf("waits for key %s of Secret %s (%s)", lacks, w.Name, w.By)
		}
		for _, a := range w.Answers {
			a.Steps = append([]Step{step}, a.Steps...)
			if a.Cause == nil && lacks != "" {
				a.State, a.Cause = Broken, w.keyCause(id, p.Namespace, lacks)
			}
			if a.Cause == nil && last != nil && at.Sub(last.Last) < retryMount {
				a.Notes = append(a.Notes, "the Secret is there; the kubelet tries again within two minutes")
			}
			all = append(all, a)
		}
		if len(w.Answers) == 0 && w.Secret.Look == Missing {
			all = append(all, Answer{Kind: "pod", Namespace: p.Namespace, Name: p.Name, State: Broken, Steps: []Step{step}, Cause: &Cause{
				ID: CausePodSecret, Where: "secret/" + p.Namespace + "/" + w.Name, Text: fmt.Sprintf("the Secret %s is not there, and no Certificate of the namespace makes it", w.Name),
				Fix: command("kubepki", "cert", "status", "-n", p.Namespace), Advice: "name the Secret of a Certificate in the Pod, or make a Certificate with spec.secretName " + w.Name,
			}})
		}
	}
	return all
}

// lacks names the first key that the Pod names and the Secret does not have.
func (w *PodWant) lacks() string {
	if w.Secret.Look != Found {
		return ""
	}
	for _, k := range w.Keys {
		if !slices.Contains(w.Secret.Object.Keys, k) {
			return k
		}
	}
	return ""
}

func (w *PodWant) keyCause(pod, namespace, key string) *Cause {
	c := &Cause{ID: CausePodKey, Where: pod, Text: fmt.Sprintf("the %s wants key %s of Secret %s, which has %s", w.By, key, w.Name, orText(strings.Join(w.Secret.Object.Keys, ", "), "none")),
		Fix: command("kubectl", "-n", namespace, "describe", strings.Replace(pod, "pod/"+namespace+"/", "pod/", 1)), Advice: "name a key that is there; further ones come by spec.additionalOutputFormats and spec.keystores of the Certificate"}
	if key == "ca.crt" {
		c.Advice = "not every issuer gives its authority's certificate (an ACME server does not): have clients trust the root by another way"
	}
	return c
}

// aboutSecret is the last warning of the last hour that names a Secret.
func aboutSecret(events []Event, name string, at time.Time) *Event {
	var last *Event
	for i := range events {
		e := &events[i]
		if e.Type == corev1.EventTypeWarning && strings.Contains(e.Message, `secret "`+name+`"`) && at.Sub(e.Last) < time.Hour && (last == nil || e.Last.After(last.Last)) {
			last = e
		}
	}
	return last
}
