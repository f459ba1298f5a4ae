package inspect

import (
	"crypto"
	"crypto/dsa" //nolint:staticcheck // named where a file holds one
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// Certificate is what there is to know of a certificate without any secret.
type Certificate struct {
	Subject   string    `json:"subject"` // RFC 2253
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"` // hexadecimal, as openssl prints it
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	Names
	KeyUsages []string `json:"keyUsages,omitempty"` // as RFC 5280 section 4.2.1.3 spells them
	Usages    []string `json:"usages,omitempty"`    // extended, or their object identifiers
	// IsAuthority tells of basicConstraints CA:TRUE; PathLength bounds the
	// authorities below, nil for no bound.
	IsAuthority bool `json:"isAuthority,omitempty"`
	PathLength  *int `json:"pathLength,omitempty"`
	// NameConstraints are those of an authority: "permitted DNS:example.test".
	NameConstraints    []string `json:"nameConstraints,omitempty"`
	SelfSigned         bool     `json:"selfSigned,omitempty"`
	SubjectKeyID       string   `json:"subjectKeyID,omitempty"`
	AuthorityKeyID     string   `json:"authorityKeyID,omitempty"`
	SignatureAlgorithm string   `json:"signatureAlgorithm"`
	KeyAlgorithm       string   `json:"keyAlgorithm"` // such as RSA-2048
	SHA256             string   `json:"sha256"`       // of the certificate, hexadecimal
	// PublicKeySHA256 is the hash of the SubjectPublicKeyInfo, by which keys
	// are pinned.
	PublicKeySHA256 string `json:"publicKeySHA256"`
	// DiscoveryHash is, of an authority, the value of kubeadm join's
	// --discovery-token-ca-cert-hash.
	DiscoveryHash string `json:"discoveryHash,omitempty"`
}

// Names are subject alternative names.
type Names struct {
	DNSNames       []string `json:"dnsNames,omitempty"`
	IPAddresses    []string `json:"ipAddresses,omitempty"`
	URIs           []string `json:"uris,omitempty"`
	EmailAddresses []string `json:"emailAddresses,omitempty"`
}

// All returns the names, each with its kind.
func (n Names) All() []string {
	var all []string
	for _, list := range []struct {
		kind  string
		names []string
	}{{"DNS", n.DNSNames}, {"IP", n.IPAddresses}, {"URI", n.URIs}, {"email", n.EmailAddresses}} {
		for _, name := range list.names {
			all = append(all, list.kind+":"+name)
		}
	}
	return all
}

// NewCertificate describes a certificate.
func NewCertificate(c *x509.Certificate) *Certificate {
	d := &Certificate{
		Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: trust.SerialText(c.SerialNumber),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
		Names:     Names{DNSNames: c.DNSNames, IPAddresses: addresses(c.IPAddresses), URIs: uris(c.URIs), EmailAddresses: c.EmailAddresses},
		KeyUsages: keyUsages(c.KeyUsage), Usages: usages(c),
		IsAuthority:    c.BasicConstraintsValid && c.IsCA,
		SelfSigned:     trust.SignedBy(c, c),
		SubjectKeyID:   strings.ToUpper(hex.EncodeToString(c.SubjectKeyId)),
		AuthorityKeyID: strings.ToUpper(hex.EncodeToString(c.AuthorityKeyId)),
		KeyAlgorithm:   keyAlgorithm(c.PublicKey), SignatureAlgorithm: c.SignatureAlgorithm.String(),
		SHA256: hash(c.Raw), PublicKeySHA256: hash(c.RawSubjectPublicKeyInfo),
	}
	if d.IsAuthority {
		d.DiscoveryHash = "sha256:" + d.PublicKeySHA256
		d.NameConstraints = append(
			constraints("permitted", c.PermittedDNSDomains, c.PermittedIPRanges, c.PermittedURIDomains, c.PermittedEmailAddresses),
			constraints("excluded", c.ExcludedDNSDomains, c.ExcludedIPRanges, c.ExcludedURIDomains, c.ExcludedEmailAddresses)...)
		if c.MaxPathLen > 0 || c.MaxPathLenZero {
			d.PathLength = &c.MaxPathLen
		}
	}
	return d
}

func constraints(which string, dns []string, ips []*net.IPNet, uris, emails []string) []string {
	n := Names{DNSNames: dns, URIs: uris, EmailAddresses: emails}
	for _, ip := range ips {
		n.IPAddresses = append(n.IPAddresses, ip.String())
	}
	var all []string
	for _, name := range n.All() {
		all = append(all, which+" "+name)
	}
	return all
}

func hash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func addresses(ips []net.IP) []string {
	var all []string
	for _, ip := range ips {
		if a, ok := netip.AddrFromSlice(ip); ok {
			all = append(all, a.Unmap().String())
		}
	}
	return all
}

func uris(list []*url.URL) []string {
	var all []string
	for _, u := range list {
		all = append(all, u.String())
	}
	return all
}

var keyUsageNames = []string{"digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment", "keyAgreement", "keyCertSign", "cRLSign", "encipherOnly", "decipherOnly"}

func keyUsages(u x509.KeyUsage) []string {
	var all []string
	for i, name := range keyUsageNames {
		if u&(1<<uint(i)) != 0 {
			all = append(all, name)
		}
	}
	return all
}

var extKeyUsageNames = map[x509.ExtKeyUsage]string{
	x509.ExtKeyUsageCodeSigning:     "codeSigning",
	x509.ExtKeyUsageEmailProtection: "emailProtection",
	x509.ExtKeyUsageTimeStamping:    "timeStamping",
	x509.ExtKeyUsageOCSPSigning:     "OCSPSigning",
}

func usages(c *x509.Certificate) []string {
	var all []string
	for _, u := range c.ExtKeyUsage {
		name, ok := extKeyUsageNames[u]
		if !ok {
			name = issue.UsageName(u)
		}
		all = append(all, name)
	}
	for _, oid := range c.UnknownExtKeyUsage {
		all = append(all, oid.String())
	}
	return all
}

// keyAlgorithm names the kind and size of a public key.
func keyAlgorithm(public crypto.PublicKey) string {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA-%d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA-" + strings.ReplaceAll(k.Curve.Params().Name, "-", "")
	case ed25519.PublicKey:
		return string(issue.Ed25519)
	case *ecdh.PublicKey:
		return fmt.Sprint(k.Curve())
	case *dsa.PublicKey:
		return "DSA"
	}
	return "unknown"
}
