package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cluster-bootstrap/token/api"

	"github.com/kubepki/kubepki/internal/bootstrap"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/token"
)

// lastUsed is the label by which the API server notes when the token of a Secret was
// used last (k8s.io/kubernetes/pkg/serviceaccount/legacy.go).
const lastUsed = "kubernetes.io/legacy-token-last-used"

// noted is how a source is told of.
type noted func(count int, err error)

// tokens reads the tokens of Secrets, the keys that verify them, and the accounts
// that they are for.
func (r *objectReader) tokens(ctx context.Context, keys, secrets, accounts noted) {
	set := r.keySet(ctx, keys)
	var same alike
	count, err := eachPage(ctx, r.getter, "/api/v1/secrets", query("type="+string(corev1.SecretTypeServiceAccountToken)), pageSize, "", func(page []corev1.Secret) {
		for i := range page {
			s := &page[i]
			if s.Type != corev1.SecretTypeServiceAccountToken {
				continue
			}
			r.found.Tokens = append(r.found.Tokens, storedToken(s, set))
			if ca := s.Data[corev1.ServiceAccountRootCAKey]; len(ca) > 0 {
				same.add(ca, objectAt("secret", s.Namespace, s.Name, "data["+corev1.ServiceAccountRootCAKey+"]"))
			}
		}
	})
	secrets(count, err)
	same.each(func(content []byte, first trust.Place, copies []trust.Place) {
		r.bundle(trust.ObjectBundle{Use: trust.TokenCA, Place: first, Copies: copies}, content)
	})
	if len(r.found.Tokens) == 0 {
		accounts(0, nil)
		return
	}
	accounts(r.accounts(ctx))
}

// keySet returns the keys that are published and those of the options; nil when
// there are none.
func (r *objectReader) keySet(ctx context.Context, seen noted) *token.KeySet {
	var all []token.Key
	var document json.RawMessage
	_, err := r.get(ctx, token.JWKSPath, nil, "application/jwk-set+json, application/json", &document)
	var published []token.Key
	if err == nil {
		if published, err = token.ParseKeys(document); errors.Is(err, token.ErrNoKeys) {
			err = nil
		}
	}
	if err == nil {
		r.found.KeyIDs = []string{}
		for _, k := range published {
			r.found.KeyIDs = append(r.found.KeyIDs, k.ID)
		}
		all = published // first: they have the ids that tokens name
	}
	for _, k := range r.options.Keys {
		if key, err := token.NewKey(k); err == nil {
			all = append(all, key)
		}
	}
	seen(len(published), err)
	if len(all) == 0 {
		return nil
	}
	set, err := token.NewKeySet(all...)
	if err != nil {
		return nil
	}
	return set
}

// storedToken reads the token of a Secret, and leaves the token itself behind.
func storedToken(s *corev1.Secret, set *token.KeySet) trust.StoredToken {
	t := trust.StoredToken{
		Place:     objectAt("secret", s.Namespace, s.Name, "data["+corev1.ServiceAccountTokenKey+"]"),
		Namespace: s.Namespace, Secret: s.Name, Account: s.Annotations[corev1.ServiceAccountNameKey], UID: s.Annotations[corev1.ServiceAccountUIDKey],
		Created: s.CreationTimestamp.Time, LastUsed: shortened(s.Labels[lastUsed]), InvalidSince: shortened(s.Labels[invalidSince]),
	}
	text := string(s.Data[corev1.ServiceAccountTokenKey])
	if t.Empty = text == ""; t.Empty {
		return t
	}
	u, err := token.Parse(text)
	if err != nil {
		t.Faults = []string{strings.TrimPrefix(err.Error(), "token refused: ")}
		return t
	}
	for _, f := range u.Faults() {
		t.Faults = append(t.Faults, f.Message)
	}
	t.SaidNamespace, t.SaidAccount, t.SaidUID = shortened(u.Claims.Namespace), shortened(u.Claims.ServiceAccount.Name), shortened(u.Claims.ServiceAccount.UID)
	t.Expires = u.Claims.Expires
	if u.Claims.Secret != nil {
		t.SaidSecret = shortened(u.Claims.Secret.Name)
	}
	if set != nil {
		t.Judged = true
		if k, ok := set.SignedBy(u); ok {
			t.KeyID = k.ID
		}
	}
	return t
}

// accounts looks whether the accounts of the tokens are there.
func (r *objectReader) accounts(ctx context.Context) (int, error) {
	there := map[types.NamespacedName]string{}
	count, err := eachPage(ctx, r.getter, "/api/v1/serviceaccounts", query(""), pageSize, metadataOnly, func(page []metav1.PartialObjectMetadata) {
		for _, a := range page {
			there[types.NamespacedName{Namespace: a.Namespace, Name: a.Name}] = string(a.UID)
		}
	})
	if err != nil {
		return count, err
	}
	for i := range r.found.Tokens {
		t := &r.found.Tokens[i]
		uid, ok := there[types.NamespacedName{Namespace: t.Namespace, Name: t.Account}]
		t.Gone, t.NowUID = !ok, uid
	}
	return count, nil
}

// signed is how old a token is before cluster-info has to be signed with it.
const signed = 5 * time.Minute

// discovery reads what nodes that join are told, and judges it with the secrets of
// the tokens, which then are forgotten.
func (r *objectReader) discovery(ctx context.Context, info, tokens noted) {
	m, err := r.configMap(ctx, metav1.NamespacePublic, api.ConfigMapClusterInfo)
	if m != nil && err == nil {
		r.clusterInfo(m)
		info(1, nil)
	} else {
		info(0, err)
	}
	known := map[string]*bootstrap.Entry{}
	count, err := eachPage(ctx, r.getter, "/api/v1/namespaces/kube-system/secrets", query("type="+string(api.SecretTypeBootstrapToken)), pageSize, "", func(page []corev1.Secret) {
		for i := range page {
			if page[i].Type != api.SecretTypeBootstrapToken {
				continue
			}
			e := bootstrap.Read(&page[i], r.options.At)
			r.bootstrapFaults(e)
			if e.ID != "" {
				known[e.ID] = e
			}
		}
	})
	tokens(count, err)
	if m != nil && m.Data[api.KubeConfigKey] != "" && err == nil {
		r.signatures(m, known)
	}
}

func (r *objectReader) bootstrapFaults(e *bootstrap.Entry) {
	name := e.ID
	if name == "" {
		name = "of Secret " + e.Name
	}
	for _, f := range e.Findings {
		if key, is := strings.CutPrefix(f.Field, "data."); is {
			f.Field = "data[" + key + "]"
		}
		r.found.Bootstrap = append(r.found.Bootstrap, trust.ObjectFault{ID: f.ID, Severity: f.Severity, Cause: "bootstrap token " + name + ": " + f.Cause, Fix: f.Fix,
			Place: objectAt("secret", metav1.NamespaceSystem, e.Name, f.Field)})
	}
}

// clusterInfo reads the kubeconfig of cluster-info.
func (r *objectReader) clusterInfo(m *corev1.ConfigMap) {
	c := &trust.ClusterInfo{Place: at(infoPath, "data["+api.KubeConfigKey+"]")}
	r.found.ClusterInfo = c
	text := m.Data[api.KubeConfigKey]
	if text == "" {
		c.Reason = "there is no kubeconfig in it"
		return
	}
	server, ca, err := bootstrap.ClusterOf([]byte(text))
	if err != nil {
		c.Reason = err.Error()
		return
	}
	c.Server = shortened(server)
	r.bundle(trust.ObjectBundle{Use: trust.DiscoveryCA, Place: at(infoPath, "data["+api.KubeConfigKey+"].certificate-authority-data")}, ca)
}

// signatures compares those of cluster-info with the tokens that they name. What is
// wrong with several at once has one cause, and is told once.
func (r *objectReader) signatures(m *corev1.ConfigMap, known map[string]*bootstrap.Entry) {
	var wrong, missing, gone []string
	for id, e := range known {
		signs := !e.Token.IsZero() && !e.Expired && (&bootstrap.Spec{Usages: e.Usages}).May(bootstrap.Signing)
		switch err := bootstrap.VerifySignature(m.Data, e.Token); {
		case !signs:
		case errors.Is(err, bootstrap.ErrSignature):
			wrong = append(wrong, id)
		case errors.Is(err, bootstrap.ErrNotSigned) && r.options.At.Sub(e.Created) > signed:
			missing = append(missing, id)
		}
	}
	for key := range m.Data {
		if id, is := strings.CutPrefix(key, api.JWSSignatureKeyPrefix); is && known[id] == nil {
			gone = append(gone, shortened(id))
		}
	}
	r.unsigned(wrong, "warning", "cluster-info is not signed with bootstrap token %s: the signature that names it was made of another content or with another secret, so that no node joins with it")
	r.unsigned(missing, "warning", "cluster-info has no signature with bootstrap token %s, which may sign: no node can discover the cluster with it")
	r.unsigned(gone, "info", "cluster-info has a signature with bootstrap token %s, which is not there any more")
}

// unsigned notes what is wrong with the signatures of some tokens.
func (r *objectReader) unsigned(ids []string, severity, cause string) {
	if len(ids) == 0 {
		return
	}
	slices.Sort(ids)
	r.found.Bootstrap = append(r.found.Bootstrap, trust.ObjectFault{
		ID: bootstrap.TokenUsage, Severity: severity, Place: at(infoPath, "data["+bootstrap.SignatureKey(ids[0])+"]"), Cause: fmt.Sprintf(cause, strings.Join(ids, ", ")),
		Fix: "see whether the controllers bootstrap-signer-controller and token-cleaner-controller of kube-controller-manager run (--controllers=*,bootstrap-signer-controller,token-cleaner-controller): they sign anew within seconds",
	})
}
