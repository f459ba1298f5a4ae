package acmeissuer

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"slices"
	"strings"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/mholt/acmez/v3/acme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// maxRequest bounds a request's PEM text. A request with a hundred names of full
// length and an RSA key of 16384 bits fits.
const maxRequest = 64 << 10

// readRequest reads the request of a CertificateRequest or an Order. Orders of very
// old releases of cert-manager hold it in DER.
func readRequest(data []byte) (*x509.CertificateRequest, error) {
	if len(data) > maxRequest {
		return nil, fmt.Errorf("spec.request has %d bytes: %d are read", len(data), maxRequest)
	}
	blocks, err := trust.Blocks(data)
	if err != nil {
		return nil, err
	}
	if len(blocks) == 0 {
		return x509.ParseCertificateRequest(data)
	}
	return issue.ParseRequest(data)
}

// checkNames holds what ACME wants of the names of a request: the server proves those
// of the SAN extension alone, so that a common name beside them could not be.
func checkNames(r *x509.CertificateRequest) error {
	if len(r.DNSNames)+len(r.IPAddresses) == 0 {
		return errors.New("the request has neither DNS names nor IP addresses, and ACME proves nothing else")
	}
	cn := r.Subject.CommonName
	if cn != "" && !slices.Contains(r.DNSNames, cn) && !slices.Contains(addresses(r), cn) {
		return fmt.Errorf("the common name %q is neither among the DNS names %q nor among the IP addresses %q, and ACME wants it there", cn, r.DNSNames, addresses(r))
	}
	return nil
}

func addresses(r *x509.CertificateRequest) []string {
	var all []string
	for _, ip := range r.IPAddresses {
		all = append(all, ip.String())
	}
	return all
}

// orderOf returns the Order that a CertificateRequest of an ACME issuer stands for,
// with the name that cert-manager gives it, so that either finds the other's.
func orderOf(cr *cmapi.CertificateRequest, r *x509.CertificateRequest, config *cmacme.ACMEIssuer, replaces string) (*cmacme.Order, error) {
	spec := cmacme.OrderSpec{
		Request: cr.Spec.Request, IssuerRef: cr.Spec.IssuerRef, CommonName: r.Subject.CommonName,
		DNSNames: r.DNSNames, IPAddresses: addresses(r), Profile: config.Profile,
	}
	if config.EnableDurationFeature {
		spec.Duration = cr.Spec.Duration
	}
	named := spec
	named.Request = nil
	var hashed any = named
	if len(cr.Name) >= shortName {
		// The prefix is cut, so that the whole name goes into the hash.
		hashed = struct {
			CRName string           `json:"certificateRequestName"`
			Spec   cmacme.OrderSpec `json:"spec"`
		}{cr.Name, named}
	}
	name, err := nameWithHash(cr.Name, hashed)
	if err != nil {
		return nil, err
	}
	// What is replaced is left out of the name: it is a hint, and it changes with the
	// Secret, while the order must be found again.
	spec.Replaces = replaces
	return &cmacme.Order{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: cr.Namespace, Labels: cr.Labels, Annotations: cr.Annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(cr, cmapi.SchemeGroupVersion.WithKind(cmapi.CertificateRequestKind))},
		},
		Spec: spec,
	}, nil
}

// challengeOf returns the Challenge that proves one authorization of an order, with
// cert-manager's name for it, without its key.
func challengeOf(order *cmacme.Order, a cmacme.ACMEAuthorization, solvers []cmacme.ACMEChallengeSolver) (*cmacme.Challenge, error) {
	wildcard := a.Wildcard != nil && *a.Wildcard
	name := a.Identifier
	if wildcard {
		name = "*." + name
	}
	solver, offered := pick(name, a.Challenges, solvers, order.Labels)
	if solver == nil {
		return nil, fmt.Errorf("no solver of %s %q fits %q, for which the server offers %s: add one to spec.acme.solvers", kindOf(order.Spec.IssuerRef), order.Spec.IssuerRef.Name, name, offers(a.Challenges))
	}
	if err := override(solver, order); err != nil {
		return nil, err
	}
	kind := cmacme.ACMEChallengeTypeHTTP01
	if offered.Type == acme.ChallengeTypeDNS01 {
		kind = cmacme.ACMEChallengeTypeDNS01
	}
	spec := cmacme.ChallengeSpec{
		AuthorizationURL: a.URL, Type: kind, URL: offered.URL, DNSName: a.Identifier, Token: offered.Token,
		Solver: *solver, Wildcard: wildcard, IssuerRef: order.Spec.IssuerRef,
	}
	hashed, err := nameWithHash(order.Name, spec)
	if err != nil {
		return nil, err
	}
	return &cmacme.Challenge{
		ObjectMeta: metav1.ObjectMeta{
			Name: hashed, Namespace: order.Namespace, Finalizers: []string{cmacme.ACMEDomainQualifiedFinalizer},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(order, cmacme.SchemeGroupVersion.WithKind(cmacme.OrderKind))},
		},
		Spec: spec,
	}, nil
}

func offers(challenges []cmacme.ACMEChallenge) string {
	var types []string
	for _, c := range challenges {
		types = append(types, c.Type)
	}
	if len(types) == 0 {
		return "nothing"
	}
	return strings.Join(types, ", ")
}

// identifiers returns what an order asks the server to prove, each once and sorted.
func identifiers(spec *cmacme.OrderSpec) []acme.Identifier {
	names, ips := slices.Clone(spec.DNSNames), slices.Clone(spec.IPAddresses)
	switch cn := spec.CommonName; {
	case cn == "":
	case net.ParseIP(cn) != nil:
		ips = append(ips, cn)
	default:
		names = append(names, cn)
	}
	var all []acme.Identifier
	add := func(kind string, values []string) {
		slices.Sort(values)
		for _, v := range slices.Compact(values) {
			all = append(all, acme.Identifier{Type: kind, Value: v})
		}
	}
	add("dns", names)
	add("ip", ips)
	return all
}

// shortName is how much of a name stands before a hash: what is made of it is a label
// of 63 characters at most.
const shortName = 52

// nameWithHash makes a name as cert-manager does (pkg/api/util/names.go, ComputeName):
// the prefix, cut after a letter or digit, and the FNV-1 hash of the JSON text.
func nameWithHash(prefix string, of any) (string, error) {
	text, err := json.Marshal(of)
	if err != nil {
		return "", err
	}
	hash := fnv.New32()
	hash.Write(text)
	if len(prefix) >= shortName {
		prefix = strings.TrimRightFunc(prefix[:shortName], func(r rune) bool {
			return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		})
	}
	return fmt.Sprintf("%s-%d", prefix, hash.Sum32()), nil
}
