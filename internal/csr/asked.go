package csr

import (
	"crypto/sha256"
	"crypto/x509"
	"net/netip"
)

// Asked is what the PEM of a request asks for, as far as a rule can see it.
type Asked struct {
	CommonName          string   // "" where there is none
	Organizations       []string // in the order of the request
	OrganizationalUnits []string
	DNSNames            []string // as they are written
	EmailAddresses      []string
	URIs                []string
	IPAddresses         []netip.Addr // IPv4 in IPv6 is unmapped
	Key                 Key
}

// Key is a public key.
type Key struct {
	Kind string // "RSA", "ECDSA" or "Ed25519"; "" for any other
	Bits int    // of the modulus or of the curve; 256 for Ed25519
	// Sum is the SHA-256 sum of the SubjectPublicKeyInfo in DER.
	Sum [32]byte
}

// Read returns what the PEM of a request asks for. It judges nothing but
// whether it can be read; the error says why it cannot. What [Asked] has no
// field for is left out: whoever decides uses [Decide].
func Read(pem []byte) (*Asked, error) {
	f, fault := read(pem)
	if fault != nil {
		return nil, fault
	}
	return f.asked, nil
}

// form is a request in its three forms: as it is written, as crypto/x509 reads
// it, and as rules see it.
type form struct {
	raw     *raw
	request *x509.CertificateRequest
	asked   *Asked
}

func read(pem []byte) (*form, *fault) {
	der, fault := decodePEM(pem)
	if fault != nil {
		return nil, fault
	}
	r, fault := walk(der)
	if fault != nil {
		return nil, fault
	}
	c, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, faulty(derMalformed, "the request does not parse: %s", quote(err.Error()))
	}
	return &form{raw: r, request: c, asked: r.asked(c.PublicKey)}, nil
}

func (r *raw) asked(public any) *Asked {
	a := &Asked{Key: describeKey(public)}
	a.Key.Sum = sha256.Sum256(r.key)
	for _, rdn := range r.subject {
		for _, t := range rdn {
			switch t.oid {
			case oidCommonName:
				a.CommonName = t.value
			case oidOrganization:
				a.Organizations = append(a.Organizations, t.value)
			case oidOrganizationalUnit:
				a.OrganizationalUnits = append(a.OrganizationalUnits, t.value)
			}
		}
	}
	for _, n := range r.names {
		switch n.kind {
		case dnsName:
			a.DNSNames = append(a.DNSNames, n.value)
		case emailName:
			a.EmailAddresses = append(a.EmailAddresses, n.value)
		case uriName:
			a.URIs = append(a.URIs, n.value)
		case ipName:
			ip, _ := netip.AddrFromSlice([]byte(n.value))
			a.IPAddresses = append(a.IPAddresses, ip.Unmap())
		}
	}
	return a
}
