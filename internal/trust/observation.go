package trust

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"slices"
	"time"
)

// Server is an address at which a component serves TLS, or at which a
// kubeconfig dials.
type Server struct {
	// Component is the ID of the component that serves, or, of an address that
	// stands for several or for none that was given, the name in the links.
	Component string
	Kind      ServerKind
	// Address is HOST:PORT, with brackets around an IPv6 address; empty when no
	// file tells it.
	Address string
	// Settings say that the component serves there: a manifest, a flag's file,
	// a kubeconfig's field. The first is where a mend is made.
	Settings []Place
	// Credential is what the files say that it shows; nil when they do not.
	Credential *Credential
	// ClientCAs are the files of the authorities that it should name to
	// clients; empty when no file tells them all.
	ClientCAs []Place
	// Links are the indices of the graph's links whose callee is this server.
	Links []int
	// NodeName is the Kubernetes name of its node, when that is known.
	NodeName string
	// Local tells that it is dialled from its own node, so that its loopback
	// address is its own.
	Local bool
	// Skip says why it cannot be dialled from here; empty when it can.
	Skip string
}

// ServerKind tells what is spoken at a [Server].
type ServerKind string

// The kinds of a [Server].
const (
	ServesEtcd      ServerKind = "etcd"       // etcd's port for clients
	ServesEtcdPeers ServerKind = "etcd-peer"  // etcd's port for other members
	ServesAPI       ServerKind = "apiserver"  // kube-apiserver
	ServesKubelet   ServerKind = "kubelet"    // kubelet
	ServesMetrics   ServerKind = "metrics"    // kube-controller-manager, kube-scheduler
	ServesNode      ServerKind = "node"       // the kubelet of a Node whose files were not given
	ServesEndpoint  ServerKind = "endpoint"   // what stands before apiservers, or one elsewhere
	ServesElsewhere ServerKind = "etcd-other" // an etcd member whose node was not given
)

// Observation is what one server did when it was dialled.
type Observation struct {
	Server  Server
	Outcome Outcome
	// Reason says why it was not answered, in a phrase.
	Reason string
	// Alert is the TLS alert with which it refused, as RFC 8446 section 6 spells
	// it, such as unknown_ca; empty when there was none.
	Alert string
	// Version and ALPN are those of a handshake without a client certificate.
	Version string
	ALPN    string
	// Chain is what it presented, in that order; empty when it presented nothing.
	Chain []*x509.Certificate
	// AsksClient tells that it asked for a client certificate, and Authorities
	// whom it named then: the DER forms of their subjects.
	AsksClient  bool
	Authorities [][]byte
	Calls       []Call
	// Published is what it says of itself, nil when nobody could ask.
	Published *Published
}

// Outcome tells how a dial or a call ended.
type Outcome string

// The outcomes.
const (
	Answered    Outcome = "answered"    // it presented a certificate; of a call: the caller was let in
	Refused     Outcome = "refused"     // it ended the handshake, or does not know the caller
	Unreachable Outcome = "unreachable" // nobody answers, or not in TLS
	NotDialled  Outcome = "not-dialled" // it cannot be tried from here
)

// Call is an authenticated request with one credential.
type Call struct {
	Credential *Credential
	Outcome    Outcome
	Reason     string
	Alert      string // as in [Observation]
	Status     int    // of HTTP; 0 when there was no answer
	// User and Groups are who the server says that the caller is; empty when it
	// does not say.
	User   string
	Groups []string
}

// Published is what an apiserver publishes of the trust of its cluster. A nil
// list was not to be read; an empty one is empty.
type Published struct {
	// KeyIDs are those of /openid/v1/jwks.
	KeyIDs []string
	// ClientCAs and RequestheaderCAs are those of the ConfigMap
	// kube-system/extension-apiserver-authentication.
	ClientCAs, RequestheaderCAs []*x509.Certificate
	// RootCAs are those of the ConfigMap kube-system/kube-root-ca.crt.
	RootCAs     []*x509.Certificate
	APIServices []APIService
}

// APIService is one that a Service of the cluster stands behind.
type APIService struct {
	Name      string
	Service   string // NAMESPACE/NAME
	Available bool
	Reason    string // of the condition Available
	Message   string
	CABundle  []*x509.Certificate
	Insecure  bool // insecureSkipTLSVerify
}

// JudgePresented returns what is wrong with a chain that a callee presented in
// the eyes of the caller at a time. The place of each break is the callee's
// certificate file, where that is known.
func (g *Graph) JudgePresented(chain []*x509.Certificate, h *ServerHalf, at time.Time) []Break {
	if h == nil || h.Unverified || len(chain) == 0 {
		return nil
	}
	var place Place
	if h.Credential != nil {
		place = h.Credential.Certificate
	}
	var breaks []Break
	if h.Bundle != nil {
		breaks = NewJudgement(g, at).chain(chain, place, h.Bundle, x509.ExtKeyUsageServerAuth)
	}
	for _, name := range h.Names {
		if chain[0].VerifyHostname(name) != nil {
			breaks = append(breaks, Break{Kind: NameMissing, Place: place, Certificate: chain[0], Name: name})
		}
	}
	return breaks
}

// SameChain tells whether two chains are the same certificates in the same order.
func SameChain(a, b []*x509.Certificate) bool {
	return slices.EqualFunc(a, b, (*x509.Certificate).Equal)
}

// SubjectText returns the subject of DER form as a distinguished name of RFC
// 2253; hexadecimal when it does not parse.
func SubjectText(der []byte) string {
	var sequence pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &sequence); err != nil || len(rest) > 0 {
		return hex.EncodeToString(der)
	}
	return sequence.String()
}
