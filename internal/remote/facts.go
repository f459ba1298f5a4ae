package remote

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// Facts are what a node tells of itself, without any private key.
type Facts struct {
	Told      trust.Node `json:"node"` // without materials
	Materials []Material `json:"materials"`
	Proofs    []Proof    `json:"proofs"`
	Mended    int        `json:"mended,omitempty"` // files and temporaries of an interrupted run
	Clock     time.Time  `json:"clock"`            // of the node
}

// Material is a [trust.Material] with what it holds in DER.
type Material struct {
	Place         trust.Place `json:"place"`
	Role          trust.Role  `json:"role"`
	State         trust.State `json:"state"`
	Reason        string      `json:"reason,omitempty"`
	Certificates  [][]byte    `json:"certificates,omitempty"`
	Keys          [][]byte    `json:"keys,omitempty"` // public ones, PKIX
	Headed        [][]byte    `json:"headed,omitempty"`
	HasPrivateKey bool        `json:"hasPrivateKey,omitempty"`
	Target        string      `json:"target,omitempty"`
}

// Proof shows that the node holds the private key that stands at a place: a request
// signed by it whose name is the question.
type Proof struct {
	Place   trust.Place `json:"place"`
	Request []byte      `json:"request"` // PKCS#10 in DER
}

// proofName is the common name of a proof: it ties the nonce to one node.
func proofName(node, nonce string) string { return "kubepki proof " + node + " " + nonce }

// FactsOf makes facts of what was read of a node, and proves its keys.
func FactsOf(n trust.Node, keys map[trust.Place]crypto.Signer, nonce string) (*Facts, error) {
	f := &Facts{Told: n}
	f.Told.Materials, f.Told.Objects = nil, nil
	for _, m := range n.Materials {
		w := Material{Place: m.Place, Role: m.Role, State: m.State, Reason: m.Reason, Certificates: derOf(m.Certificates), Headed: derOf(m.Headed), HasPrivateKey: m.HasPrivateKey, Target: m.Target}
		for _, k := range m.Keys {
			der, err := x509.MarshalPKIXPublicKey(k)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", m.Place, err)
			}
			w.Keys = append(w.Keys, der)
		}
		f.Materials = append(f.Materials, w)
	}
	for place, key := range keys {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: proofName(n.Name, nonce)}}, key)
		if err != nil {
			continue // a key that crypto/x509 refuses to sign with is none that counts
		}
		f.Proofs = append(f.Proofs, Proof{place, der})
	}
	slices.SortFunc(f.Proofs, func(a, b Proof) int { return a.Place.Compare(b.Place) })
	return f, nil
}

func derOf(all []*x509.Certificate) [][]byte {
	var der [][]byte
	for _, c := range all {
		der = append(der, c.Raw)
	}
	return der
}

// MaxMaterials bounds what one node has.
const MaxMaterials = 10000

// Node returns the facts as a node, and the public halves of the keys that it has
// proved to hold. It refuses facts that speak of another node than name.
func (f *Facts) Node(name, nonce string) (trust.Node, map[trust.Place]crypto.PublicKey, error) {
	n := f.Told
	if len(f.Materials) > MaxMaterials || len(f.Proofs) > MaxMaterials {
		return n, nil, fmt.Errorf("it tells of more than %d materials", MaxMaterials)
	}
	n.Materials, n.Objects = nil, nil
	seen := map[trust.Place]bool{}
	for _, w := range f.Materials {
		m, err := w.material()
		if err != nil {
			return n, nil, fmt.Errorf("what it tells of %s: %w", w.Place, err)
		}
		if seen[m.Place] {
			return n, nil, fmt.Errorf("it tells twice of %s", m.Place)
		}
		seen[m.Place] = true
		n.Materials = append(n.Materials, m)
	}
	if err := speaksOf(reflect.ValueOf(n), name); err != nil {
		return n, nil, err
	}
	proven, err := f.proven(name, nonce)
	return n, proven, err
}

func (w *Material) material() (*trust.Material, error) {
	m := &trust.Material{Place: w.Place, Role: w.Role, State: w.State, Reason: w.Reason, HasPrivateKey: w.HasPrivateKey, Target: w.Target}
	var err error
	if m.Certificates, err = certificatesOf(w.Certificates); err != nil {
		return nil, err
	}
	if m.Headed, err = certificatesOf(w.Headed); err != nil {
		return nil, err
	}
	for _, der := range w.Keys {
		k, err := x509.ParsePKIXPublicKey(der)
		if err != nil {
			return nil, err
		}
		m.Keys = append(m.Keys, k)
	}
	return m, nil
}

func certificatesOf(all [][]byte) ([]*x509.Certificate, error) {
	if len(all) > trust.MaxBlocks {
		return nil, fmt.Errorf("more than %d certificates", trust.MaxBlocks)
	}
	var certificates []*x509.Certificate
	for _, der := range all {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		certificates = append(certificates, c)
	}
	return certificates, nil
}

// proven checks the proofs.
func (f *Facts) proven(name, nonce string) (map[trust.Place]crypto.PublicKey, error) {
	proven := map[trust.Place]crypto.PublicKey{}
	for _, p := range f.Proofs {
		r, err := x509.ParseCertificateRequest(p.Request)
		if err == nil {
			err = r.CheckSignature()
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("the proof of the key in %s: %w", p.Place, err)
		case r.Subject.CommonName != proofName(name, nonce):
			return nil, fmt.Errorf("the proof of the key in %s answers another question", p.Place)
		case p.Place.Node != name:
			return nil, otherNode(p.Place.Node)
		}
		proven[p.Place] = r.PublicKey
	}
	return proven, nil
}

func otherNode(name string) error {
	return fmt.Errorf("it tells of a node %q: a node speaks of itself alone", name)
}

// speaksOf refuses whatever names another node: each place, and each component's node.
// It looks at all of the value, so that a field that is new is looked at too.
func speaksOf(v reflect.Value, name string) error {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() || v.Type() == reflect.TypeFor[*x509.Certificate]() || v.Kind() == reflect.Interface {
			return nil
		}
		return speaksOf(v.Elem(), name)
	case reflect.Slice:
		for i := range v.Len() {
			if err := speaksOf(v.Index(i), name); err != nil {
				return err
			}
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			if err := errors.Join(speaksOf(k, name), speaksOf(v.MapIndex(k), name)); err != nil {
				return err
			}
		}
	case reflect.Struct:
		return structSpeaksOf(v, name)
	default:
	}
	return nil
}

func structSpeaksOf(v reflect.Value, name string) error {
	switch x := v.Interface().(type) {
	case trust.Place:
		if !x.IsZero() && x.Node != name {
			return otherNode(x.Node)
		}
		if strings.ContainsRune(x.Path, 0) {
			return fmt.Errorf("it tells of a path %q", x.Path)
		}
		return nil
	case trust.Node:
		if x.Name != name {
			return otherNode(x.Name)
		}
	case trust.Component:
		if x.Node != name {
			return otherNode(x.Node)
		}
	}
	for i := range v.NumField() {
		if err := speaksOf(v.Field(i), name); err != nil {
			return err
		}
	}
	return nil
}
