package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kubepki/kubepki/token"
)

// account is a service account by its name.
type account struct{ namespace, name string }

func (a account) String() string { return a.namespace + "/" + a.name }

// user is what Kubernetes calls it.
func (a account) user() string { return "system:serviceaccount:" + a.namespace + ":" + a.name }

// parseAccount does not repeat what it cannot read: it may be a token.
func parseAccount(text string) (account, error) {
	namespace, name, ok := strings.Cut(text, "/")
	switch {
	case !ok:
		return account{}, usagef("the service account is not given as NAMESPACE/NAME, such as ci/robot")
	case len(validation.IsDNS1123Label(namespace)) > 0:
		return account{}, usagef("the NAMESPACE of NAMESPACE/NAME is no name of one: lower-case letters, digits and - (RFC 1123)")
	case len(validation.IsDNS1123Subdomain(name)) > 0:
		return account{}, usagef("the NAME of NAMESPACE/NAME is no name of a service account: lower-case letters, digits, - and . (RFC 1123)")
	}
	return account{namespace, name}, nil
}

// saWant is the token that the flags ask for.
type saWant struct {
	account
	uid           string
	issuer        string // "": that of the source
	audiences     []string
	life          time.Duration
	kind          string // of the object that it is bound to; "": none
	bound         token.Ref
	node          *token.Ref // of a pod
	attestations  map[string][]string
	warnAfter     time.Duration
	at            time.Time
	secret        string        // name of the Secret, with --legacy
	timeout       time.Duration // with --legacy
	wantsManifest bool          // of the Secret
}

// want reads the flags, and refuses what cannot be meant.
func (f *saFlags) want(flags *pflag.FlagSet, name string) (*saWant, error) {
	if err := f.exclude(flags); err != nil {
		return nil, err
	}
	w := &saWant{uid: f.uid, issuer: f.issuer, audiences: f.audiences, timeout: f.timeout}
	var err error
	if w.account, err = parseAccount(name); err != nil {
		return nil, err
	}
	for _, read := range []func(*saWant) error{f.wantUIDs, f.wantBound, f.wantAttestations, f.wantTimes, f.wantSecret} {
		if err := read(w); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Lives that the API gives (k8s.io/kubernetes/pkg/apis/authentication/validation).
const (
	minTokenLife = 10 * time.Minute
	maxTokenLife = 1 << 32 * time.Second
)

func (f *saFlags) wantTimes(w *saWant) (err error) {
	if w.at, err = parseAt(f.at); err != nil {
		return err
	}
	if f.duration == "" {
		f.duration = "1h"
		if w.webhook() { // the most that the API gives these
			f.duration = "10m"
		}
	}
	if w.life, err = wholeSeconds("--duration", f.duration); err != nil {
		return err
	}
	if !f.offline() && !f.legacy && (w.life < minTokenLife || w.life > maxTokenLife) {
		return usagef("--duration %s: the API gives tokens lives from 10m to 136 years", f.duration)
	}
	if f.warnAfter == "" {
		return nil
	}
	if w.warnAfter, err = wholeSeconds("--warn-after", f.warnAfter); err != nil {
		return err
	}
	switch {
	case w.warnAfter >= w.life:
		return usagef("--warn-after %s is not before the end, --duration %s", f.warnAfter, f.duration)
	case w.kind != podKind:
		return usagef("--warn-after is for pods, whose kubelet has newer tokens: add --bound-object-kind Pod")
	}
	return nil
}

func wholeSeconds(flag, text string) (time.Duration, error) {
	life, err := parseLife(flag, text)
	if err == nil && life%time.Second != 0 {
		err = usagef("%s %q: tokens tell whole seconds", flag, text)
	}
	return life, err
}

// wantUIDs refuses what no uid has; what is wrong beyond that a cluster tells.
func (f *saFlags) wantUIDs(w *saWant) error {
	for _, u := range []struct{ flag, text string }{{"uid", f.uid}, {"bound-object-uid", f.boundUID}, {"node-uid", f.nodeUID}} {
		if strings.ContainsFunc(u.text, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\'' }) {
			return usagef("--%s is no uid, such as 6f5c0c2e-0c5c-4f0e-9d5b-2b7a3c1d9e10", u.flag)
		}
	}
	if f.offline() && f.uid == "" {
		return advise(usagef("--uid: the uid of %s is needed: without a cluster it cannot be looked up", w.account),
			"kubectl get serviceaccount -n %s %s -o jsonpath={.metadata.uid}", w.namespace, w.name)
	}
	return nil
}

const podKind = "Pod"

func (f *saFlags) wantBound(w *saWant) error {
	for _, kind := range boundKinds() {
		if strings.EqualFold(kind, f.boundKind) {
			w.kind = kind
		}
	}
	switch {
	case f.boundKind == "" && f.boundName+f.boundUID != "":
		return usagef("--bound-object-name, --bound-object-uid: of which kind? add --bound-object-kind")
	case f.nodeName == "" && f.nodeUID != "":
		return usagef("--node-uid: of which node? add --node-name")
	case f.nodeName != "" && w.kind != podKind:
		return advise(usagef("--node-name is the node of the pod that a token is bound to: add --bound-object-kind Pod"), "to bind the token to the node itself: --bound-object-kind Node --bound-object-name NAME")
	case f.boundKind == "":
		return nil
	case w.kind == "":
		return usagef("--bound-object-kind %q is none of %s", f.boundKind, strings.Join(boundKinds(), ", "))
	case f.boundName == "":
		return usagef("--bound-object-name: which %s? name it", w.kind)
	case f.offline() && f.boundUID == "":
		return usagef("--bound-object-uid: the uid of %s %s is needed: without a cluster it cannot be looked up", w.kind, f.boundName)
	}
	for _, n := range []struct{ flag, name string }{{"bound-object-name", f.boundName}, {"node-name", f.nodeName}} {
		if n.name != "" && len(validation.IsDNS1123Subdomain(n.name)) > 0 {
			return usagef("--%s %q is no name in Kubernetes: lower-case letters, digits, - and . (RFC 1123)", n.flag, n.name)
		}
	}
	w.bound = token.Ref{Name: f.boundName, UID: f.boundUID}
	if f.nodeName != "" {
		w.node = &token.Ref{Name: f.nodeName, UID: f.nodeUID}
	}
	return nil
}

func (w *saWant) webhook() bool { return strings.HasSuffix(w.kind, "WebhookConfiguration") }

// wantAttestations asks for what the API asks for
// (k8s.io/kubernetes/pkg/apis/authentication/validation).
func (f *saFlags) wantAttestations(w *saWant) error {
	switch {
	case !w.webhook() && len(f.attestations) > 0:
		return usagef("--attestation is for tokens that are bound to a webhook: add --bound-object-kind ValidatingWebhookConfiguration or MutatingWebhookConfiguration")
	case !w.webhook():
		return nil
	case len(f.attestations) != 1:
		return usagef("--attestation: a token that is bound to a webhook needs exactly one, %s=GROUP", token.APIGroupsAttestation)
	case len(f.audiences) != 1:
		return usagef("--audience: a token that is bound to a webhook needs exactly one, the URL of the webhook")
	}
	key, group, ok := strings.Cut(f.attestations[0], "=")
	if !ok || key != token.APIGroupsAttestation {
		return usagef("--attestation %q is not %s=GROUP", f.attestations[0], token.APIGroupsAttestation)
	}
	if group != "*" && len(validation.IsDNS1123Subdomain(group)) > 0 {
		return usagef("--attestation: %q is neither * nor an API group such as apps", group)
	}
	w.attestations = map[string][]string{key: {group}}
	return nil
}

func (f *saFlags) wantSecret(w *saWant) error {
	if !f.legacy {
		return nil
	}
	w.secret = f.secretName
	if w.secret == "" {
		w.secret = w.name + "-token"
	}
	if len(validation.IsDNS1123Subdomain(w.secret)) > 0 {
		return usagef("--secret-name %q is no name in Kubernetes: lower-case letters, digits, - and . (RFC 1123)", w.secret)
	}
	if f.timeout <= 0 {
		return usagef("--timeout: %s is no time to wait: use 30s", f.timeout)
	}
	return nil
}

// boundText tells what a token dies with; empty when with nothing.
func boundText(c *token.Claims) string {
	for _, o := range []struct {
		kind string
		ref  *token.Ref
	}{
		{"pod", c.Pod}, {"secret", c.Secret}, {"node", c.Node},
		{"validating webhook configuration", c.ValidatingWebhookConfiguration}, {"mutating webhook configuration", c.MutatingWebhookConfiguration},
	} {
		if o.ref != nil {
			return fmt.Sprintf("%s %s", o.kind, o.ref.Name)
		}
	}
	return ""
}
