package bundle

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// Text is a bundle as it is written: its anchors, and all between them. It does
// not change: [Text.Add] and the others return another.
type Text struct {
	data    []byte
	Anchors []Anchor
	// Others are blocks that no component takes for an anchor, in order.
	Others []Other
}

// Anchor is one certificate of a bundle.
type Anchor struct {
	*x509.Certificate
	Line       int // of its BEGIN, counted from 1
	start, end int // bytes of its block, with the line's end
}

// Other is a block of a bundle that is passed over.
type Other struct {
	Line int
	// Private tells that it is a private key.
	Private bool
	// Headers tells that it is a certificate with PEM headers.
	Headers bool
	// Why tells what it is, a phrase without anything secret.
	Why string
}

// Parse reads a bundle. It may be empty. Blocks that are no certificates, and
// certificates with headers, are passed over as components pass them over
// (k8s.io/client-go/util/cert.ParseCertsPEM, crypto/x509.CertPool), all but etcd: see
// [Text.ToEtcd]. What does not decode or parse is an error that names the line, for
// nobody knows what another reader makes of it.
func Parse(data []byte) (*Text, error) {
	blocks, err := trust.Blocks(data)
	if err != nil {
		return nil, err
	}
	t := &Text{data: bytes.Clone(data)}
	lines := lineStarts(data)
	for _, b := range blocks {
		start := lines[b.Line-1]
		end := endOfBlock(data, lines, b.Line)
		if b.Type != trust.CertificateType {
			t.Others = append(t.Others, Other{Line: b.Line, Private: strings.HasSuffix(b.Type, "PRIVATE KEY"), Why: "a block of type " + b.Type})
			continue
		}
		if p, _ := pem.Decode(data[start:end]); p != nil && len(p.Headers) > 0 {
			t.Others = append(t.Others, Other{Line: b.Line, Headers: true, Why: "a certificate with PEM headers, which components pass over"})
			continue
		}
		c, err := x509.ParseCertificate(b.DER)
		if err != nil {
			return nil, fmt.Errorf("line %d: the certificate does not parse: %w", b.Line, err)
		}
		t.Anchors = append(t.Anchors, Anchor{c, b.Line, start, end})
	}
	return t, nil
}

// ToEtcd says what etcd, and its clients, make of blocks that others pass over: they
// read each as a certificate (go.etcd.io/etcd/client/pkg/v3/tlsutil.NewCertPool).
// Empty where there is none.
func (t *Text) ToEtcd() string {
	for _, o := range t.Others {
		if !o.Headers {
			return fmt.Sprintf("line %d holds %s, which etcd and its clients take for a certificate: they do not start with it", o.Line, o.Why)
		}
	}
	for _, o := range t.Others {
		return fmt.Sprintf("line %d holds a certificate with PEM headers, which etcd and its clients trust: take it out by hand if they shall not", o.Line)
	}
	return ""
}

// lineStarts are the offsets at which lines begin.
func lineStarts(data []byte) []int {
	starts := []int{0}
	for i, c := range data {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// endOfBlock is the offset after the END line of the block that begins in a line.
func endOfBlock(data []byte, starts []int, line int) int {
	for i := line; i < len(starts); i++ {
		end := len(data)
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		if bytes.HasPrefix(data[starts[i]:end], []byte("-----END ")) {
			return end
		}
	}
	return len(data)
}

// Bytes returns the text.
func (t *Text) Bytes() []byte { return bytes.Clone(t.data) }

// Certificates returns the anchors' certificates, in order.
func (t *Text) Certificates() []*x509.Certificate {
	all := make([]*x509.Certificate, 0, len(t.Anchors))
	for _, a := range t.Anchors {
		all = append(all, a.Certificate)
	}
	return all
}

// Holds tells whether a certificate is an anchor of the bundle: byte for byte.
func (t *Text) Holds(c *x509.Certificate) bool {
	return slices.ContainsFunc(t.Anchors, func(a Anchor) bool { return a.Equal(c) })
}

// Add returns the text with the certificates at its end that it does not hold yet,
// each once, and these. What is there stays as it is, to the byte. It is an error
// when the text grows larger than components' files are.
func (t *Text) Add(certificates ...*x509.Certificate) (*Text, []*x509.Certificate, error) {
	var added []*x509.Certificate
	for _, c := range certificates {
		if !t.Holds(c) && !slices.ContainsFunc(added, c.Equal) {
			added = append(added, c)
		}
	}
	if len(added) == 0 {
		return t, nil, nil
	}
	ending := []byte("\n")
	if bytes.Contains(t.data, []byte("\r\n")) {
		ending = []byte("\r\n")
	}
	data := bytes.Clone(t.data)
	if len(data) > 0 && data[len(data)-1] != '\n' {
		data = append(data, ending...)
	}
	data = append(data, bytes.ReplaceAll(trust.EncodeCertificates(added...), []byte("\n"), ending)...)
	grown, err := Parse(data)
	if err != nil {
		return nil, nil, fmt.Errorf("with the new anchors: %w", err)
	}
	return grown, added, nil
}

// without returns the text without some of its anchors; what stands between them
// stays.
func (t *Text) without(gone func(i int) bool) *Text {
	var data []byte
	at := 0
	for i, a := range t.Anchors {
		if gone(i) {
			data = append(data, t.data[at:a.start]...)
			at = a.end
		}
	}
	return mustParse(append(data, t.data[at:]...))
}

// Remove returns the text without all anchors that are one of the certificates,
// and how many went.
func (t *Text) Remove(certificates ...*x509.Certificate) (*Text, int) {
	gone := func(i int) bool { return slices.ContainsFunc(certificates, t.Anchors[i].Equal) }
	n := 0
	for i := range t.Anchors {
		if gone(i) {
			n++
		}
	}
	if n == 0 {
		return t, 0
	}
	return t.without(gone), n
}

// mustParse parses what is left of a parsed text from which whole blocks were taken.
// That cannot fail, for blocks begin and end at lines (FuzzText takes out each): where it
// does, nothing may be written.
func mustParse(data []byte) *Text {
	t, err := Parse(data)
	if err != nil {
		panic("bundle: an edited text does not parse: " + err.Error())
	}
	return t
}

// Fingerprint returns the SHA-256 of a certificate as 64 hexadecimal digits.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// minPrefix is how many digits name an anchor at the least.
const minPrefix = 8

// IsFingerprint tells whether a text has the form of a fingerprint or of its
// beginning: at least 8 hexadecimal digits, with or without colons, in any case.
func IsFingerprint(text string) bool {
	digits := normal(text)
	return len(digits) >= minPrefix && len(digits) <= 2*sha256.Size && strings.Trim(digits, "0123456789abcdef") == ""
}

func normal(text string) string { return strings.ToLower(strings.ReplaceAll(text, ":", "")) }

// Find returns the certificate of some whose fingerprint begins with a text: nil
// where there is none, and an error where several different ones are.
func Find(certificates []*x509.Certificate, fingerprint string) (*x509.Certificate, error) {
	if !IsFingerprint(fingerprint) {
		return nil, fmt.Errorf("%q is no SHA-256 fingerprint: give 8 to 64 hexadecimal digits", fingerprint)
	}
	var found *x509.Certificate
	for _, c := range certificates {
		if !strings.HasPrefix(Fingerprint(c), normal(fingerprint)) {
			continue
		}
		if found != nil && !found.Equal(c) {
			return nil, fmt.Errorf("several anchors have a fingerprint that begins with %s: give more digits", fingerprint)
		}
		found = c
	}
	return found, nil
}
