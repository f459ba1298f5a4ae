package certmanager

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"

	"github.com/kubepki/kubepki/internal/rollover"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

// The record of an issuer is a Secret beside that of its CA: what it says is trusted by
// all readers of the issuer.
const (
	recordType    = corev1.SecretType("kubepki.dev/ca-rollover")
	recordSuffix  = ".ca-rollover"
	recordManager = "kubepki-ca-rollover"

	issuerSuffix, clusterIssuerSuffix = ".issuer", ".clusterissuer"

	recordState       = "state.json"
	recordCertificate = "previous.crt"
	recordKey         = "previous.key"
)

// maxAnchors is how many anchors a record may have: a user may add some by hand.
const maxAnchors = 2 * rollover.MaxAnchors

// errRecord tells that a record cannot be read.
var errRecord = errors.New("the record of the issuer's CAs cannot be read")

// caRecord is what is remembered of an issuer's CAs.
type caRecord struct {
	rollover.Record
	certificates map[rollover.ID]*x509.Certificate
	// secret is the name of the Secret that the issuer named last.
	secret string
	// previous signs until the CA that came after it is accepted; nil: it is not at hand.
	previous *workload.Authority
	kept     time.Time // since when it is here
	there    bool      // in a Secret, of this version
	version  string
	owner    types.UID // the issuer with which it goes
	text     string    // as it is in the Secret, but for the key
}

// recordName is the Secret of an issuer's record.
func recordName(key issuerKey) string {
	const most = 253 - 64 - 2
	name, kind := key.name, issuerSuffix
	if key.namespace == "" {
		kind = clusterIssuerSuffix
	}
	if hasLongName(key) {
		sum := sha256.Sum256([]byte(name))
		name = strings.TrimRight(name[:most-len(kind+recordSuffix)], "-.") + "-" + hex.EncodeToString(sum[:])
	}
	return name + kind + recordSuffix
}

// hasLongName tells whether the name of a record does not hold its issuer's.
func hasLongName(key issuerKey) bool {
	return len(key.name)+len(clusterIssuerSuffix+recordSuffix) > 253
}

// stateText is the JSON of a record: times, and who signs.
type stateText struct {
	Anchors []anchorText `json:"anchors"`
	Signing string       `json:"signing"`
	Since   time.Time    `json:"since"`
	Secret  string       `json:"secret"`
	Kept    time.Time    `json:"kept,omitzero"`
	Begun   time.Time    `json:"begun,omitzero"`
}

type anchorText struct {
	ID          string    `json:"id"`
	Certificate string    `json:"certificate"`
	SignsUntil  time.Time `json:"signsUntil"`
	Published   time.Time `json:"published,omitzero"`
	Unused      time.Time `json:"unused,omitzero"`
	Others      time.Time `json:"others,omitzero"`
	Order       []int64   `json:"order,omitempty"` // in Unix time
}

// readRecord reads the record of an issuer; an empty one where there is none.
func (r *rollovers) readRecord(ctx context.Context, at types.NamespacedName) (*caRecord, error) {
	secret, err := r.client.CoreV1().Secrets(at.Namespace).Get(ctx, at.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return &caRecord{certificates: map[rollover.ID]*x509.Certificate{}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading Secret %s: %w", at, err)
	}
	rec, err := parseRecord(secret)
	if err != nil {
		return nil, fmt.Errorf("%w: Secret %s: %w; mend it, or remove it to begin anew", errRecord, at, err)
	}
	return rec, nil
}

func parseRecord(secret *corev1.Secret) (*caRecord, error) {
	certificates, err := trust.ParseCertificates(secret.Data[cmmeta.TLSCAKey])
	if err != nil {
		return nil, fmt.Errorf("ca.crt: %w", err)
	}
	if len(certificates) > maxAnchors {
		return nil, fmt.Errorf("ca.crt: %d certificates are more than %d", len(certificates), maxAnchors)
	}
	var state stateText
	if text := secret.Data[recordState]; len(text) > 0 {
		if err := json.Unmarshal(text, &state); err != nil {
			return nil, fmt.Errorf("%s: %w", recordState, err)
		}
	}
	rec := &caRecord{certificates: map[rollover.ID]*x509.Certificate{}, secret: state.Secret, there: true, version: secret.ResourceVersion, kept: state.Kept}
	known := map[string]anchorText{}
	for _, a := range state.Anchors {
		known[a.Certificate] = a
	}
	var added []rollover.Anchor
	for _, c := range certificates {
		if !c.IsCA {
			return nil, fmt.Errorf("ca.crt: certificate %q is not an authority", c.Subject)
		}
		a := anchorOf(c)
		if rec.certificates[a.ID] != nil {
			continue
		}
		rec.certificates[a.ID] = c
		was, ok := known[hex.EncodeToString(a.Certificate[:])]
		if !ok { // a user has added it: it is older than what signs
			a.SignsUntil = c.NotAfter
			added = append(added, a)
			continue
		}
		a.SignsUntil, a.Published, a.Unused, a.Others = was.SignsUntil, was.Published, was.Unused, was.Others
		for _, end := range was.Order[:min(len(was.Order), orderParts)] {
			a.Order = append(a.Order, time.Unix(end, 0))
		}
		rec.Anchors = append(rec.Anchors, a)
	}
	rec.Anchors = append(added, rec.Anchors...)
	if id, err := hex.DecodeString(state.Signing); err == nil && len(id) == len(rec.Signing) {
		rec.Signing = rollover.ID(id)
	}
	rec.Since, rec.Begun = state.Since, state.Begun
	rec.previous = previousOf(secret)
	rec.text = rec.encode()
	if len(secret.OwnerReferences) > 0 {
		rec.owner = secret.OwnerReferences[0].UID
	}
	return rec, nil
}

// previousOf is the CA that signed before, nil where its key is not there.
func previousOf(secret *corev1.Secret) *workload.Authority {
	if len(secret.Data[recordKey]) == 0 {
		return nil
	}
	a, err := workload.AuthorityOf(secret.Data[recordCertificate], secret.Data[recordKey], nil)
	if err != nil {
		return nil
	}
	return a
}

func anchorOf(c *x509.Certificate) rollover.Anchor {
	return rollover.Anchor{ID: rollover.ID(workload.AnchorIDOf(c)), Certificate: sha256.Sum256(c.Raw), NotAfter: c.NotAfter}
}

// currentOf is the anchor of an authority: the topmost of its chain.
func currentOf(a *workload.Authority) rollover.Anchor {
	anchor := anchorOf(a.Chain[len(a.Chain)-1])
	anchor.SignsUntil = a.NotAfter()
	return anchor
}

// encode is the state in JSON, by which it is seen whether a record has changed.
func (r *caRecord) encode() string {
	state := stateText{Signing: hex.EncodeToString(r.Signing[:]), Since: r.Since.UTC(), Secret: r.secret, Kept: r.kept.UTC(), Begun: r.Begun.UTC()}
	for _, a := range r.Anchors {
		var order []int64
		for _, end := range a.Order {
			order = append(order, end.Unix())
		}
		state.Anchors = append(state.Anchors, anchorText{
			ID: hex.EncodeToString(a.ID[:]), Certificate: hex.EncodeToString(a.Certificate[:]),
			SignsUntil: a.SignsUntil.UTC(), Published: a.Published.UTC(), Unused: a.Unused.UTC(), Others: a.Others.UTC(), Order: order,
		})
	}
	text, err := json.Marshal(state)
	if err != nil {
		panic(err) // texts and times
	}
	return string(text)
}

// list are the certificates of the anchors, the oldest first.
func (r *caRecord) list() []*x509.Certificate {
	var all []*x509.Certificate
	for _, a := range r.Anchors {
		all = append(all, r.certificates[a.ID])
	}
	return all
}

// ownerOf is the issuer with which a record goes; "": none. In the midst of a change it
// stays, for applications need what it says until they are carried over.
func (r *caRecord) ownerOf(key issuerKey, uid types.UID) types.UID {
	if len(r.Anchors) > 1 && !hasLongName(key) {
		return ""
	}
	return uid
}

// writeRecord keeps the record of an issuer, if nobody has changed it since it was read.
// The UID is "" where the issuer is gone.
func (r *rollovers) writeRecord(ctx context.Context, key issuerKey, uid types.UID, rec *caRecord) error {
	at := r.recordAt(key)
	data := map[string][]byte{cmmeta.TLSCAKey: trust.EncodeCertificates(rec.list()...), recordState: []byte(rec.encode())}
	if rec.previous != nil {
		key, err := x509.MarshalPKCS8PrivateKey(rec.previous.Key)
		if err != nil {
			return errors.New("the key of the previous CA cannot be encoded")
		}
		data[recordCertificate] = trust.EncodeCertificates(rec.previous.Chain...)
		data[recordKey] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	}
	secret := applycorev1.Secret(at.Name, at.Namespace).WithType(recordType).WithData(data).
		WithLabels(map[string]string{cmapi.PartOfCertManagerControllerLabelKey: "true", "app.kubernetes.io/managed-by": "kubepki"})
	owner := rec.ownerOf(key, uid)
	if owner != "" {
		secret.WithOwnerReferences(applymetav1.OwnerReference().WithAPIVersion(cmapi.SchemeGroupVersion.String()).WithKind(key.kind()).WithName(key.name).WithUID(owner))
	}
	if rec.version != "" {
		secret.WithResourceVersion(rec.version)
	}
	written, err := r.client.CoreV1().Secrets(at.Namespace).Apply(ctx, secret, metav1.ApplyOptions{FieldManager: recordManager, Force: true})
	if apierrors.IsConflict(err) {
		return fmt.Errorf("the record of the issuer's CAs, Secret %s: %w", at, errAgain)
	}
	if err != nil {
		return fmt.Errorf("writing Secret %s: %w", at, err)
	}
	rec.there, rec.version, rec.text, rec.owner = true, written.ResourceVersion, rec.encode(), owner
	return nil
}

// dropsUnused forgets certificates of anchors that the record has no more.
func (r *caRecord) dropsUnused() {
	for id := range r.certificates {
		if !slices.ContainsFunc(r.Anchors, func(a rollover.Anchor) bool { return a.ID == id }) {
			delete(r.certificates, id)
		}
	}
}
