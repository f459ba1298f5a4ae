package mtls

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/reload"
	"github.com/kubepki/kubepki/internal/trust"
)

// Files names what a [FileSource] is made of, by paths as [os.Open] takes them.
type Files struct {
	// Certificate holds what is shown, in PEM: the leaf, then the authorities
	// between it and the anchor.
	Certificate string
	// Key holds its private key, in PEM, not encrypted: PKCS #1, PKCS #8 or SEC 1.
	// It may be the same file.
	Key string
	// Bundle holds the authorities of the other side, in PEM; empty: nobody is
	// trusted.
	Bundle string
	// Usage is what the certificate must be good for. One whose extended key usages
	// name others only (RFC 5280 section 4.2.1.12) is not taken: a client would
	// refuse it. The zero value is [x509.ExtKeyUsageAny], and takes each.
	Usage x509.ExtKeyUsage
}

// Reload tells of files that were read anew.
type Reload struct {
	// Files are the paths: of certificate and key, or of the bundle.
	Files []string
	// Err is why what was before stays; nil: the files were taken up.
	Err error
}

// FileSource is a [Source] that reads its files again when they change. It may
// be used by several goroutines.
type FileSource struct {
	pair   *reload.Files[*tls.Certificate]
	bundle *reload.Files[*Bundle] // nil: none
	last   atomic.Pointer[Snapshot]
}

// OpenFiles reads the files. The error names the file.
//
// They are read again as handshakes ask for them, at most once a second; what
// has changed is taken up within three seconds of use. The pair and the bundle
// are taken up apart, so that a fault in one holds up no change of the other.
// What is half written or missing, a key that is not that of the certificate, a
// certificate that has expired or is for something else, and a bundle without a
// certificate are not taken up: what was before stays. An authority is taken out
// of use by taking it out of the bundle, not by emptying or removing the file.
//
// told, which may be nil, hears of each change that is taken up, a mended file
// included, and of each that is not, once as long as it is the same. It is called
// during a handshake, for the pair and for the bundle possibly at the same time,
// and should return soon.
func OpenFiles(f Files, told func(Reload)) (*FileSource, error) {
	if told == nil {
		told = func(Reload) {}
	}
	s := &FileSource{}
	var err error
	if s.pair, err = openPair(f, told); err != nil {
		return nil, err
	}
	if f.Bundle != "" {
		if s.bundle, err = openBundle(f.Bundle, told); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Snapshot returns what the files hold now, and never an error.
func (s *FileSource) Snapshot() (*Snapshot, error) {
	for {
		// Before the files: whoever has read older ones does not replace what is newer.
		last := s.last.Load()
		now := Snapshot{Certificate: s.pair.Get()}
		if s.bundle != nil {
			now.Bundle = s.bundle.Get()
		}
		if last != nil && *last == now {
			return last, nil
		}
		if s.last.CompareAndSwap(last, &now) {
			return &now, nil
		}
	}
}

func openPair(f Files, told func(Reload)) (*reload.Files[*tls.Certificate], error) {
	files := []string{f.Certificate, f.Key}
	build := func(contents [][]byte) (*tls.Certificate, error) {
		private, err := issue.ParsePrivateKey(contents[1])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Key, err)
		}
		pair, err := parseChain(contents[0])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Certificate, err)
		}
		pair.PrivateKey = private
		switch leaf := pair.Leaf; {
		case checkPair(pair) != nil:
			return nil, fmt.Errorf("%s: the first certificate, %q, does not belong to the key in %s", f.Certificate, leaf.Subject, f.Key)
		case time.Now().After(leaf.NotAfter):
			return nil, fmt.Errorf("%s: the certificate %q expired at %s", f.Certificate, leaf.Subject, leaf.NotAfter.UTC().Format(time.RFC3339))
		case !goodFor(leaf, f.Usage):
			return nil, fmt.Errorf("%s: the certificate %q is for something else: its extended key usages lack %s", f.Certificate, leaf.Subject, f.Usage)
		}
		return pair, nil
	}
	return reload.New(files, build, func(_ *tls.Certificate, err error) { told(Reload{files, err}) })
}

// checkPair tells what is wrong with a certificate that is to be shown.
func checkPair(c *tls.Certificate) error {
	key, ok := c.PrivateKey.(crypto.Signer)
	switch {
	case c.Leaf == nil || len(c.Certificate) == 0 || !bytes.Equal(c.Leaf.Raw, c.Certificate[0]):
		return errors.New("the first certificate and Leaf are not the same")
	case !ok:
		return errors.New("the private key cannot sign")
	case !trust.SameKey(c.Leaf.PublicKey, key.Public()):
		return fmt.Errorf("the first certificate, %q, does not belong to the key", c.Leaf.Subject)
	}
	return nil
}

// goodFor tells whether a certificate may be shown for something: one that names
// no usage may for all.
func goodFor(c *x509.Certificate, usage x509.ExtKeyUsage) bool {
	named := func(u x509.ExtKeyUsage) bool { return slices.Contains(c.ExtKeyUsage, u) }
	return usage == x509.ExtKeyUsageAny || len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 || named(usage) || named(x509.ExtKeyUsageAny)
}

func openBundle(path string, told func(Reload)) (*reload.Files[*Bundle], error) {
	build := func(contents [][]byte) (*Bundle, error) {
		b, err := ParseBundle(contents[0])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return b, nil
	}
	return reload.New([]string{path}, build, func(_ *Bundle, err error) { told(Reload{[]string{path}, err}) })
}

// parseChain reads the certificates of a file in which their key may stand too.
func parseChain(data []byte) (*tls.Certificate, error) {
	blocks, err := trust.Blocks(data)
	if err != nil {
		return nil, err
	}
	var pair tls.Certificate
	for _, b := range blocks {
		switch {
		case issue.IsPrivateKey(b) || b.Type == trust.ECParametersType:
			continue
		case b.Type != trust.CertificateType:
			return nil, fmt.Errorf("line %d: %s block where a CERTIFICATE is expected", b.Line, b.Type)
		}
		c, err := x509.ParseCertificate(b.DER)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", b.Line, err)
		}
		if pair.Leaf == nil {
			pair.Leaf = c
		}
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	if pair.Leaf == nil {
		return nil, errors.New("no PEM block of type CERTIFICATE")
	}
	return &pair, nil
}
