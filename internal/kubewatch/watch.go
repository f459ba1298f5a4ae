package kubewatch

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"sync"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/agent"
	"github.com/kubepki/kubepki/internal/brief"
)

// Secrets says which Secrets are followed.
type Secrets struct {
	Type string         // of the Secret: kubernetes.io/tls
	Keys *regexp.Regexp // which keys of its data may hold certificates
}

// ParseSecrets reads TYPE or TYPE:REGEX; without a pattern the keys are tls.crt and
// ca.crt. The pattern has to match a whole key.
func ParseSecrets(text string) (Secrets, error) {
	i := 0
	for i < len(text) && text[i] != ':' {
		i++
	}
	s := Secrets{Type: text[:i], Keys: defaultKeys}
	if s.Type == "" {
		return s, fmt.Errorf("%q is not of the form TYPE or TYPE:REGEX, such as kubernetes.io/tls:(tls|ca)\\.crt", text)
	}
	if i < len(text) {
		keys, err := regexp.Compile("^(?:" + text[i+1:] + ")$")
		if err != nil {
			return s, fmt.Errorf("%q: the pattern of keys: %w", text, err)
		}
		s.Keys = keys
	}
	return s, nil
}

var defaultKeys = regexp.MustCompile(`^(?:tls|ca)\.crt$`)

// Options are the options of [New].
type Options struct {
	// Secrets are the kinds of Secrets; nil: those of type kubernetes.io/tls with keys
	// tls.crt and ca.crt. An empty list that is not nil: none, and no right is needed.
	Secrets []Secrets
	// Selector is a label selector of Secrets; "": all.
	Selector string
	// Namespaces are those whose Secrets are followed; none: all, which takes the right
	// to list Secrets of the whole cluster. Excluded are left out.
	Namespaces, Excluded []string
	// MaxCertificates bounds what is kept; 0: 50000.
	MaxCertificates int
	Log             *slog.Logger // nil: nothing is said
	// Changed, unless nil, is called after something was kept or removed.
	Changed func()
}

const defaultMost = 50_000

// Watch follows the certificates of a cluster's objects. It is an [agent.Holder].
type Watch struct {
	o       Options
	client  *http.Client
	base    *url.URL
	queries []*query
}

// query is one list of objects that is followed.
type query struct {
	*held
	kind     string
	resource string // as places have it
	path     string
	selector url.Values
	needs    string // what RBAC has to grant
	values   values
	excluded []string // namespaces
}

// New prepares to follow the cluster of a configuration. Nothing is asked before
// [Watch.Run].
func New(config *rest.Config, o Options) (*Watch, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.MaxCertificates == 0 {
		o.MaxCertificates = defaultMost
	}
	if o.Secrets == nil {
		o.Secrets = []Secrets{{Type: "kubernetes.io/tls", Keys: defaultKeys}}
	}
	if _, err := labels.Parse(o.Selector); err != nil {
		return nil, fmt.Errorf("the selector of Secrets: %w", err)
	}
	client, base, err := newClient(config)
	if err != nil {
		return nil, err
	}
	w := &Watch{o: o, client: client, base: base}
	w.queries = append(w.secrets(), others()...)
	for _, q := range w.queries {
		q.objects, q.most, q.source.Errors = map[string]object{}, o.MaxCertificates, map[string]uint64{}
		q.source.Kind = q.kind
	}
	return w, nil
}

// secrets are the queries for Secrets: one for each type, in each namespace that was
// named.
func (w *Watch) secrets() []*query {
	var all []*query
	for _, s := range w.o.Secrets {
		selector := url.Values{"fieldSelector": {"type=" + s.Type}}
		if w.o.Selector != "" {
			selector.Set("labelSelector", w.o.Selector)
		}
		add := func(path, where string) {
			all = append(all, &query{
				held: &held{source: agent.Source{Name: "secrets " + s.Type + where}}, kind: "kube-secret", resource: "secret", path: path,
				selector: selector, needs: "list and watch secrets" + where, values: dataOf(s.Keys.MatchString, 2), excluded: w.o.Excluded,
			})
		}
		if len(w.o.Namespaces) == 0 {
			add("/api/v1/secrets", "")
		}
		for _, n := range w.o.Namespaces {
			add("/api/v1/namespaces/"+url.PathEscape(n)+"/secrets", " in "+n)
		}
	}
	return all
}

// others are the queries for what holds no secrets.
func others() []*query {
	named := func(name string) url.Values { return url.Values{"fieldSelector": {"metadata.name=" + name}} }
	is := func(keys ...string) func(string) bool {
		return func(key string) bool { return slices.Contains(keys, key) }
	}
	q := func(kind, resource, name, path, needs string, selector url.Values, v values) *query {
		return &query{held: &held{source: agent.Source{Name: name}}, kind: kind, resource: resource, path: path, selector: selector, needs: "list and watch " + needs, values: v}
	}
	const admission, bundle = "/apis/admissionregistration.k8s.io/v1/", "kube-cabundle"
	return []*query{
		q("kube-configmap", "configmap", "configmaps kube-root-ca.crt", "/api/v1/configmaps", "configmaps of this name", named("kube-root-ca.crt"), dataOf(is("ca.crt"), 2)),
		q("kube-configmap", "configmap", "configmap extension-apiserver-authentication", "/api/v1/namespaces/kube-system/configmaps", "configmaps of this name in kube-system",
			named("extension-apiserver-authentication"), dataOf(is("client-ca-file", "requestheader-client-ca-file"), 2)),
		q(bundle, "validatingwebhookconfiguration", "validatingwebhookconfigurations", admission+"validatingwebhookconfigurations", "validatingwebhookconfigurations.admissionregistration.k8s.io", url.Values{}, webhooks),
		q(bundle, "mutatingwebhookconfiguration", "mutatingwebhookconfigurations", admission+"mutatingwebhookconfigurations", "mutatingwebhookconfigurations.admissionregistration.k8s.io", url.Values{}, webhooks),
		q(bundle, "apiservice", "apiservices", "/apis/apiregistration.k8s.io/v1/apiservices", "apiservices.apiregistration.k8s.io", url.Values{}, caBundle("spec.caBundle", 2, 5)),
		q(bundle, "customresourcedefinition", "customresourcedefinitions", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "customresourcedefinitions.apiextensions.k8s.io", url.Values{},
			caBundle("spec.conversion.webhook.clientConfig.caBundle", 2, 9, 2, 2, 2)),
	}
}

// Run follows everything until the context ends.
func (w *Watch) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, q := range w.queries {
		all.Go(func() { w.follow(ctx, q) })
	}
	all.Wait()
	w.client.CloseIdleConnections()
	return nil
}

// Each calls yield with each certificate, in a stable order, until it returns false.
// Of the copies of kube-root-ca.crt that hold the same one is there. It is safe for
// concurrent use.
func (w *Watch) Each(yield func(brief.Certificate) bool) {
	for _, q := range w.queries {
		if !q.each(yield) {
			return
		}
	}
}

// Sources tell how it goes. It is safe for concurrent use.
func (w *Watch) Sources() []agent.Source {
	var all []agent.Source
	for _, q := range w.queries {
		all = append(all, q.state())
	}
	return all
}

// UID is that of the object at a path, as places have it; "": it is not kept.
func (w *Watch) UID(path string) string {
	for _, q := range w.queries {
		if id := q.uid(path); id != uuid.Nil {
			return id.String()
		}
	}
	return ""
}

func (h *held) uid(key string) uuid.UUID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.objects[key].uid
}
