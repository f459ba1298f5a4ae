package approve

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
)

// Lookup tells the addresses of a node, and whether it is a node of the lab. It
// may be called from several goroutines.
type Lookup func(name string) ([]netip.Addr, bool)

const (
	userPrefix = "system:node:"
	nodesGroup = "system:nodes"
	// requestLimit bounds what is parsed, in bytes. A kubelet's request has some
	// five hundred.
	requestLimit = 16 << 10
	rsaMinBits   = 2048
)

var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// Judge tells whether a request may be approved: nil, or what speaks against
// it. It demands more than the signer does (k/k
// pkg/apis/certificates/helpers.go, ValidateKubeletServingCSR), which checks
// neither that the requester is the node that is named nor that the names are
// the node's.
func Judge(csr *certificatesv1.CertificateSigningRequest, lookup Lookup) error {
	spec := &csr.Spec
	if spec.SignerName != certificatesv1.KubeletServingSignerName {
		return fmt.Errorf("spec.signerName: is not %s", certificatesv1.KubeletServingSignerName)
	}
	name, ok := strings.CutPrefix(spec.Username, userPrefix)
	if !ok {
		return fmt.Errorf("spec.username: %q is no node", spec.Username)
	}
	addresses, ok := lookup(name)
	if !ok {
		return fmt.Errorf("spec.username: %q is no node of the lab", spec.Username)
	}
	if !slices.Contains(spec.Groups, nodesGroup) {
		return fmt.Errorf("spec.groups: without %s", nodesGroup)
	}
	request, err := parse(spec.Request)
	if err != nil {
		return fmt.Errorf("spec.request: %w", err)
	}
	if err := judgeUsages(spec.Usages, request); err != nil {
		return fmt.Errorf("spec.usages: %w", err)
	}
	if err := judgeSubject(request, spec.Username); err != nil {
		return fmt.Errorf("spec.request: subject: %w", err)
	}
	if err := judgeNames(request, name, addresses); err != nil {
		return fmt.Errorf("spec.request: %w", err)
	}
	return nil
}

// parse reads a request that is one PEM block with nothing before or after it:
// the signer would ignore the rest, and so might whoever looks at it.
func parse(data []byte) (*x509.CertificateRequest, error) {
	if len(data) > requestLimit {
		return nil, fmt.Errorf("%d bytes are more than %d", len(data), requestLimit)
	}
	if !bytes.HasPrefix(data, []byte("-----BEGIN CERTIFICATE REQUEST-----")) {
		return nil, errors.New("does not begin with a PEM block CERTIFICATE REQUEST")
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(block.Headers) > 0 {
		return nil, errors.New("is no PEM block CERTIFICATE REQUEST without headers")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("has something after its PEM block")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	return request, judgeKey(request)
}

// judgeKey checks the key and that the requester has it.
func judgeKey(request *x509.CertificateRequest) error {
	switch key := request.PublicKey.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < rsaMinBits || key.E < 65537 {
			return fmt.Errorf("an RSA key of %d bits with exponent %d is weak", key.N.BitLen(), key.E)
		}
	case *ecdsa.PublicKey:
		if key.Curve.Params().BitSize < 256 {
			return fmt.Errorf("a key on %s is weak", key.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("a key of type %T is not one that kubelets have", key)
	}
	return request.CheckSignature()
}

// judgeUsages allows what upstream allows, key encipherment for RSA keys alone.
func judgeUsages(usages []certificatesv1.KeyUsage, request *x509.CertificateRequest) error {
	want := []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth}
	got := slices.Compact(slices.Sorted(slices.Values(usages)))
	if _, ok := request.PublicKey.(*rsa.PublicKey); ok {
		got = slices.DeleteFunc(got, func(u certificatesv1.KeyUsage) bool { return u == certificatesv1.UsageKeyEncipherment })
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("%q are not those of a server", usages)
	}
	return nil
}

// judgeSubject compares the encoded subject with the one that kubelets write.
// What reads a name in another way, the last of two common names, say, or a
// string of another type, is not even asked.
func judgeSubject(request *x509.CertificateRequest, username string) error {
	want, err := asn1.Marshal(pkix.Name{Organization: []string{nodesGroup}, CommonName: username}.ToRDNSequence())
	if err != nil {
		return err
	}
	if !bytes.Equal(request.RawSubject, want) {
		return fmt.Errorf("%q is not exactly O=%s, CN=%s", request.Subject, nodesGroup, username)
	}
	return nil
}

// judgeNames allows one extension, with names of the node.
func judgeNames(request *x509.CertificateRequest, name string, addresses []netip.Addr) error {
	if len(request.Extensions) != 1 || !request.Extensions[0].Id.Equal(oidSubjectAltName) {
		return errors.New("extensions: a subject alternative name, and no other, is wanted")
	}
	var names []asn1.RawValue
	rest, err := asn1.Unmarshal(request.Extensions[0].Value, &names)
	if err != nil || len(rest) > 0 {
		return errors.New("subject alternative name: is no list of names")
	}
	if len(names) == 0 {
		return errors.New("subject alternative name: is empty")
	}
	for _, n := range names {
		if err := judgeGeneralName(n, name, addresses); err != nil {
			return fmt.Errorf("subject alternative name: %w", err)
		}
	}
	return nil
}

// judgeGeneralName looks at a name as it is encoded (RFC 5280 section 4.2.1.6):
// Go's parser drops the kinds that it does not know.
func judgeGeneralName(n asn1.RawValue, name string, addresses []netip.Addr) error {
	switch {
	case n.Class != asn1.ClassContextSpecific || n.IsCompound:
		return fmt.Errorf("a name of kind %d is neither a DNS name nor an address", n.Tag)
	case n.Tag == 2: // dNSName
		if string(n.Bytes) != name {
			return fmt.Errorf("DNS name %q is not the node's, %q", n.Bytes, name)
		}
	case n.Tag == 7: // iPAddress
		// An IPv4 address in the form of IPv6 is not equal to its short form.
		address, ok := netip.AddrFromSlice(n.Bytes)
		if !ok || !slices.Contains(addresses, address) {
			return fmt.Errorf("address %x is none of the node's, %v", n.Bytes, addresses)
		}
	default:
		return fmt.Errorf("a name of kind %d is neither a DNS name nor an address", n.Tag)
	}
	return nil
}
