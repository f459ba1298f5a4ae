package layout

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// Keyring holds the private keys that were read, by the place of the file or
// kubeconfig field. It is kept apart from [trust.Node] so that nothing that
// prints a node can print a key.
type Keyring map[trust.Place]crypto.Signer

// accepts tells which kinds of PEM blocks a role may hold and which it needs.
type accepts struct {
	certificates, privateKeys, publicKeys bool
	need                                  string
}

// onlyAnchors tells whether the role is a set of certificates and nothing else.
func (a accepts) onlyAnchors() bool { return a.certificates && !a.privateKeys }

var roleAccepts = map[trust.Role]accepts{
	trust.RoleCertificate: {certificates: true, privateKeys: true, need: "certificate"},
	trust.RoleKey:         {certificates: true, privateKeys: true, need: "private key"},
	trust.RoleCombined:    {certificates: true, privateKeys: true, need: "certificate and private key"},
	trust.RoleBundle:      {certificates: true, need: "certificate"},
	trust.RoleAuthority:   {certificates: true, need: "certificate"},
	trust.RoleVerifyKeys:  {certificates: true, privateKeys: true, publicKeys: true, need: "public key"},
}

// ParseMaterial parses a PEM text as what its role needs:
//
//   - certificate: at least one certificate; a key beside it is fine, as it is
//     for crypto/tls.X509KeyPair
//   - key: a private key, the first counts (PKCS#1, PKCS#8, SEC1 with or without EC
//     PARAMETERS); certificates beside it are fine
//   - combined: both
//   - bundle, authority: certificates only; none at all in an empty file, which
//     is a fault of its own; those in blocks with headers are kept apart
//   - verify-keys: public keys, certificates or private keys, at least one, as
//     k8s.io/client-go/util/keyutil.ParsePublicKeysPEM reads them
//
// What does not fit is a Malformed material whose Reason names the line. The
// private key, if there is one, is returned apart and never part of it.
func ParseMaterial(place trust.Place, role trust.Role, data []byte) (*trust.Material, crypto.Signer) {
	m := &trust.Material{Place: place, Role: role, State: trust.Present}
	key, err := fill(m, data)
	if err != nil {
		if role == trust.RoleCombined && len(m.Certificates) > 0 {
			role = trust.RoleKey // it is the key that is wrong
		}
		return &trust.Material{Place: place, Role: role, State: trust.Malformed, Reason: err.Error()}, nil
	}
	return m, key
}

// byteOrderMark is U+FEFF in UTF-8, as editors of Windows put it first.
var byteOrderMark = []byte("\xef\xbb\xbf")

// onlyComments tells whether a text holds empty lines and comments alone.
func onlyComments(data []byte) bool {
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return false
		}
	}
	return true
}

func fill(m *trust.Material, data []byte) (crypto.Signer, error) {
	accept, ok := roleAccepts[m.Role]
	if !ok {
		return nil, fmt.Errorf("role %q holds no PEM", m.Role)
	}
	if bytes.HasPrefix(data, append(slices.Clone(byteOrderMark), "-----BEGIN "...)) {
		// encoding/pem wants BEGIN at the start of a line.
		return nil, errors.New("begins with a byte order mark, so that every component passes over its first block")
	}
	blocks, err := trust.Blocks(data)
	if err != nil {
		return nil, err
	}
	if len(blocks) == 0 && accept.onlyAnchors() && onlyComments(data) {
		return nil, nil // a bundle that trusts nobody: not malformed, but empty
	}
	if len(blocks) == 0 {
		return nil, fmt.Errorf("holds no PEM block: a %s is expected", accept.need)
	}
	var key crypto.Signer
	for _, b := range blocks {
		if key != nil && issue.IsPrivateKey(b) && m.Role != trust.RoleVerifyKeys {
			continue // crypto/tls takes the first and never looks at another
		}
		k, err := addBlock(m, accept, b)
		if err != nil {
			return nil, err
		}
		if k != nil && key == nil {
			key = k
		}
	}
	return key, finish(m, accept, key)
}

// addBlock adds one block to the material and returns its private key, if it is one.
func addBlock(m *trust.Material, accept accepts, b trust.Block) (crypto.Signer, error) {
	isKey := issue.IsPrivateKey(b)
	if !b.Encrypted {
		if err := wholeDER(b); err != nil {
			return nil, err
		}
	}
	switch {
	case b.Type == trust.CertificateType && accept.certificates:
		c, err := x509.ParseCertificate(b.DER)
		if err != nil {
			return nil, fmt.Errorf("line %d: the certificate does not parse: %w", b.Line, err)
		}
		if b.Headers && accept.onlyAnchors() {
			m.Headed = append(m.Headed, c)
			return nil, nil
		}
		m.Certificates = append(m.Certificates, c)
		if m.Role == trust.RoleVerifyKeys {
			m.Keys = append(m.Keys, c.PublicKey)
		}
	case isKey && accept.privateKeys:
		key, err := issue.ParsePrivateKeyBlock(b)
		if err != nil {
			return nil, err
		}
		m.Keys = append(m.Keys, key.Public())
		m.HasPrivateKey = true
		return key, nil
	case b.Type == trust.ECParametersType && accept.privateKeys:
	case (b.Type == trust.PublicKeyType || b.Type == trust.RSAPublicKeyType) && accept.publicKeys:
		key, err := issue.ParsePublicKeyBlock(b)
		if err != nil {
			return nil, err
		}
		m.Keys = append(m.Keys, key)
	default:
		return nil, fmt.Errorf("line %d: %s block where a %s is expected", b.Line, b.Type, accept.need)
	}
	return nil, nil
}

// wholeDER refuses data after the DER value of a block, which the parsers of
// SEC1 and PKCS#8 in crypto/x509 pass over.
func wholeDER(b trust.Block) error {
	var value asn1.RawValue
	rest, err := asn1.Unmarshal(b.DER, &value)
	if err != nil {
		return fmt.Errorf("line %d: %s block holds no DER", b.Line, b.Type)
	}
	if len(rest) > 0 {
		return fmt.Errorf("line %d: %s block has %d bytes after its DER", b.Line, b.Type, len(rest))
	}
	return nil
}

func finish(m *trust.Material, accept accepts, key crypto.Signer) error {
	lacks := false
	switch m.Role {
	case trust.RoleKey:
		lacks = key == nil
	case trust.RoleCombined:
		lacks = key == nil || len(m.Certificates) == 0
	case trust.RoleVerifyKeys:
		lacks = len(m.Keys) == 0
	default:
		lacks = len(m.Certificates)+len(m.Headed) == 0
	}
	if lacks {
		return fmt.Errorf("holds PEM, but no %s", accept.need)
	}
	return nil
}
