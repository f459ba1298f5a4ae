package shim

import (
	"encoding/json"
	"maps"
	"slices"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Plan is what brings the Certificates of a parent to what it wants.
type Plan struct {
	// Create are Certificates that are not there among those of the parent. Where one of
	// the name is there all the same it is another's, and stays as it is.
	Create []*cmapi.Certificate
	Update []*cmapi.Certificate // as wanted; [Overlay] changes what is there
	Delete []*cmapi.Certificate // as they are there
	// Skipped are the problems of blocks that get no certificate.
	Skipped []string
}

// Plan compares what a parent wants with the Certificates that it is the controller of,
// which are all in its namespace. Without an annotation that asks for Certificates, and
// while the parent is going, everything is left as it is; so it is with an error, which is
// about the whole parent.
func (d *Defaults) Plan(p *Parent, there []*cmapi.Certificate) (*Plan, error) {
	if p.going() || !d.Asks(p) {
		return &Plan{}, nil
	}
	wanted, skipped, err := d.Wanted(p)
	if err != nil {
		return nil, err
	}
	plan := &Plan{Skipped: skipped}
	for _, w := range wanted {
		i := slices.IndexFunc(there, func(c *cmapi.Certificate) bool { return c.Name == w.Name })
		switch {
		case i < 0:
			plan.Create = append(plan.Create, w)
		case differs(there[i], w):
			plan.Update = append(plan.Update, w)
		}
	}
	for _, c := range there {
		if !p.uses(c.Spec.SecretName) {
			plan.Delete = append(plan.Delete, c)
		}
	}
	return plan, nil
}

// Owns tells whether a parent is the controller of a Certificate.
func (p *Parent) Owns(c *cmapi.Certificate) bool {
	owner := metav1.GetControllerOfNoCopy(c)
	return owner != nil && owner.UID == p.UID
}

// field is a field of spec that is made of annotations.
type field struct {
	name string
	of   func(*cmapi.CertificateSpec) any
	// sticky fields change only where an annotation sets them: cert-manager's shim does not
	// compare them, so that what somebody has written there by hand has stayed till now.
	sticky bool
}

func fields() []field {
	return []field{
		{"commonName", func(s *cmapi.CertificateSpec) any { return s.CommonName }, false},
		{"dnsNames", func(s *cmapi.CertificateSpec) any { return s.DNSNames }, false},
		{"secretName", func(s *cmapi.CertificateSpec) any { return s.SecretName }, false},
		{"revisionHistoryLimit", func(s *cmapi.CertificateSpec) any { return s.RevisionHistoryLimit }, false},
		{"duration", func(s *cmapi.CertificateSpec) any { return s.Duration }, false},
		{"renewBefore", func(s *cmapi.CertificateSpec) any { return s.RenewBefore }, false},
		{"ipAddresses", func(s *cmapi.CertificateSpec) any { return s.IPAddresses }, true},
		{"emailAddresses", func(s *cmapi.CertificateSpec) any { return s.EmailAddresses }, true},
		{"renewBeforePercentage", func(s *cmapi.CertificateSpec) any { return s.RenewBeforePercentage }, true},
		{"subject", func(s *cmapi.CertificateSpec) any { return s.Subject }, true},
		{"secretTemplate", func(s *cmapi.CertificateSpec) any { return s.SecretTemplate }, true},
		{"usages", asked, true},
	}
}

// asked are usages where they are not those that everybody gets.
func asked(s *cmapi.CertificateSpec) any {
	if slices.Equal(s.Usages, cmapi.DefaultKeyUsages()) {
		return []cmapi.KeyUsage(nil)
	}
	return s.Usages
}

// differs tells whether a Certificate is not what is wanted of it. What no annotation can
// say, such as keystores, is not looked at.
func differs(there, wanted *cmapi.Certificate) bool {
	for _, f := range fields() {
		value := f.of(&wanted.Spec)
		if f.sticky && equality.Semantic.DeepEqual(value, f.of(&cmapi.CertificateSpec{})) {
			continue
		}
		if !equality.Semantic.DeepEqual(f.of(&there.Spec), value) {
			return true
		}
	}
	for key, value := range wanted.Annotations {
		if there.Annotations[key] != value {
			return true
		}
	}
	return !maps.Equal(there.Labels, wanted.Labels) || issuerDiffers(there, wanted) || keyOf(there) != keyOf(wanted)
}

func issuerDiffers(there, wanted *cmapi.Certificate) bool {
	a, b := there.Spec.IssuerRef, wanted.Spec.IssuerRef
	return a.Name != b.Name || a.Kind != b.Kind || b.Group != "" && a.Group != b.Group
}

// keyOf is what is wanted of a key.
func keyOf(c *cmapi.Certificate) cmapi.CertificatePrivateKey {
	if c.Spec.PrivateKey == nil {
		return cmapi.CertificatePrivateKey{}
	}
	k := *c.Spec.PrivateKey
	if k.Algorithm == cmapi.Ed25519KeyAlgorithm {
		k.Size = 0 // there is but one
	}
	return k
}

// Overlay changes a Certificate, as it is in JSON, into what is wanted of it: the fields,
// labels and annotations that are made of a parent, and nothing else.
func Overlay(there map[string]any, wanted *cmapi.Certificate) error {
	data, err := json.Marshal(wanted)
	if err != nil {
		return err
	}
	var w map[string]any
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	meta, spec, asWanted := child(there, "metadata"), child(there, "spec"), child(w, "spec")
	put(meta, "labels", child(w, "metadata")["labels"])
	annotations := child(meta, "annotations")
	for key, value := range wanted.Annotations {
		annotations[key] = value
	}
	for _, f := range fields() {
		value, given := asWanted[f.name]
		if f.sticky && (!given || f.name == "usages" && len(asked(&wanted.Spec).([]cmapi.KeyUsage)) == 0) {
			continue
		}
		put(spec, f.name, value)
	}
	put(spec, "issuerRef", asWanted["issuerRef"])
	put(spec, "privateKey", asWanted["privateKey"])
	return nil
}

// child is an object within an object, which is made where it is not there.
func child(o map[string]any, name string) map[string]any {
	c, ok := o[name].(map[string]any)
	if !ok {
		c = map[string]any{}
		o[name] = c
	}
	return c
}

func put(o map[string]any, name string, value any) {
	if value == nil {
		delete(o, name)
		return
	}
	o[name] = value
}
