package workload

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"time"
	"unique"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/kubepki/kubepki/internal/trust"
)

// SecretFacts is what is kept of the Secret of a Certificate, so that all questions on
// it can be answered without it: no key, and some 600 bytes where it is as we write it.
// The zero value is a Secret that is not there. It is not changed once it is made.
type SecretFacts struct {
	Exists bool
	Type   corev1.SecretType // kept when the Secret is written again
	// HasCA tells of a ca.crt: whether truststores are to be there.
	HasCA bool
	// Leaf is the SHA-256 hash of the certificate (DER), zero where there is none.
	Leaf                [32]byte
	NotBefore, NotAfter time.Time
	// Key is the [KeyID] of the private key, zero where there is none.
	Key          [32]byte
	KeyAlgorithm cmapi.PrivateKeyAlgorithm
	KeySize      int
	// CertificateName is the annotation on whose it is, empty also where there is none.
	CertificateName string
	// Issuer is as the annotations have it, nothing filled in.
	Issuer cmmeta.IssuerReference

	hasData, hasKey, hasChain, keyFits       bool
	hasCertificateName, hasIssuer            bool
	keyError, chainError, managedFieldsError string

	names      leafNames
	metadata   *metadataFacts // nothing to tell: noMetadata
	formats    formatFacts
	keystores  keystoreFacts
	references []referenceFact
}

// short is a hash for equality alone, of texts that are only worth their comparison.
type short [16]byte

func shortOf(texts ...string) short {
	h := sha256.New()
	hashTexts(h, texts...)
	return short(h.Sum(nil))
}

// leafNames are the names of the certificate, for a Secret whose request is gone.
type leafNames struct {
	commonName              string
	dns                     []short // of each, for which field differs is asked too
	addresses, uris, emails short
}

type formatFacts struct {
	der, combined           bool // there, and what tls.key and tls.crt make
	ownedDER, ownedCombined bool // we wrote it
}

type keystoreFacts struct{ jks, jksTrust, pkcs12, pkcs12Trust bool }

type referenceFact struct {
	uid   types.UID
	value short
	there bool // in the Secret
	owned bool // by our field manager
}

// metadataFacts is on labels and annotations. Those of cert-manager.io are judged when
// the facts are made, by the Secret alone; of the others a hash of each value is kept.
type metadataFacts struct {
	baseLabel                      string // the wrong value of controller.cert-manager.io/fao
	details                        string // which annotation is not what the certificate says
	missingLabel                   bool
	missingAnnotations             []string
	extraLabels, extraAnnotations  []string // of cert-manager.io, owned, and not ours
	ownedLabels, ownedAnnotations  []string // others that are owned: of the template
	labelValues, annotationsValues []metaValue
}

// noMetadata is what all Secrets share that are as they shall be and have no template.
var noMetadata = &metadataFacts{}

func (m *metadataFacts) orNone() *metadataFacts {
	lists := len(m.missingAnnotations) + len(m.extraLabels) + len(m.extraAnnotations) + len(m.ownedLabels) + len(m.ownedAnnotations)
	if m.baseLabel == "" && m.details == "" && !m.missingLabel && lists+len(m.labelValues)+len(m.annotationsValues) == 0 {
		return noMetadata
	}
	return m
}

type metaValue struct{ key, value short }

// maxMeta is of how many labels and annotations the values are kept. Beyond it what
// differs from the template shows as missing.
const maxMeta = 64

// maxReferences is of how many owners, for the same reason: a Secret of ours has one.
const maxReferences = 64

// FactsOf looks at a Secret once. nil is one that is not there.
func FactsOf(s *corev1.Secret) SecretFacts {
	if s == nil {
		return SecretFacts{}
	}
	f := SecretFacts{
		Exists: true, Type: corev1.SecretType(shared(string(s.Type))),
		hasData: s.Data != nil, HasCA: s.Data[cmmeta.TLSCAKey] != nil,
		hasKey: len(s.Data[corev1.TLSPrivateKeyKey]) > 0, hasChain: len(s.Data[corev1.TLSCertKey]) > 0,
	}
	leaf := f.readPair(s)
	f.readAnnotations(s)
	f.keystores = keystoreFacts{
		jks: len(s.Data[cmapi.JKSSecretKey]) > 0, jksTrust: len(s.Data[cmapi.JKSTruststoreKey]) > 0,
		pkcs12: len(s.Data[cmapi.PKCS12SecretKey]) > 0, pkcs12Trust: len(s.Data[cmapi.PKCS12TruststoreKey]) > 0,
	}
	owned, err := ownedOf(s.ManagedFields)
	if err != nil {
		f.managedFieldsError = err.Error()
	}
	f.readFormats(s, owned)
	f.readReferences(s, owned)
	f.readMetadata(s, leaf, owned)
	return f
}

// shared keeps one copy of texts that many Secrets have alike.
func shared(text string) string { return unique.Make(text).Value() }

func (f *SecretFacts) readPair(s *corev1.Secret) *x509.Certificate {
	var leaf *x509.Certificate
	if f.hasChain {
		chain, err := trust.ParseCertificates(s.Data[corev1.TLSCertKey])
		if err != nil {
			f.chainError = err.Error()
		} else {
			leaf = chain[0]
			f.Leaf, f.NotBefore, f.NotAfter = sha256.Sum256(leaf.Raw), leaf.NotBefore, leaf.NotAfter
			f.names = leafNamesOf(leaf)
		}
	}
	if !f.hasKey {
		return leaf
	}
	public, err := publicOf(s.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		f.keyError = err.Error()
		return leaf
	}
	f.Key = KeyID(public)
	f.KeyAlgorithm, f.KeySize = keyKind(public)
	f.keyFits = leaf != nil && trust.SameKey(leaf.PublicKey, public)
	return leaf
}

func leafNamesOf(c *x509.Certificate) leafNames {
	n := leafNames{
		commonName: c.Subject.CommonName,
		addresses:  shortOf(addressTexts(c.IPAddresses)...),
		uris:       shortOf(uriTexts(c.URIs)...),
		emails:     shortOf(sorted(c.EmailAddresses)...),
	}
	for _, name := range c.DNSNames {
		n.dns = append(n.dns, shortOf(name))
	}
	return n
}

func (f *SecretFacts) readAnnotations(s *corev1.Secret) {
	var name, kind, group bool
	f.Issuer.Name, name = s.Annotations[cmapi.IssuerNameAnnotationKey]
	f.Issuer.Kind, kind = s.Annotations[cmapi.IssuerKindAnnotationKey]
	f.Issuer.Group, group = s.Annotations[cmapi.IssuerGroupAnnotationKey]
	f.hasIssuer = name || kind || group
	f.Issuer = cmmeta.IssuerReference{Name: shared(f.Issuer.Name), Kind: shared(f.Issuer.Kind), Group: shared(f.Issuer.Group)}
	f.CertificateName, f.hasCertificateName = s.Annotations[cmapi.CertificateNameKey]
}

func (f *SecretFacts) readFormats(s *corev1.Secret, o *owned) {
	key, chain := s.Data[corev1.TLSPrivateKeyKey], s.Data[corev1.TLSCertKey]
	if v, ok := s.Data[cmapi.CertificateOutputFormatDERKey]; ok {
		der, err := keyDER(key)
		f.formats.der = err == nil && bytes.Equal(v, der)
	}
	if v, ok := s.Data[cmapi.CertificateOutputFormatCombinedPEMKey]; ok {
		f.formats.combined = bytes.Equal(v, combined(key, chain))
	}
	f.formats.ownedDER = slices.Contains(o.data, cmapi.CertificateOutputFormatDERKey)
	f.formats.ownedCombined = slices.Contains(o.data, cmapi.CertificateOutputFormatCombinedPEMKey)
}

func (f *SecretFacts) readReferences(s *corev1.Secret, o *owned) {
	there := map[types.UID]bool{}
	for _, r := range s.OwnerReferences[:min(len(s.OwnerReferences), maxReferences)] {
		_, owned := slices.BinarySearch(o.references, r.UID)
		f.references = append(f.references, referenceFact{uid: r.UID, value: referenceHash(r), there: true, owned: owned})
		there[r.UID] = true
	}
	for _, uid := range o.references[:min(len(o.references), maxReferences)] {
		if !there[uid] {
			f.references = append(f.references, referenceFact{uid: uid, owned: true})
		}
	}
}

func referenceHash(r metav1.OwnerReference) short {
	flag := func(b *bool) string {
		if b == nil {
			return ""
		}
		return fmt.Sprint(*b)
	}
	return shortOf(r.APIVersion, r.Kind, r.Name, string(r.UID), flag(r.Controller), flag(r.BlockOwnerDeletion))
}

func (f *SecretFacts) readMetadata(s *corev1.Secret, leaf *x509.Certificate, o *owned) {
	m := &metadataFacts{}
	defer func() { f.metadata = m.orNone() }()
	if v, ok := s.Labels[cmapi.PartOfCertManagerControllerLabelKey]; ok && v != "true" {
		m.baseLabel = v
	}
	wanted := map[string]string{}
	if leaf != nil {
		var err error
		if wanted, err = annotationsOf(leaf); err != nil {
			f.chainError = cmp.Or(f.chainError, err.Error())
		}
	}
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		if v, ok := s.Annotations[key]; ok && v != wanted[key] && m.details == "" {
			m.details = fmt.Sprintf("Secret metadata %s does not match certificate metadata %s", v, wanted[key])
		}
		if !slices.Contains(o.annotations, key) {
			m.missingAnnotations = append(m.missingAnnotations, key)
		}
	}
	m.missingLabel = true
	for _, key := range o.labels {
		switch {
		case key == cmapi.PartOfCertManagerControllerLabelKey:
			m.missingLabel = false
		case isManaged(key):
			m.extraLabels = append(m.extraLabels, key)
		default:
			m.ownedLabels = append(m.ownedLabels, key)
		}
	}
	for _, key := range o.annotations {
		_, detail := wanted[key]
		switch {
		case detail, slices.Contains(identityAnnotations, key):
		case isManaged(key):
			m.extraAnnotations = append(m.extraAnnotations, key)
		default:
			m.ownedAnnotations = append(m.ownedAnnotations, key)
		}
	}
	m.labelValues, m.annotationsValues = valuesOf(s.Labels, o.labels), valuesOf(s.Annotations, o.annotations)
}

// identityAnnotations are judged by their values, and only an issuance writes them.
var identityAnnotations = []string{cmapi.CertificateNameKey, cmapi.IssuerNameAnnotationKey, cmapi.IssuerKindAnnotationKey, cmapi.IssuerGroupAnnotationKey}

// valuesOf keeps what a template may name: first what we own, then the rest. What
// cert-manager.io writes itself is judged already.
func valuesOf(all map[string]string, owned []string) []metaValue {
	var values []metaValue
	add := func(key string) {
		v, ok := all[key]
		if ours := isManaged(key) && key != cmapi.AllowsInjectionFromSecretAnnotation; ok && !ours && len(values) < maxMeta {
			values = append(values, metaValue{shortOf(key), shortOf(v)})
		}
	}
	for _, key := range owned {
		add(key)
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if _, found := slices.BinarySearch(owned, key); !found {
			add(key)
		}
	}
	return values
}

// owned is what [FieldManager] owns of a Secret, sorted.
type owned struct {
	labels, annotations, data []string
	references                []types.UID
}

func ownedOf(entries []metav1.ManagedFieldsEntry) (*owned, error) {
	o := &owned{}
	for _, e := range entries {
		if e.Manager != FieldManager || e.FieldsV1 == nil {
			continue
		}
		var set fieldpath.Set
		if err := set.FromJSON(e.FieldsV1.GetRawReader()); err != nil {
			return &owned{}, err
		}
		set.Iterate(o.add)
	}
	for _, list := range []*[]string{&o.labels, &o.annotations, &o.data} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	slices.Sort(o.references)
	o.references = slices.Compact(o.references)
	return o, nil
}

func (o *owned) add(p fieldpath.Path) {
	field := func(i int) string {
		if i < len(p) && p[i].FieldName != nil {
			return *p[i].FieldName
		}
		return ""
	}
	switch {
	case len(p) == 2 && field(0) == "data":
		o.data = append(o.data, field(1))
	case len(p) != 3 || field(0) != "metadata":
	case field(1) == "labels":
		o.labels = append(o.labels, field(2))
	case field(1) == "annotations":
		o.annotations = append(o.annotations, field(2))
	case field(1) == "ownerReferences" && p[2].Key != nil:
		for _, k := range *p[2].Key {
			if k.Name == "uid" && k.Value.IsString() {
				o.references = append(o.references, types.UID(k.Value.AsString()))
			}
		}
	}
}
