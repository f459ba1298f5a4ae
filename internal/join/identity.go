package join

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// nodePrefix and nodeGroup are the identity of nodes (k/k
// pkg/auth/nodeidentifier/default.go).
const (
	nodePrefix = "system:node:"
	nodeGroup  = "system:nodes"
)

// Identity is what a certificate is asked for.
type Identity struct {
	CommonName   string   // the user
	Organization []string // the groups, in the order of the request
}

// Node is the identity of a node. The error says what is wrong with its name.
func Node(name string) (Identity, error) {
	if wrong := validation.IsDNS1123Subdomain(name); len(wrong) > 0 {
		return Identity{}, fmt.Errorf("%q is not a node name: lower-case letters, digits, - and . (RFC 1123)", name)
	}
	return Identity{CommonName: nodePrefix + name, Organization: []string{nodeGroup}}, nil
}

// DefaultNodeName is the name that the kubelet and kubeadm give a node: that of
// the machine, in lower case (k8s.io/component-helpers/node/util/hostname.go).
func DefaultNodeName() (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("finding the name of this machine: %w", err)
	}
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "" {
		return "", errors.New("this machine has no name: give --node-name")
	}
	return name, nil
}

// String is the subject as people write it.
func (id Identity) String() string { return id.subject().String() }

func (id Identity) subject() *pkix.Name {
	return &pkix.Name{CommonName: id.CommonName, Organization: id.Organization}
}

// signer is who signs certificates of such an identity (k/k
// staging/src/k8s.io/api/certificates/v1/types.go).
func (id Identity) signer() string {
	if strings.HasPrefix(id.CommonName, nodePrefix) {
		return certificatesv1.KubeAPIServerClientKubeletSignerName
	}
	return certificatesv1.KubeAPIServerClientSignerName
}

func identityOf(leaf *x509.Certificate) Identity {
	return Identity{CommonName: leaf.Subject.CommonName, Organization: leaf.Subject.Organization}
}

func (id Identity) same(other Identity) bool {
	a, b := slices.Sorted(slices.Values(id.Organization)), slices.Sorted(slices.Values(other.Organization))
	return id.CommonName == other.CommonName && slices.Equal(a, b)
}

// usages are those that the signers accept for a key: only RSA can encipher
// keys (k/k pkg/apis/certificates/helpers.go).
func usages(public crypto.PublicKey) []certificatesv1.KeyUsage {
	usages := []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}
	if _, ok := public.(*rsa.PublicKey); ok {
		usages = append(usages, certificatesv1.UsageKeyEncipherment)
	}
	return usages
}

// requestName names a request by a digest of key, subject and usages, exactly
// as the kubelet does (k/k pkg/kubelet/certificate/bootstrap/bootstrap.go,
// digestedName): whoever goes on with the same key finds the same request.
func requestName(public crypto.PublicKey, id Identity) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("encoding the public key: %w", err)
	}
	parts := append([]string{string(der), id.CommonName}, id.Organization...)
	for _, u := range usages(public) {
		parts = append(parts, string(u))
	}
	digest := sha512.New512_256()
	for _, p := range parts {
		fmt.Fprintf(digest, "%s|", base64.RawURLEncoding.EncodeToString([]byte(p)))
	}
	return "node-csr-" + base64.RawURLEncoding.EncodeToString(digest.Sum(nil)), nil
}

// pair is a key and the certificate for it, the leaf first.
type pair struct {
	key   crypto.Signer
	chain []*x509.Certificate
}

func (p *pair) leaf() *x509.Certificate { return p.chain[0] }

// encode writes certificates and key in one text, as the kubelet's files hold
// them.
func (p *pair) encode() ([]byte, error) {
	key, err := issue.EncodePrivateKey(p.key)
	if err != nil {
		return nil, err
	}
	return append(trust.EncodeCertificates(p.chain...), key...), nil
}

// parsePair reads certificates and a key, which may stand in one text. The
// error tells when they do not belong together.
func parsePair(certificates, key []byte) (*pair, error) {
	both, err := tls.X509KeyPair(certificates, key)
	if err != nil {
		return nil, err
	}
	p := &pair{}
	for _, der := range both.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		p.chain = append(p.chain, c)
	}
	var ok bool
	if p.key, ok = both.PrivateKey.(crypto.Signer); !ok {
		return nil, errors.New("the private key cannot sign")
	}
	return p, nil
}

// check refuses a certificate that is not what was asked for.
func (p *pair) check(id Identity, now time.Time) error {
	c := p.leaf()
	switch {
	case !trust.SameKey(c.PublicKey, p.key.Public()):
		return errors.New("it is not for the key that was sent")
	case !identityOf(c).same(id):
		return fmt.Errorf("it is for %s, asked for was %s", c.Subject, id)
	case !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny):
		return errors.New("it is not for clients (extended key usage clientAuth)")
	case now.After(c.NotAfter):
		return fmt.Errorf("it expired at %s; this machine's clock says %s", date(c.NotAfter), date(now))
	case now.Before(c.NotBefore):
		return fmt.Errorf("it begins at %s; this machine's clock says %s", date(c.NotBefore), date(now))
	}
	return nil
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }
