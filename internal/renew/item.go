package renew

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// Kind tells what an [Item] is.
type Kind string

// The kinds of an [Item].
const (
	Leaf       Kind = "certificate" // a certificate and its key, in one file or two
	Kubeconfig Kind = "kubeconfig"  // what is embedded in a kubeconfig
	Authority  Kind = "authority"   // an authority's own certificate, with the key that it has
)

// Item is one credential that is made anew.
type Item struct {
	Name string // as the graph has it: apiserver, scheduler.conf, ca
	Node string
	Kind Kind
	// Certificate and Key are the files that are written, the same where both
	// stand in one; of a kubeconfig both are the kubeconfig, of an authority Key
	// is only read.
	Certificate, Key trust.Place
	// Old is the certificate that stood there; nil where none parses.
	Old *x509.Certificate
	// Why lists the findings on it, or says that it was asked for.
	Why []string
	// Warnings are what to know before it is done.
	Warnings []string
	// Issuer is the place of the authority that signs.
	Issuer trust.Place

	Subject    pkix.Name
	rawSubject []byte // of the old certificate, where its subject is kept
	DNSNames   []string
	Addresses  []net.IP
	URIs       []*url.URL
	Emails     []string
	Usages     []x509.ExtKeyUsage
	// NotBefore and NotAfter are the new life, never past the authority's.
	NotBefore, NotAfter time.Time
	Algorithm           issue.Algorithm // of the new key

	// Cluster, User, Server and Anchors are of a kubeconfig. Anchors are nil
	// where it names a file of them, or verifies nothing.
	Cluster, User, Server string
	Anchors               []*x509.Certificate

	signer     issue.Authority
	key        crypto.Signer // that is used again; nil: a new one
	subjectID  []byte
	pathLength *int
	serving    bool
}

// ID is the name of the item, with its node's before it where that has one.
func (i *Item) ID() string {
	if i.Node == "" {
		return i.Name
	}
	return i.Node + "/" + i.Name
}

// Reused tells that the key is kept.
func (i *Item) Reused() bool { return i.key != nil }

// Made is what came of an [Item].
type Made struct {
	Chain []*x509.Certificate // the leaf first
	Key   crypto.Signer
}

// Make makes the key, unless one is used again, and signs. It is safe for
// concurrent use on several items.
func (i *Item) Make() (Made, error) {
	key := i.key
	if key == nil {
		var err error
		if key, err = issue.GenerateKey(i.Algorithm); err != nil {
			return Made{}, err
		}
	}
	t := issue.Template{
		Subject: i.Subject, RawSubject: i.rawSubject, DNSNames: i.DNSNames, Addresses: i.Addresses, URIs: i.URIs, Emails: i.Emails, Usages: i.Usages,
		NotBefore: i.NotBefore, NotAfter: i.NotAfter, Authority: i.Kind == Authority, PathLength: i.pathLength, SubjectKeyID: i.subjectID,
	}
	if i.Kind == Authority && i.signer.Certificate == nil {
		c, err := issue.SelfSign(t, key)
		return Made{Chain: []*x509.Certificate{c}, Key: key}, err
	}
	c, err := issue.Sign(t, key.Public(), i.signer)
	if err != nil {
		return Made{}, err
	}
	chain := []*x509.Certificate{c}
	if i.Kind != Authority {
		chain = append(chain, i.signer.Chain...)
	}
	return Made{Chain: chain, Key: key}, nil
}
