package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
)

// MaxPEM is the size in bytes up to which [Blocks] reads. Kubernetes itself
// stores no larger object; a larger file is not a credential of a cluster.
const MaxPEM = 1 << 20

// MaxBlocks bounds the number of blocks in one text.
const MaxBlocks = 1000

// PEM types that Kubernetes' files hold.
const (
	CertificateType  = "CERTIFICATE"
	RequestType      = "CERTIFICATE REQUEST"
	PublicKeyType    = "PUBLIC KEY"
	RSAPublicKeyType = "RSA PUBLIC KEY"
	PrivateKeyType   = "PRIVATE KEY"
	RSAKeyType       = "RSA PRIVATE KEY"
	ECKeyType        = "EC PRIVATE KEY"
	ECParametersType = "EC PARAMETERS"
)

// Block is one PEM block (RFC 7468).
type Block struct {
	Type string
	DER  []byte
	Line int // line of its BEGIN, counted from 1
	// Encrypted tells of a header that marks an encrypted key (RFC 1421).
	Encrypted bool
	// Headers tells that it has headers (RFC 1421), with which Go passes over a
	// CERTIFICATE block in a bundle.
	Headers bool
}

// Blocks splits a text into its PEM blocks. Text outside the blocks and CRLF
// are fine, as they are for Kubernetes. A block that has no end or does not
// decode is an error that names its line: encoding/pem would skip it silently,
// and take quadratic time for many (golang/go#50116).
func Blocks(data []byte) ([]Block, error) {
	if len(data) > MaxPEM {
		return nil, fmt.Errorf("larger than %d bytes: not a PEM file of a cluster", MaxPEM)
	}
	var blocks []Block
	start, startLine, label := -1, 0, ""
	for offset, line := 0, 1; offset < len(data); line++ {
		end := len(data)
		if i := bytes.IndexByte(data[offset:], '\n'); i >= 0 {
			end = offset + i + 1
		}
		text := strings.TrimRight(string(data[offset:end]), " \t\r\n")
		switch {
		case start < 0 && isBoundary(text, "-----BEGIN "):
			start, startLine, label = offset, line, boundaryLabel(text, "-----BEGIN ")
		case start >= 0 && isBoundary(text, "-----BEGIN "):
			return nil, fmt.Errorf("line %d: %s block has no end", startLine, label)
		case start >= 0 && isBoundary(text, "-----END "):
			b, err := decodeBlock(data[start:end], startLine, label)
			if err != nil {
				return nil, err
			}
			if blocks = append(blocks, b); len(blocks) > MaxBlocks {
				return nil, fmt.Errorf("line %d: more than %d PEM blocks", startLine, MaxBlocks)
			}
			start = -1
		}
		offset = end
	}
	if start >= 0 {
		return nil, fmt.Errorf("line %d: %s block has no end", startLine, label)
	}
	return blocks, nil
}

func isBoundary(line, prefix string) bool {
	return len(line) <= 100 && strings.HasPrefix(line, prefix) && strings.HasSuffix(line, "-----")
}

func boundaryLabel(line, prefix string) string {
	return strings.TrimSuffix(strings.TrimPrefix(line, prefix), "-----")
}

func decodeBlock(data []byte, line int, label string) (Block, error) {
	p, rest := pem.Decode(data)
	if p == nil || len(bytes.TrimSpace(rest)) > 0 {
		return Block{}, fmt.Errorf("line %d: %s block does not decode", line, label)
	}
	_, dek := p.Headers["DEK-Info"]
	return Block{Type: p.Type, DER: p.Bytes, Line: line, Encrypted: dek || p.Type == "ENCRYPTED PRIVATE KEY", Headers: len(p.Headers) > 0}, nil
}

// ParseCertificates parses the certificates of a PEM text, in order. Blocks of
// other types are an error that names the line and the type.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	blocks, err := Blocks(data)
	if err != nil {
		return nil, err
	}
	var certificates []*x509.Certificate
	for _, b := range blocks {
		if b.Type != CertificateType {
			return nil, fmt.Errorf("line %d: %s block where a CERTIFICATE is expected", b.Line, b.Type)
		}
		c, err := x509.ParseCertificate(b.DER)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", b.Line, err)
		}
		certificates = append(certificates, c)
	}
	if len(certificates) == 0 {
		return nil, fmt.Errorf("no PEM block of type CERTIFICATE")
	}
	return certificates, nil
}

// EncodeCertificates returns the PEM form of certificates, in order.
func EncodeCertificates(certificates ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certificates {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: CertificateType, Bytes: c.Raw}))
	}
	return b.Bytes()
}
