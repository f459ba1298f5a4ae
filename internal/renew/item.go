package renew

import (
	"context"
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
	// Current tells that Certificate is a kubelet's link to the newest of its dated
	// files: the new pair gets a dated file too, and the link is led to it.
	Current bool
	// Conf is a kubeconfig that names Certificate and gets Anchors; zero where it needs
	// none.
	Conf trust.Place
	// Copies are kubeconfigs of people that hold Old too, and get what is made.
	Copies []trust.Place

	// Certifier issues the certificate; nil: the authority's key that is at hand.
	Certifier Certifier
	// NewKey makes a new key, for concurrent use; nil: it is made when it is needed.
	NewKey func(issue.Algorithm) (crypto.Signer, error)

	signer     issue.Authority
	key        crypto.Signer // that is used again; nil: a new one
	subjectID  []byte
	pathLength *int
	extensions []pkix.Extension
	span       time.Duration // of the life that is wanted, whenever its authority ends
	serving    bool
	anchors    []anchorSet // of an item for an authority elsewhere
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

// Certifier issues the certificate that an item wants: who holds the authority's key
// elsewhere. It is safe for concurrent use.
type Certifier interface {
	// Certify returns the chain, the leaf first, for the public half of key. Of
	// key it may only use that and, for a request, its signature.
	Certify(ctx context.Context, i *Item, key crypto.Signer) ([]*x509.Certificate, error)
}

// Make makes the key, unless one is used again, and has the certificate issued. It is
// safe for concurrent use on several items.
func (i *Item) Make(ctx context.Context) (Made, error) {
	key, err := i.MakeKey()
	if err != nil {
		return Made{}, err
	}
	certify := i.certify
	if i.Certifier != nil {
		certify = i.Certifier.Certify
	}
	chain, err := certify(ctx, i, key)
	if err != nil {
		return Made{}, err
	}
	return Made{Chain: chain, Key: key}, nil
}

// MakeKey returns the key that is used again, or a new one.
func (i *Item) MakeKey() (crypto.Signer, error) {
	if i.key != nil {
		return i.key, nil
	}
	if i.NewKey != nil {
		return i.NewKey(i.Algorithm)
	}
	return issue.GenerateKey(i.Algorithm)
}

// Template is the certificate that is wanted.
func (i *Item) Template() issue.Template {
	return issue.Template{
		Subject: i.Subject, RawSubject: i.rawSubject, DNSNames: i.DNSNames, Addresses: i.Addresses, URIs: i.URIs, Emails: i.Emails, Usages: i.Usages,
		NotBefore: i.NotBefore, NotAfter: i.NotAfter, Authority: i.Kind == Authority, PathLength: i.pathLength, SubjectKeyID: i.subjectID,
		Extensions: i.extensions,
	}
}

// certify signs with the key of the authority, which is at hand.
func (i *Item) certify(_ context.Context, _ *Item, key crypto.Signer) ([]*x509.Certificate, error) {
	t := i.Template()
	if i.Kind == Authority && i.signer.Certificate == nil {
		c, err := issue.SelfSign(t, key)
		return []*x509.Certificate{c}, err
	}
	c, err := issue.Sign(t, key.Public(), i.signer)
	if err != nil {
		return nil, err
	}
	chain := []*x509.Certificate{c}
	if i.Kind != Authority {
		chain = append(chain, i.signer.Chain...)
	}
	return chain, nil
}

// Files are the files of the node that the item changes.
func (i *Item) Files() []string {
	files := []string{i.Certificate.Path}
	if i.Key.Path != i.Certificate.Path && i.Kind == Leaf && !i.Reused() {
		files = append(files, i.Key.Path)
	}
	return files
}
