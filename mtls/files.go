package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/kubepki/kubepki/internal/reload"
)

// Files names what a [FileSource] is made of, by paths as [os.Open] takes them:
// certificate and key, a bundle, or all three.
type Files struct {
	// Certificate holds what is shown, in PEM: the leaf, then the authorities
	// between it and the anchor; empty, with Key: nothing is shown, as by a client
	// that only verifies its server.
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
	pair   *reload.Files[*tls.Certificate] // nil: none
	bundle *reload.Files[*Bundle]          // nil: none
	last   latest

	pairTally, bundleTally tally
}

// OpenFiles reads the files. The error names the file.
//
// They are read again as handshakes ask for them, at most once a second; what
// has changed is taken up within three seconds of use. The pair and the bundle
// are taken up apart, so that a fault in one holds up no change of the other.
// What is half written or missing, a key that is not that of the certificate, a
// certificate that has expired or is for something else, and a bundle without a
// certificate are not taken up: what was before stays. So it does, as long as it is
// good, instead of a certificate that is good only later, until that is. An authority is taken out
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
	switch {
	case f == Files{Usage: f.Usage}:
		return nil, errors.New("mtls.Files: neither Certificate and Key nor Bundle is set")
	case (f.Certificate == "") != (f.Key == ""):
		return nil, errors.New("mtls.Files: of Certificate and Key only one is set: where both are in one file, name it twice")
	}
	s := &FileSource{}
	var err error
	if f.Certificate != "" {
		if s.pair, err = openPair(f, s.pairTally.before(told)); err != nil {
			return nil, err
		}
	}
	if f.Bundle != "" {
		if s.bundle, err = openBundle(f.Bundle, s.bundleTally.before(told)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Snapshot returns what the files hold now, and never an error.
func (s *FileSource) Snapshot() (*Snapshot, error) {
	return s.last.of(func() (now Snapshot, _ error) {
		if s.pair != nil {
			now.Certificate = s.pair.Get()
		}
		if s.bundle != nil {
			now.Bundle = s.bundle.Get()
		}
		return now, nil
	})
}

// Status tells how the files fare. It looks at them first, as a handshake does.
func (s *FileSource) Status() Status {
	if s.pair == nil {
		return s.bundleStatus()
	}
	s.pair.Get()
	all := s.pairTally.status(s.pair.AsOf())
	if s.bundle != nil {
		all = all.with(s.bundleStatus())
	}
	return all
}

func (s *FileSource) bundleStatus() Status {
	s.bundle.Get()
	return s.bundleTally.status(s.bundle.AsOf())
}

func openPair(f Files, told func(Reload)) (*reload.Files[*tls.Certificate], error) {
	files := []string{f.Certificate, f.Key}
	var shown succession
	build := func(contents [][]byte) (*tls.Certificate, error) {
		return shown.next(parsePair(named{f.Certificate, contents[0]}, named{f.Key, contents[1]}, f.Usage))
	}
	return reload.New(files, build, func(_ *tls.Certificate, err error) { told(Reload{files, err}) })
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
