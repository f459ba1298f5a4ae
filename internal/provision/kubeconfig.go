package provision

import (
	"crypto"
	"crypto/x509"
	"slices"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// judgeKubeconfig refuses a kubeconfig that is there but would not work: it
// must name the right server, hold the authority, and show a good certificate.
func (p *Planned) judgeKubeconfig(s *slot) error {
	file := p.host(s, s.entry.Path)
	k, materials, keys := layout.ParseKubeconfig(trust.Place{Path: s.entry.Path}, s.have.file)
	if k.State != trust.Present {
		return refuse(file, moveAway, "%s", k.Reason)
	}
	if k.Server != s.entry.URL {
		return refuse(file, "mend the server there or the configuration, or move the file away to have it made anew",
			"%s: is %s, wanted is %s", k.ServerField, k.Server, s.entry.URL)
	}
	r := fieldReader{p: p, s: s, materials: materials, keys: keys}
	anchors, _, err := r.read(k.CA, trust.RoleBundle, "certificate-authority-data")
	if err != nil {
		return err
	}
	if a := p.authorities[s.entry.Anchors]; a.chain != nil && !slices.ContainsFunc(anchors, a.chain[0].Equal) {
		return refuse(file, moveAway, "%s: does not hold the authority %s", k.CA.Field, a.path)
	} else if a.chain == nil && !a.awaited {
		return refuse(file, helpShape,
			"stands there, but its authority %q does not: a new one would not fit", a.entry.Name)
	}
	return p.judgeClient(s, k, r)
}

func (p *Planned) judgeClient(s *slot, k trust.Kubeconfig, r fieldReader) error {
	file := p.host(s, s.entry.Path)
	chain, key, err := r.read(k.Certificate, trust.RoleCertificate, "client-certificate-data")
	if err != nil {
		return err
	}
	if k.Key != k.Certificate || key == nil {
		if _, key, err = r.read(k.Key, trust.RoleKey, "client-key-data"); err != nil {
			return err
		}
	}
	s.pair.key = key
	defer func() { s.pair = pair{} }() // it stays where it is
	return p.judgeCertificate(s, file, chain, p.authorities[s.entry.Authorities[0]])
}

// fieldReader reads what a kubeconfig names: embedded, or in another file.
type fieldReader struct {
	p         *Planned
	s         *slot
	materials []*trust.Material
	keys      layout.Keyring
}

func (r fieldReader) read(at trust.Place, role trust.Role, field string) ([]*x509.Certificate, crypto.Signer, error) {
	file := r.p.host(r.s, r.s.entry.Path)
	if at.IsZero() {
		return nil, nil, refuse(file, moveAway, "%s is not set", field)
	}
	for _, m := range r.materials {
		if m.Place != at {
			continue
		}
		if !m.OK() {
			return nil, nil, refuse(file, moveAway, "%s: %s", at.Field, m.Reason)
		}
		return m.Certificates, r.keys[at], nil
	}
	m, key, err := r.p.material(r.s, at.Path, role)
	if err != nil {
		return nil, nil, err
	}
	if m == nil {
		return nil, nil, refuse(file, moveAway, "names the file %s, which does not exist", at.Path)
	}
	return m.Certificates, key, nil
}

// encodeKubeconfig returns the content of a kubeconfig file.
func (p *Planned) encodeKubeconfig(s *slot) ([]byte, error) {
	key, err := encodeKey(s.pair.key)
	if err != nil {
		return nil, err
	}
	return layout.EncodeKubeconfig(layout.KubeconfigSpec{
		Cluster:     p.options.Cluster.Name,
		Server:      s.entry.URL,
		CA:          trust.EncodeCertificates(p.authorities[s.entry.Anchors].chain...),
		User:        s.entry.User,
		Certificate: trust.EncodeCertificates(s.pair.chain...),
		Key:         key,
	})
}

// incomplete tells that a kubeconfig cannot be written yet.
func (s *slot) incomplete() bool {
	return s.entry.Kind == catalog.KindKubeconfig && (s.action == Requested || s.action == Awaited)
}
