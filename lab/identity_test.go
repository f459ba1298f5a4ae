//go:build linux

package lab_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// identity is whom an API server takes a caller for.
type identity struct {
	User   string
	Groups []string
}

// whoami asks the API server who the caller is, as kubectl auth whoami does.
func whoami(t *testing.T, config *rest.Config) (identity, error) {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	review, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return identity{}, err
	}
	user := review.Status.UserInfo
	slices.Sort(user.Groups)
	return identity{user.Username, user.Groups}, nil
}

// headers adds headers to every request, as a front proxy does.
type headers struct {
	set  map[string]string
	next http.RoundTripper
}

func (h headers) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	for name, value := range h.set {
		r.Header.Set(name, value)
	}
	return h.next.RoundTrip(r)
}

// credential is a client certificate with its chain, and its key, in PEM.
type credential struct{ certificate, key []byte }

// as calls the API server of another configuration with this credential.
func (c credential) as(config *rest.Config) *rest.Config {
	return &rest.Config{
		Host:    config.Host,
		QPS:     config.QPS,
		Timeout: config.Timeout,
		TLSClientConfig: rest.TLSClientConfig{
			CAData:   config.CAData,
			CAFile:   config.CAFile,
			CertData: c.certificate,
			KeyData:  c.key,
		},
	}
}

// with appends certificates to the chain that the credential shows.
func (c credential) with(t *testing.T, paths ...string) credential {
	t.Helper()
	c.certificate = slices.Clone(c.certificate)
	for _, path := range paths {
		c.certificate = append(c.certificate, read(t, path)...)
	}
	return c
}

// load reads a credential from PATH.crt and PATH.key.
func load(t *testing.T, path string) credential {
	t.Helper()
	return credential{read(t, path+".crt"), read(t, path+".key")}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// forge makes a client certificate without kubepki: signed by the authority in
// PATH.crt and PATH.key, valid for an hour.
func forge(t *testing.T, authority, commonName string, organizations ...string) credential {
	t.Helper()
	issuer := certificatesIn(read(t, authority+".crt"))[0]
	block, _ := pem.Decode(read(t, authority+".key"))
	signer, err := privateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	key, request := newKey(t)
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: commonName, Organization: organizations},
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, issuer, request, signer)
	if err != nil {
		t.Fatal(err)
	}
	return credential{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf}), key}
}

// newKey makes a key: its PEM, and its public half.
func newKey(t *testing.T) ([]byte, crypto.PublicKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), key.Public()
}
