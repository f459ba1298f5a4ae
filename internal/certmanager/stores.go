package certmanager

import (
	"context"
	"fmt"
	"slices"
	"sync"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/workload"
)

// stores are all that is kept of the API's objects.
type stores struct {
	certificates   *store[cmapi.Certificate]
	requests       *store[workload.RequestFacts]
	secrets        *store[secretKept]
	issuers        *store[cmapi.Issuer]
	clusterIssuers *store[cmapi.ClusterIssuer]

	// Indexes; each is guarded by the lock of its store.
	bySecret map[types.NamespacedName][]string // certificates by spec.secretName
	byOwner  map[types.NamespacedName][]string // requests by the Certificate that they are of
	nextKeys map[types.UID][]string            // Secrets with next private keys by the Certificate's UID
}

// secretKept is what is kept of a Secret of a certificate.
type secretKept struct {
	workload.SecretFacts
	uid types.UID
	// nextKeyOf is the UID of the Certificate whose next private key it is, and
	// nextKeyName its name; "": it is none.
	nextKeyOf   types.UID
	nextKeyName string
}

func newStores() *stores {
	s := &stores{
		certificates: newStore(reduceCertificate), requests: newStore(reduceRequest), secrets: newStore(reduceSecret),
		issuers: newStore(whole[cmapi.Issuer]), clusterIssuers: newStore(whole[cmapi.ClusterIssuer]),
		bySecret: map[types.NamespacedName][]string{}, byOwner: map[types.NamespacedName][]string{}, nextKeys: map[types.UID][]string{},
	}
	s.certificates.index = func(key types.NamespacedName, before, after *cmapi.Certificate) {
		reindex(s.bySecret, key.Name, secretOf(before), secretOf(after))
	}
	s.requests.index = func(key types.NamespacedName, before, after *workload.RequestFacts) {
		reindex(s.byOwner, key.Name, ownerOf(key, before), ownerOf(key, after))
	}
	s.secrets.index = func(key types.NamespacedName, before, after *secretKept) {
		reindex(s.nextKeys, key.Name, nextKeyOf(before), nextKeyOf(after))
	}
	return s
}

// watch feeds the stores until the context ends.
func (s *stores) watch(ctx context.Context, c *Client) {
	var running sync.WaitGroup
	running.Go(func() { watch(ctx, c.CM, certificates, "", all, &cmapi.Certificate{}, s.certificates) })
	running.Go(func() { watch(ctx, c.CM, certificateRequests, "", all, &cmapi.CertificateRequest{}, s.requests) })
	running.Go(func() {
		watch(ctx, c.Kube.CoreV1().RESTClient(), "secrets", "", ofCertificates, &corev1.Secret{}, s.secrets)
	})
	running.Go(func() { watch(ctx, c.CM, issuers, "", all, &cmapi.Issuer{}, s.issuers) })
	running.Go(func() { watch(ctx, c.CM, clusterIssuers, "", all, &cmapi.ClusterIssuer{}, s.clusterIssuers) })
	running.Wait()
}

// synced tells whether all lists have come.
func (s *stores) synced() bool {
	return s.certificates.isSynced() && s.requests.isSynced() && s.secrets.isSynced() && s.issuers.isSynced() && s.clusterIssuers.isSynced()
}

// await waits for all lists, and tells whether they have come.
func (s *stores) await(ctx context.Context) bool {
	for _, synced := range []chan struct{}{s.certificates.synced, s.requests.synced, s.secrets.synced, s.issuers.synced, s.clusterIssuers.synced} {
		select {
		case <-ctx.Done():
			return false
		case <-synced:
		}
	}
	return true
}

// reindex moves a name from one list of an index to another. Lists are made anew: those
// that were given out stay as they are.
func reindex[K comparable](index map[K][]string, name string, from, to K) {
	var none K
	if from == to {
		return
	}
	if from != none {
		left := slices.DeleteFunc(slices.Clone(index[from]), func(n string) bool { return n == name })
		if len(left) == 0 {
			delete(index, from)
		} else {
			index[from] = left
		}
	}
	if to != none {
		index[to] = append(slices.Clip(index[to]), name)
	}
}

func secretOf(o *cmapi.Certificate) types.NamespacedName {
	if o == nil {
		return types.NamespacedName{}
	}
	return types.NamespacedName{Namespace: o.Namespace, Name: o.Spec.SecretName}
}

func ownerOf(key types.NamespacedName, f *workload.RequestFacts) types.NamespacedName {
	if f == nil || f.Owner == "" {
		return types.NamespacedName{}
	}
	return types.NamespacedName{Namespace: key.Namespace, Name: f.Certificate}
}

func nextKeyOf(k *secretKept) types.UID {
	if k == nil {
		return ""
	}
	return k.nextKeyOf
}

// namingSecret are the names of the Certificates of a namespace that name a Secret.
func (s *stores) namingSecret(secret types.NamespacedName) []string {
	s.certificates.mu.RLock()
	defer s.certificates.mu.RUnlock()
	return s.bySecret[secret]
}

// requestsOf are the requests of a Certificate.
func (s *stores) requestsOf(key types.NamespacedName, uid types.UID) []*workload.RequestFacts {
	s.requests.mu.RLock()
	defer s.requests.mu.RUnlock()
	var found []*workload.RequestFacts
	for _, name := range s.byOwner[key] {
		if f := s.requests.all[types.NamespacedName{Namespace: key.Namespace, Name: name}].value; f != nil && f.Owner == uid {
			found = append(found, f)
		}
	}
	return found
}

// nextKeysOf are the names of the Secrets with next private keys of a Certificate.
func (s *stores) nextKeysOf(uid types.UID) []string {
	s.secrets.mu.RLock()
	defer s.secrets.mu.RUnlock()
	return s.nextKeys[uid]
}

// issuer returns an issuer, nil where there is none.
func (s *stores) issuer(key issuerKey) cmapi.GenericIssuer {
	if key.namespace == "" {
		if o, _ := s.clusterIssuers.get(types.NamespacedName{Name: key.name}); o != nil {
			return o
		}
		return nil
	}
	if o, _ := s.issuers.get(types.NamespacedName{Namespace: key.namespace, Name: key.name}); o != nil {
		return o
	}
	return nil
}

// whole keeps an object as it is, but for what nobody here reads.
func whole[T any](o any) (*T, error) {
	v, ok := o.(*T)
	if !ok {
		return nil, fmt.Errorf("a watch gave a %T", o)
	}
	if m, ok := o.(metav1.Object); ok {
		m.SetManagedFields(nil)
	}
	return v, nil
}

func reduceRequest(o any) (*workload.RequestFacts, error) {
	r, ok := o.(*cmapi.CertificateRequest)
	if !ok {
		return nil, fmt.Errorf("the watch of CertificateRequests gave a %T", o)
	}
	return workload.FactsOfRequest(r), nil
}

func reduceSecret(o any) (*secretKept, error) {
	s, ok := o.(*corev1.Secret)
	if !ok {
		return nil, fmt.Errorf("the watch of Secrets gave a %T", o)
	}
	return keepSecret(s), nil
}

// keepSecret takes the facts of a Secret. Nothing of what it returns leads to the data.
func keepSecret(s *corev1.Secret) *secretKept {
	k := &secretKept{uid: s.UID, SecretFacts: workload.FactsOf(s)}
	if s.Labels[cmapi.IsNextPrivateKeySecretLabelKey] == "true" {
		if owner := metav1.GetControllerOfNoCopy(s); owner != nil && owner.Kind == cmapi.CertificateKind {
			k.nextKeyOf, k.nextKeyName = owner.UID, owner.Name
		}
	}
	return k
}

// reduceCertificate drops what no decision needs.
func reduceCertificate(o any) (*cmapi.Certificate, error) {
	c, err := whole[cmapi.Certificate](o)
	if err != nil {
		return nil, err
	}
	delete(c.Annotations, corev1.LastAppliedConfigAnnotation)
	if len(c.Annotations) == 0 {
		c.Annotations = nil
	}
	c.TypeMeta, c.ResourceVersion = metav1.TypeMeta{}, ""
	c.Namespace = same(c.Namespace)
	ref := &c.Spec.IssuerRef
	ref.Name, ref.Kind, ref.Group = same(ref.Name), same(ref.Kind), same(ref.Group)
	for i := range c.Spec.Usages {
		c.Spec.Usages[i] = cmapi.KeyUsage(same(string(c.Spec.Usages[i])))
	}
	for i := range c.Status.Conditions {
		d := &c.Status.Conditions[i]
		d.Type, d.Reason = cmapi.CertificateConditionType(same(string(d.Type))), same(d.Reason)
		if d.Message == workload.MessageReady {
			d.Message = workload.MessageReady
		}
	}
	return c, nil
}
