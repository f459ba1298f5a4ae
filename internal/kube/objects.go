package kube

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/trust"
)

// ObjectOptions say how [ReadObjects] looks at a cluster.
type ObjectOptions struct {
	// Timeout bounds one request; 0: 30 s.
	Timeout time.Duration
	// At is the time as of which tokens are judged; zero: now.
	At time.Time
	// Keys verify tokens beside those that the API server publishes.
	Keys []crypto.PublicKey
	// Own, unless nil, says which kubeconfig the configuration is of: its own anchors
	// and certificate are looked at too.
	Own *Access
}

// UnreachableError tells that the API server could not be asked anything.
type UnreachableError struct {
	Server string // URL
	Err    error
}

// Error names the API server.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("the API server %s: %v", e.Server, e.Err)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// ErrStranger tells that the API server does not know who asks.
var ErrStranger = errors.New("it does not know the credential of the kubeconfig (401 Unauthorized)")

// ReadObjects reads what the objects of a cluster's API tell of its trust, as the
// node that stands for the API. It asks for GET alone, and sends no token but the
// kubeconfig's own. What may not be read, or is not to be had, is among the node's
// NotSeen; an [*UnreachableError] means that nothing could be asked. No token and
// no secret of one is in the result.
func ReadObjects(ctx context.Context, config *rest.Config, o ObjectOptions) (trust.Node, error) {
	if o.Timeout == 0 {
		o.Timeout = requestTimeout
	}
	if o.At.IsZero() {
		o.At = time.Now()
	}
	g, err := newGetter(config, o.Timeout)
	if err != nil {
		return trust.Node{}, err
	}
	r := &objectReader{getter: g, options: o}
	r.node = trust.Node{Name: trust.ClusterNode, Layout: trust.ClusterNode, Objects: &r.found}
	r.found.Server, r.found.Insecure = g.base.Redacted(), config.Insecure
	if err := r.greet(ctx); err != nil {
		return trust.Node{}, &UnreachableError{Server: g.base.Redacted(), Err: err}
	}
	if o.Own != nil {
		r.kubeconfig(*o.Own, config)
	}
	r.readAll(ctx)
	if err := ctx.Err(); err != nil {
		return trust.Node{}, err
	}
	r.sort()
	return r.node, nil
}

// objectReader gathers what the sources tell. Each source has fields of its own in
// found; what they share is behind the lock.
type objectReader struct {
	*getter
	options ObjectOptions
	found   trust.Objects

	mu   sync.Mutex
	node trust.Node
}

// source is one kind of object.
type source struct {
	name  string // for people
	place string // path of a place
	needs string // VERB RESOURCE that RBAC has to grant
	read  func(context.Context) (count int, err error)
}

// concurrent bounds the requests that are under way at once.
const concurrent = 6

func (r *objectReader) sources() []source {
	return []source{
		{"ConfigMap kube-root-ca.crt of each namespace", "configmaps/kube-root-ca.crt", "list configmaps", r.rootCAs},
		{"namespaces", "namespaces", "list namespaces", nil},
		{"ClusterTrustBundles", "clustertrustbundles", "list clustertrustbundles.certificates.k8s.io", r.trustBundles},
		{"ConfigMap kube-system/extension-apiserver-authentication", authenticationPath, "get configmaps in kube-system", r.authentication},
		{"ConfigMap kube-public/cluster-info", infoPath, "get configmaps in kube-public", nil},
		{"ConfigMap kube-system/kubeadm-config", kubeadmPath, "get configmaps in kube-system", r.kubeadm},
		{"bootstrap tokens", "secrets/bootstrap-token", "list secrets in kube-system", nil},
		{"APIServices", "apiservices", "list apiservices.apiregistration.k8s.io", r.apiServices},
		{"validating webhooks", "validatingwebhookconfigurations", "list validatingwebhookconfigurations.admissionregistration.k8s.io", r.webhooks("validatingwebhookconfiguration")},
		{"mutating webhooks", "mutatingwebhookconfigurations", "list mutatingwebhookconfigurations.admissionregistration.k8s.io", r.webhooks("mutatingwebhookconfiguration")},
		{"custom resources that are converted by webhooks", "customresourcedefinitions", "list customresourcedefinitions.apiextensions.k8s.io", r.conversions},
		{"Secrets with tokens of service accounts", "secrets/service-account-token", "list secrets", nil},
		{"service accounts", "serviceaccounts", "list serviceaccounts", nil},
		{"keys that verify tokens", "openid/v1/jwks", "get the URL /openid/v1/jwks", nil},
		{"certificate signing requests", "certificatesigningrequests", "list certificatesigningrequests.certificates.k8s.io", r.requests},
		{"nodes", "nodes", "list nodes", r.nodes},
		{"service default/kubernetes", "service/default/kubernetes", "get services in default", r.service},
	}
}

// readAll asks for all sources at once; those without a reader of their own are
// read with others that need them.
func (r *objectReader) readAll(ctx context.Context) {
	all := r.sources()
	r.found.Sources = make([]trust.Source, len(all))
	unseen := make([]*trust.NotSeen, len(all))
	note := func(i, count int, err error) {
		r.found.Sources[i] = trust.Source{Name: all[i].name, Count: count}
		if err != nil {
			unseen[i] = all[i].unseen(err)
		}
	}
	named := func(place string) func(count int, err error) {
		i := slices.IndexFunc(all, func(s source) bool { return s.place == place })
		return func(count int, err error) { note(i, count, err) }
	}
	var work errgroup.Group
	work.SetLimit(concurrent)
	for i, s := range all {
		if s.read != nil && s.place != "configmaps/kube-root-ca.crt" {
			work.Go(func() error {
				count, err := s.read(ctx)
				note(i, count, err)
				return nil
			})
		}
	}
	work.Go(func() error {
		count, err := r.rootCAs(ctx)
		named("configmaps/kube-root-ca.crt")(count, err)
		named("namespaces")(r.namespaces(ctx, err == nil))
		return nil
	})
	work.Go(func() error { r.discovery(ctx, named(infoPath), named("secrets/bootstrap-token")); return nil })
	work.Go(func() error {
		r.tokens(ctx, named("openid/v1/jwks"), named("secrets/service-account-token"), named("serviceaccounts"))
		return nil
	})
	_ = work.Wait() // none of them returns an error
	for _, n := range unseen {
		if n != nil {
			r.node.NotSeen = append(r.node.NotSeen, *n)
		}
	}
}

// unseen says why a source was not read, and what it takes.
func (s *source) unseen(err error) *trust.NotSeen {
	n := &trust.NotSeen{Place: trust.Place{Node: trust.ClusterNode, Path: s.place}}
	var status *answerError
	if errors.As(err, &status) && status.code == http.StatusForbidden {
		n.Reason = fmt.Sprintf("could not look at %s: whom the kubeconfig is for may not %s (deploy/verify-rbac.yaml grants it)", s.name, s.needs)
		return n
	}
	n.Reason = fmt.Sprintf("could not look at %s: %v", s.name, err)
	return n
}

// greet asks for what everybody may know, and keeps what the API server presents.
func (r *objectReader) greet(ctx context.Context) error {
	chain, err := r.get(ctx, "/version", nil, "", nil)
	var status *answerError
	switch {
	case errors.As(err, &status) && status.code == http.StatusUnauthorized:
		return ErrStranger
	case errors.As(err, &status) && status.code == http.StatusForbidden: // it knows who asks
	case err != nil:
		return err
	}
	if len(chain) == 0 {
		return nil // without TLS
	}
	r.found.Presented = trust.Place{Node: trust.ClusterNode, Path: r.base.Scheme + "://" + r.base.Host}
	r.found.Inside = slices.ContainsFunc(chain[0].DNSNames, func(name string) bool {
		return strings.EqualFold(name, "kubernetes.default.svc") || strings.EqualFold(name, "kubernetes.default")
	})
	r.add(&trust.Material{Place: r.found.Presented, Role: trust.RoleCertificate, State: trust.Present, Certificates: chain})
	return nil
}

func (r *objectReader) add(m *trust.Material) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.node.Materials = append(r.node.Materials, m)
}

// bundle notes a bundle with its material.
func (r *objectReader) bundle(b trust.ObjectBundle, pem []byte) {
	r.anchors(b.Place, trust.RoleAnchors, pem)
	r.bare(b)
}

// anchors notes certificates.
func (r *objectReader) anchors(p trust.Place, role trust.Role, pem []byte) {
	m := &trust.Material{Place: p, Role: role, State: trust.Present}
	blocks, err := trust.Blocks(pem)
	for _, block := range blocks {
		var c *x509.Certificate
		if block.Type != trust.CertificateType {
			err = fmt.Errorf("line %d: %s block where a CERTIFICATE is expected", block.Line, block.Type)
		} else if c, err = x509.ParseCertificate(block.DER); err != nil {
			err = fmt.Errorf("line %d: %w", block.Line, err)
		}
		if err != nil {
			break
		}
		m.Certificates = append(m.Certificates, c)
	}
	if err == nil && len(blocks) == 0 && strings.TrimSpace(string(pem)) != "" {
		err = errors.New("no PEM block in it")
	}
	if err != nil {
		m.State, m.Reason, m.Certificates = trust.Malformed, err.Error(), nil
	}
	r.add(m)
}

// bare notes a bundle that has no anchors.
func (r *objectReader) bare(b trust.ObjectBundle) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.found.Bundles = append(r.found.Bundles, b)
}

// sort puts what came in any order into one.
func (r *objectReader) sort() {
	slices.SortFunc(r.node.Materials, func(a, b *trust.Material) int { return a.Place.Compare(b.Place) })
	slices.SortStableFunc(r.found.Bundles, func(a, b trust.ObjectBundle) int {
		if a.Use != b.Use {
			return strings.Compare(string(a.Use), string(b.Use))
		}
		return a.Place.Compare(b.Place)
	})
	slices.SortFunc(r.found.Bootstrap, func(a, b trust.ObjectFault) int { return a.Place.Compare(b.Place) })
	slices.SortFunc(r.found.Tokens, func(a, b trust.StoredToken) int { return a.Place.Compare(b.Place) })
	slices.SortFunc(r.found.Requests, func(a, b trust.WaitingRequest) int { return a.Place.Compare(b.Place) })
}

// objectAt is the place of a field of an object, by kubepki's names of them.
func objectAt(resource, namespace, name, field string) trust.Place {
	return trust.Place{Node: trust.ClusterNode, Path: BundleRef{Resource: resource, Namespace: namespace, Name: name}.String(), Field: field}
}

// alike gathers places that hold the same bytes.
type alike struct {
	order []string
	at    map[string][]trust.Place
}

func (a *alike) add(content []byte, p trust.Place) {
	if a.at == nil {
		a.at = map[string][]trust.Place{}
	}
	key := string(content)
	if a.at[key] == nil {
		a.order = append(a.order, key)
	}
	a.at[key] = append(a.at[key], p)
}

// each calls f for each content in the order in which it was seen first.
func (a *alike) each(f func(content []byte, first trust.Place, copies []trust.Place)) {
	for _, key := range a.order {
		f([]byte(key), a.at[key][0], a.at[key][1:])
	}
}

// query is one with a field selector; "": none.
func query(selector string) url.Values {
	v := url.Values{}
	if selector != "" {
		v.Set("fieldSelector", selector)
	}
	return v
}
