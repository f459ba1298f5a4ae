package main

import (
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kubepki/kubepki/token"
)

// account is a service account by its name.
type account struct{ namespace, name string }

func (a account) String() string { return a.namespace + "/" + a.name }

// user is what Kubernetes calls it.
func (a account) user() string { return "system:serviceaccount:" + a.namespace + ":" + a.name }

// oneAccount asks for one argument. Like parseAccount it does not repeat what is
// given instead: it may be a token.
func oneAccount(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("%s: name one service account, as NAMESPACE/NAME, such as ci/robot", c.CommandPath())
	}
	return nil
}

// parseAccount does not repeat what it cannot read.
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
	kind          token.BoundKind // of the object that it is bound to; zero: none
	bound         token.Ref
	node          *token.Ref // of a pod
	attestations  map[string][]string
	warnAfter     time.Duration
	at            time.Time
	legacy        bool   // of a Secret
	secret        string // its name
	timeout       time.Duration
	wantsManifest bool // of the Secret
}

// want reads the flags, and refuses what cannot be meant.
func (f *saMakeFlags) want(flags *pflag.FlagSet, a account) (*saWant, error) {
	if err := f.exclude(flags); err != nil {
		return nil, err
	}
	w := &saWant{account: a, uid: f.uid, issuer: f.issuer, audiences: f.audiences, legacy: f.ofSecret(), timeout: f.timeout, wantsManifest: f.manifest}
	if flags.Changed("issuer") {
		if err := checkIssuer(f.issuer); err != nil {
			return nil, err
		}
	}
	for _, read := range []func(*saWant) error{f.wantUIDs, f.wantBound, f.wantAttestations, f.wantTimes, f.wantSecret} {
		if err := read(w); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// checkIssuer refuses what is no issuer: kube-apiserver would not start with it
// (k8s.io/kubernetes/pkg/kubeapiserver/options/authentication.go, Validate), or
// nobody can mean it.
func checkIssuer(issuer string) error {
	u, err := url.Parse(issuer)
	switch colon := strings.Contains(issuer, ":"); {
	case issuer == "":
		return usagef("--issuer is empty")
	case issuer == token.LegacyIssuer:
		return usagef("--issuer %s is that of tokens of Secrets alone: name the first --service-account-issuer of kube-apiserver", issuer)
	case strings.ContainsFunc(issuer, func(r rune) bool { return r == ' ' || !unicode.IsPrint(r) }),
		colon && (err != nil || strings.HasPrefix(u.Scheme, "http") && u.Host == ""):
		return usagef("--issuer %q is no issuer, such as https://kubernetes.default.svc.cluster.local", issuer)
	}
	return nil
}

// Lives that the API gives (k8s.io/kubernetes/pkg/apis/authentication/validation,
// and pkg/registry/core/serviceaccount/storage/token.go for webhooks).
const (
	minTokenLife = 10 * time.Minute
	maxTokenLife = 1 << 32 * time.Second
	maxHookLife  = 10 * time.Minute
)

func (f *saMakeFlags) wantTimes(w *saWant) (err error) {
	if w.at, err = parseAt(f.at); err != nil {
		return err
	}
	if w.life, err = f.wantLife(w); err != nil {
		return err
	}
	if w.at.Unix() < 0 || w.at.Add(w.life).UTC().Year() > 9999 {
		return usagef("--at %s: tokens tell times from 1970 to 9999", f.at)
	}
	if f.warnAfter == "" {
		return nil
	}
	if w.warnAfter, err = wholeSeconds("--warn-after", f.warnAfter); err != nil {
		return err
	}
	switch {
	case w.warnAfter >= w.life:
		return usagef("--warn-after %s is not before the end of the token: give a longer --duration", f.warnAfter)
	case w.kind.Kind != podKind:
		return usagef("--warn-after is for pods, whose kubelet has newer tokens: add --bound-object-kind Pod")
	}
	return nil
}

func (f *saMakeFlags) wantLife(w *saWant) (time.Duration, error) {
	text := f.duration
	switch {
	case text == "" && w.webhook():
		text = "10m"
	case text == "":
		text = "1h"
	}
	life, err := wholeSeconds("--duration", text)
	switch {
	case err != nil:
	case w.webhook() && life > maxHookLife:
		err = usagef("--duration %s: the API gives tokens for webhooks 10m at most", text)
	case !f.offline() && !w.legacy && (life < minTokenLife || life > maxTokenLife):
		err = usagef("--duration %s: the API gives tokens lives from 10m to 136 years", text)
	}
	return life, err
}

func wholeSeconds(flag, text string) (time.Duration, error) {
	life, err := parseLife(flag, text)
	if err == nil && life%time.Second != 0 {
		err = usagef("%s %q: tokens tell whole seconds", flag, text)
	}
	return life, err
}

// wantUIDs refuses what no uid has; what is wrong beyond that a cluster tells.
func (f *saMakeFlags) wantUIDs(w *saWant) error {
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

func (f *saMakeFlags) wantBound(w *saWant) error {
	for _, kind := range token.BoundKinds() {
		if strings.EqualFold(kind.Kind, f.boundKind) {
			w.kind = kind
		}
	}
	switch {
	case f.boundKind == "" && f.boundName+f.boundUID != "":
		return usagef("--bound-object-name, --bound-object-uid: of which kind? add --bound-object-kind")
	case f.nodeName == "" && f.nodeUID != "":
		return usagef("--node-uid: of which node? add --node-name")
	case f.nodeName != "" && w.kind.Kind != podKind:
		return advise(usagef("--node-name is the node of the pod that a token is bound to: add --bound-object-kind Pod"), "to bind the token to the node itself: --bound-object-kind Node --bound-object-name NAME")
	case f.boundKind == "":
		return nil
	case w.kind.Kind == "":
		return usagef("--bound-object-kind %q is none of %s", f.boundKind, boundKinds())
	case f.boundName == "":
		return usagef("--bound-object-name: which %s? name it", w.kind.Kind)
	case f.offline() && f.boundUID == "":
		return usagef("--bound-object-uid: the uid of %s %s is needed: without a cluster it cannot be looked up", w.kind.Kind, f.boundName)
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

func (w *saWant) webhook() bool { return strings.HasSuffix(w.kind.Kind, "WebhookConfiguration") }

// wantAttestations asks for what the API asks for
// (k8s.io/kubernetes/pkg/apis/authentication/validation).
func (f *saMakeFlags) wantAttestations(w *saWant) error {
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

func (f *saMakeFlags) wantSecret(w *saWant) error {
	if !w.legacy {
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
