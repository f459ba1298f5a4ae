package handover

import (
	"bytes"
	"crypto"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// Check refuses contents that are not what their names say, or that do not belong
// together: a node with a key of another authority would sign what nobody believes.
// Names that are not there are not missed, but for the authority of the cluster.
func Check(contents map[string][]byte) error {
	if len(contents["ca.crt"]) == 0 {
		return errors.New("ca.crt: the authority of the cluster is not there")
	}
	external := contents[ExternalEtcdCert] != nil
	for _, e := range Entries(external) {
		content, there := contents[e.Name]
		if !there || len(content) == 0 {
			continue
		}
		if err := e.check(content, contents); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
	}
	return nil
}

func (e Entry) check(content []byte, all map[string][]byte) error {
	if e.Kind != PrivateKey {
		_, err := e.publics(content)
		return err
	}
	key, err := issue.ParsePrivateKey(content)
	if err != nil {
		return err
	}
	if len(all[e.Pair]) == 0 {
		return fmt.Errorf("is the key of %s, which is not there", e.Pair)
	}
	i := slices.IndexFunc(Entries(all[ExternalEtcdCert] != nil), func(o Entry) bool { return o.Name == e.Pair })
	publics, err := Entries(all[ExternalEtcdCert] != nil)[i].publics(all[e.Pair])
	if err != nil {
		return fmt.Errorf("is the key of %s: %w", e.Pair, err)
	}
	// Of a rotation several keys verify, and one of them signs. A certificate's key
	// is that of the first.
	if e.Pair != "sa.pub" {
		publics = publics[:1]
	}
	if !slices.ContainsFunc(publics, func(p crypto.PublicKey) bool { return trust.SameKey(p, key.Public()) }) {
		return fmt.Errorf("does not belong to %s", e.Pair)
	}
	return nil
}

// publics are the public keys of a content, of which there is one at least.
func (e Entry) publics(content []byte) ([]crypto.PublicKey, error) {
	var all []crypto.PublicKey
	if e.Kind == PublicKeys {
		blocks, err := trust.Blocks(content)
		for _, b := range blocks {
			var key crypto.PublicKey
			if err == nil {
				key, err = issue.ParsePublicKeyBlock(b)
			}
			all = append(all, key)
		}
		if err == nil && len(all) == 0 {
			err = errors.New("holds no public key")
		}
		return all, err
	}
	certificates, err := trust.ParseCertificates(content)
	if err != nil {
		return nil, err
	}
	for _, c := range certificates {
		all = append(all, c.PublicKey)
	}
	if first := certificates[0]; e.Kind == Authority && !(first.BasicConstraintsValid && first.IsCA) {
		return nil, fmt.Errorf("certificate %s is no authority", first.Subject)
	}
	return all, nil
}

// Same tells whether a file holds already what an entry does, be it in other words:
// with text around the certificates, or the key in another encoding.
func (e Entry) Same(have, want []byte) bool {
	if e.Kind == PrivateKey {
		a, err := issue.ParsePrivateKey(have)
		b, err2 := issue.ParsePrivateKey(want)
		return subtle.ConstantTimeCompare(have, want) == 1 || err == nil && err2 == nil && trust.SameKey(a.Public(), b.Public())
	}
	if bytes.Equal(have, want) {
		return true
	}
	if e.Kind == PublicKeys {
		a, err := e.publics(have)
		b, err2 := e.publics(want)
		return err == nil && err2 == nil && slices.EqualFunc(a, b, trust.SameKey)
	}
	a, err := trust.ParseCertificates(have)
	b, err2 := trust.ParseCertificates(want)
	return err == nil && err2 == nil && slices.EqualFunc(a, b, (*x509.Certificate).Equal)
}

// OfCluster refuses an authority that is not one of those which the cluster shows to
// nodes that join: a Secret of before a rotation, or of another cluster.
func OfCluster(contents map[string][]byte, anchors []*x509.Certificate) error {
	own, err := trust.ParseCertificates(contents["ca.crt"])
	if err != nil {
		return fmt.Errorf("ca.crt: %w", err)
	}
	for _, a := range anchors {
		if trust.SameKey(a.PublicKey, own[0].PublicKey) || trust.SignedBy(own[0], a) {
			return nil
		}
	}
	return fmt.Errorf("ca.crt: %s is none of the authorities that the cluster shows in cluster-info: the Secret is of another cluster, or of before a rotation", own[0].Subject)
}
