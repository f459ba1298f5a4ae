package inspect

import (
	"crypto/x509"

	"github.com/kubepki/kubepki/internal/trust"
)

// MaxSize is the size in bytes up to which [Describe] reads.
const MaxSize = trust.MaxPEM

// Format tells the form of a whole file.
type Format string

// The formats of a file.
const (
	PEM        Format = "PEM"
	DER        Format = "DER"
	Kubeconfig Format = "kubeconfig"
	Manifest   Format = "manifest" // one or several Kubernetes objects
	TokenFile  Format = "token"
	Base64     Format = "base64" // of one of the others
)

// Kind tells what a [Part] is.
type Kind string

// The kinds of a [Part]. Those without a field of their own in Part say all
// with Field and Problem.
const (
	KindCertificate Kind = "certificate"
	KindRequest     Kind = "request"
	KindPrivateKey  Kind = "private key"
	KindPublicKey   Kind = "public key"
	KindToken       Kind = "token"
	KindContext     Kind = "context"
	KindObject      Kind = "object"
	KindComponent   Kind = "component"
	KindOther       Kind = "other"
)

// Description is what a file holds, in the order of the file.
type Description struct {
	Format Format `json:"format"`
	Parts  []Part `json:"parts"`
}

// Part is one thing in a file.
type Part struct {
	Kind  Kind   `json:"kind"`
	Field string `json:"field,omitempty"` // of the kubeconfig or manifest; empty for the file itself
	Line  int    `json:"line,omitempty"`  // of its BEGIN in the PEM text, counted from 1
	// Note says what there is to say about a part that is not shown.
	Note string `json:"note,omitempty"`
	// Problem says why the part could not be read, without any of its content.
	Problem     string       `json:"problem,omitempty"`
	Certificate *Certificate `json:"certificate,omitempty"`
	Request     *Request     `json:"request,omitempty"`
	Key         *Key         `json:"key,omitempty"`
	Token       *Token       `json:"token,omitempty"`
	Context     *Context     `json:"context,omitempty"`
	Object      *Object      `json:"object,omitempty"`
	Component   *Component   `json:"component,omitempty"`

	parsed *x509.Certificate
}

// Certificates returns the parsed certificates of the file, in order.
func (d *Description) Certificates() []*x509.Certificate {
	var all []*x509.Certificate
	for i := range d.Parts {
		if c := d.Parts[i].parsed; c != nil {
			all = append(all, c)
		}
	}
	return all
}

// Problems returns what is wrong with parts, each with its place in the file.
func (d *Description) Problems() []string {
	var all []string
	for _, p := range d.Parts {
		switch {
		case p.Problem == "":
		case p.Field != "":
			all = append(all, p.Field+": "+p.Problem)
		default:
			all = append(all, p.Problem)
		}
	}
	return all
}
