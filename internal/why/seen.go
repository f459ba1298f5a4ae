package why

import (
	"crypto/x509"
	"maps"
	"slices"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

// Look tells how the look at an object went.
type Look string

// The looks. The empty one says that nobody looked, for there was no reason to.
const (
	Found     Look = "found"
	Missing   Look = "missing"
	Forbidden Look = "forbidden"
	NoKind    Look = "no-kind" // the API server does not know the resource
	Failed    Look = "failed"
)

// Seen is an object, or what became of the look at it.
type Seen[T any] struct {
	Look   Look
	Object *T // where it was found
	// Detail is, where it is forbidden, the right that is missing, as "get secrets in
	// namespace shop"; where the look failed, the error.
	Detail string
}

// unseen tells that the object may be there or not.
func (s Seen[T]) unseen() bool { return s.Look == Forbidden || s.Look == Failed }

// Gathered is what was found of one Certificate.
type Gathered struct {
	At          time.Time
	Certificate *cmapi.Certificate
	// Secret is that of spec.secretName.
	Secret Seen[Secret]
	// KeySecret is that of status.nextPrivateKeySecretName, where an issuance is under
	// way: the name and no more.
	KeySecret Seen[string]
	// Siblings are the other Certificates of the namespace with the same secretName.
	Siblings Seen[[]Sibling]
	// Requests are those of the Certificate, in any order.
	Requests Seen[[]cmapi.CertificateRequest]
	Issuer   Seen[Issuer]
	// Issuers are those that there are, where the one that is wanted is missing.
	Issuers []IssuerName
	// Authority is the Secret of a CA issuer, with the namespace in which it was
	// looked for; empty where it was looked for in the Certificate's own.
	Authority          Seen[Secret]
	AuthorityNamespace string
	// Orders are those of the requests, Challenges those of the orders.
	Orders     Seen[[]cmacme.Order]
	Challenges Seen[[]cmacme.Challenge]
	// Leases are those of controllers that may serve Certificates.
	Leases Seen[[]Lease]
	Events []Event
}

// Sibling is another Certificate that names the same Secret.
type Sibling struct {
	Name    string
	Created time.Time
}

// IssuerName is an issuer that is there. Namespace is empty for a ClusterIssuer.
type IssuerName struct{ Kind, Namespace, Name string }

// Issuer is what is known of one of any group.
type Issuer struct {
	// Type is ca, selfSigned, acme, vault, venafi; "" for one of another group.
	Type string
	// CASecret is spec.ca.secretName.
	CASecret string
	// Ready is the condition of that type, nil where there is none.
	Ready *Condition
	// Generation is that of the object, Created and Changed when it was made and last
	// written by people.
	Generation       int64
	Created, Changed time.Time
}

// Condition is what all conditions have.
type Condition struct {
	Status          cmmeta.ConditionStatus
	Reason, Message string
	Since           time.Time
	Generation      int64
}

// Lease is one of a controller. Holder is empty where it was given up.
type Lease struct {
	Namespace, Name, Holder string
	Renewed                 time.Time
	Duration                time.Duration
}

// alive tells whether the holder has renewed the lease in time.
func (l *Lease) alive(at time.Time) bool {
	return l.Holder != "" && !at.After(l.Renewed.Add(max(l.Duration, 15*time.Second)))
}

// Event is one on an object of the chain.
type Event struct {
	Object          string // kind/namespace/name, the kind in lower case
	Type            string // Normal or Warning
	Reason, Message string
	Last            time.Time
	Count           int32
}

// Secret is what is public of one.
type Secret struct {
	Facts workload.SecretFacts
	Chain []*x509.Certificate // of tls.crt; nil where it does not parse
	Keys  []string            // the names of its data, sorted
	// Writers are the field managers that own tls.crt or tls.key, but for the
	// controller's own, and Changed is when the last of them wrote.
	Writers []string
	Changed time.Time
}

// NewSecret takes what is public out of a Secret.
func NewSecret(s *corev1.Secret) Secret {
	out := Secret{Facts: workload.FactsOf(s), Keys: slices.Sorted(maps.Keys(s.Data))}
	if chain, err := trust.ParseCertificates(s.Data[corev1.TLSCertKey]); err == nil {
		out.Chain = chain
	}
	for _, e := range s.ManagedFields {
		if e.Manager == workload.FieldManager || !ownsPair(e) {
			continue
		}
		if !slices.Contains(out.Writers, e.Manager) {
			out.Writers = append(out.Writers, e.Manager)
		}
		if e.Time != nil && e.Time.After(out.Changed) {
			out.Changed = e.Time.Time
		}
	}
	return out
}

func ownsPair(e metav1.ManagedFieldsEntry) bool {
	var set fieldpath.Set
	if e.FieldsV1 == nil || set.FromJSON(e.FieldsV1.GetRawReader()) != nil {
		return false
	}
	return set.Has(fieldpath.MakePathOrDie("data", corev1.TLSCertKey)) || set.Has(fieldpath.MakePathOrDie("data", corev1.TLSPrivateKeyKey))
}

// ChangedAt is when people wrote an object last, as far as its managed fields tell:
// otherwise when it was made.
func ChangedAt(o metav1.Object) time.Time {
	at := o.GetCreationTimestamp().Time
	for _, e := range o.GetManagedFields() {
		if e.Subresource == "" && e.Time != nil && e.Time.After(at) {
			at = e.Time.Time
		}
	}
	return at
}

// NewIssuer takes what matters out of an Issuer or a ClusterIssuer.
func NewIssuer(o cmapi.GenericIssuer) Issuer {
	i := Issuer{Generation: o.GetGeneration(), Created: o.GetCreationTimestamp().Time, Changed: ChangedAt(o)}
	spec := o.GetSpec()
	switch {
	case spec.CA != nil:
		i.Type, i.CASecret = "ca", spec.CA.SecretName
	case spec.SelfSigned != nil:
		i.Type = "selfSigned"
	case spec.ACME != nil:
		i.Type = "acme"
	case spec.Vault != nil:
		i.Type = "vault"
	case spec.Venafi != nil:
		i.Type = "venafi"
	}
	for _, c := range o.GetStatus().Conditions {
		if c.Type == cmapi.IssuerConditionReady {
			i.Ready = &Condition{Status: c.Status, Reason: c.Reason, Message: c.Message, Since: timeOf(c.LastTransitionTime), Generation: c.ObservedGeneration}
		}
	}
	return i
}

func timeOf(t *metav1.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.Time
}
