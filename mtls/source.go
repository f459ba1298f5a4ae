package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/kubepki/kubepki/internal/trust"
)

// Source gives what a program shows and whom it trusts. [FileSource] is one, and
// so is a [*Snapshot], which never changes.
type Source interface {
	// Snapshot returns what is so now. It is called at each handshake, by several
	// goroutines at once: it should return without waiting, and the same pointer
	// as long as nothing has changed. An error, which is for the program's own
	// log, fails the handshake, and so does nil.
	Snapshot() (*Snapshot, error)
}

// Snapshot is what a program shows and whom it trusts at one moment. It is
// shared between goroutines: once it is in use, nothing of it may be changed.
type Snapshot struct {
	// Certificate is what is shown, the leaf first, with its key and with Leaf
	// set; nil: nothing.
	Certificate *tls.Certificate
	// Bundle holds the authorities that the other side must come from; nil:
	// nobody is trusted.
	Bundle *Bundle
}

// Snapshot returns the snapshot itself, so that it can be used as a [Source].
func (s *Snapshot) Snapshot() (*Snapshot, error) { return s, nil }

var errNoSnapshot = errors.New("the source has nothing, and does not say why")

// snapshot is what a source has now. Sources are of others: one that has nothing
// must not end the program at the first stranger's handshake.
func snapshot(s Source) (*Snapshot, error) {
	if s == nil {
		return nil, errors.New("no source is set")
	}
	now, err := s.Snapshot()
	if err == nil && now == nil {
		err = errNoSnapshot
	}
	return now, err
}

// Bundle is a fixed set of authorities that are trusted, made by [NewBundle] or
// [ParseBundle]: the zero value trusts nobody. It may be used by several
// goroutines.
type Bundle struct {
	anchors []*x509.Certificate
	pool    *x509.CertPool
	raw     map[string]bool // the anchors in DER
	found   *lru.Cache[chainKey, [][]*x509.Certificate]
}

// maxFound is how many chains a bundle remembers that it has verified.
const maxFound = 256

// NewBundle returns the bundle of some authorities, at least one, which must not
// be changed any more.
func NewBundle(anchors ...*x509.Certificate) (*Bundle, error) {
	if len(anchors) == 0 {
		return nil, errors.New("a bundle without an authority trusts nobody")
	}
	if i := slices.Index(anchors, nil); i >= 0 {
		return nil, fmt.Errorf("authority %d of the bundle is nil", i+1)
	}
	found, _ := lru.New[chainKey, [][]*x509.Certificate](maxFound) // it fails for sizes below one alone
	b := &Bundle{anchors: slices.Clone(anchors), pool: x509.NewCertPool(), raw: make(map[string]bool, len(anchors)), found: found}
	for _, a := range anchors {
		b.pool.AddCert(a)
		b.raw[string(a.Raw)] = true
	}
	return b, nil
}

// ParseBundle reads a bundle from PEM: certificates, one at least, and nothing
// else. The error names the line.
func ParseBundle(data []byte) (*Bundle, error) {
	anchors, err := trust.ParseCertificates(data)
	if err != nil {
		return nil, err
	}
	return NewBundle(anchors...)
}

// empty tells of a bundle that trusts nobody. Its pool must not get to crypto/x509,
// for which none is that of the system.
func (b *Bundle) empty() bool { return b == nil || len(b.anchors) == 0 }

// Anchors returns the authorities, in their order. The certificates are shared.
func (b *Bundle) Anchors() []*x509.Certificate { return slices.Clone(b.anchors) }
