package mtls

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// User is somebody as Kubernetes names them (authentication.k8s.io/v1 UserInfo).
type User struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string
}

// Peer is the other side of a connection, by a certificate that was verified:
// [VerifyClient] and [VerifyServer] return one. Nothing of it may be changed.
type Peer struct {
	// Certificate is what it has shown. Its names, such as DNSNames, can be relied
	// on as far as the authorities of the bundle can.
	Certificate *x509.Certificate
}

// errNoPeer is what the zero value says: nobody was verified.
var errNoPeer = errors.New("there is no peer: no certificate was verified")

// credentialIDKey is the key of Extra under which Kubernetes has the hash of the
// certificate (k8s.io/apiserver/pkg/authentication/user).
const credentialIDKey = "authentication.kubernetes.io/credential-id"

// uidAttribute is the attribute of a subject that holds the user's UID
// (k8s.io/apiserver/pkg/authentication/request/x509, AllowParsingUserUIDFromCertAuth).
var uidAttribute = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57683, 2}

// User returns whom kube-apiserver would see: the common name is the user's, the
// organizations are the groups (k8s.io/apiserver/pkg/authentication/request/x509).
// The group system:authenticated, which kube-apiserver adds to each user, is not
// added. The error says why the certificate names no user.
func (p Peer) User() (User, error) {
	if p.Certificate == nil {
		return User{}, errNoPeer
	}
	subject := p.Certificate.Subject
	if subject.CommonName == "" {
		return User{}, errors.New("the certificate has no common name, and so names no user")
	}
	// Connections share their certificates: who appends a group must not write there.
	u := User{Name: subject.CommonName, Groups: slices.Clone(subject.Organization)}
	for _, a := range subject.Names {
		if !a.Type.Equal(uidAttribute) {
			continue
		}
		uid, ok := a.Value.(string)
		if !ok || uid == "" || u.UID != "" {
			return User{}, errors.New("the certificate names the user's UID twice, as something else than text, or leaves it empty")
		}
		u.UID = uid
	}
	sum := sha256.Sum256(p.Certificate.Raw)
	u.Extra = map[string][]string{credentialIDKey: {"X509SHA256=" + hex.EncodeToString(sum[:])}}
	return u, nil
}

// SPIFFEID returns the SPIFFE ID, such as spiffe://example.org/ns/shop/sa/till.
// The error says why there is none: an X.509-SVID has exactly one URI among its
// subject alternative names, and may sign neither certificates nor lists of revoked
// ones (SPIFFE X509-SVID sections 2 and 4.3).
func (p Peer) SPIFFEID() (spiffeid.ID, error) {
	switch {
	case p.Certificate == nil:
		return spiffeid.ID{}, errNoPeer
	case p.Certificate.IsCA:
		return spiffeid.ID{}, errors.New("the certificate is an authority's")
	case p.Certificate.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return spiffeid.ID{}, errors.New("the certificate has the key usage keyCertSign or cRLSign, as only an authority's may")
	}
	return x509svid.IDFromCert(p.Certificate)
}

// String returns enough of the certificate to find it by, for logs.
func (p Peer) String() string {
	if p.Certificate == nil {
		return "nobody"
	}
	if len(p.Certificate.URIs) > 0 && p.Certificate.Subject.CommonName == "" {
		return short(p.Certificate.URIs[0].String())
	}
	return shortName(p.Certificate)
}

// Authorizer says whether a peer may: nil, or why it may not, for the own log.
// It may be called by several goroutines at once.
type Authorizer func(Peer) error

type peerKey struct{}

// NewContext returns a context that carries a peer, for middleware.
func NewContext(ctx context.Context, p Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// FromContext returns the peer that middleware has put into a context. There is
// none, and ok is false, where no middleware has verified one.
func FromContext(ctx context.Context) (p Peer, ok bool) {
	p, ok = ctx.Value(peerKey{}).(Peer)
	return p, ok
}

// short is enough of a text to know it by: whoever made it may have written
// anything.
func short(text string) string {
	const most = 80
	if len(text) > most {
		return fmt.Sprintf("%q…", text[:most])
	}
	return fmt.Sprintf("%q", text)
}

// shortName is enough of a subject to find the certificate by.
func shortName(c *x509.Certificate) string { return short(c.Subject.String()) }
