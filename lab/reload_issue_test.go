//go:build linux

package lab_test

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// authority signs what the test needs.
type authority struct {
	issue.Authority
	pem, key []byte // the certificate and its key
}

// newAuthority makes an authority that nothing trusts yet.
func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := issue.SelfSign(issue.Template{
		Subject: pkix.Name{CommonName: name}, Authority: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{issue.Authority{Certificate: certificate, Key: key}, trust.EncodeCertificates(certificate), encodeKey(t, key)}
}

// loadAuthority reads an authority of the cluster from PATH.crt and PATH.key.
func loadAuthority(t *testing.T, path string) *authority {
	t.Helper()
	a := &authority{pem: read(t, path+".crt"), key: read(t, path+".key")}
	key, err := issue.ParsePrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.Authority = issue.Authority{Certificate: certificatesIn(a.pem)[0], Key: key}
	return a
}

// leaf signs a certificate for a server and client of some names and
// addresses.
func (a *authority) leaf(t *testing.T, subject pkix.Name, hosts ...string) credential {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	template := issue.Template{
		Subject: subject, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.Addresses = append(template.Addresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	certificate, err := issue.Sign(template, key.Public(), a.Authority)
	if err != nil {
		t.Fatal(err)
	}
	return credential{trust.EncodeCertificates(certificate), encodeKey(t, key)}
}

// again is another certificate with the names of one that the authority signed.
func (a *authority) again(t *testing.T, old []byte) credential {
	t.Helper()
	c := certificatesIn(old)[0]
	hosts := c.DNSNames
	for _, ip := range c.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	return a.leaf(t, c.Subject, hosts...)
}

func (c credential) pair(t *testing.T) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(c.certificate, c.key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// serial is the serial number of the leaf, in hexadecimal.
func (c credential) serial() string { return certificatesIn(c.certificate)[0].SerialNumber.Text(16) }

// always shows the credential whatever the server hints at.
func (c credential) always(t *testing.T, config *tls.Config) *tls.Config {
	t.Helper()
	pair := c.pair(t)
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	return config
}

func encodeKey(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	data, err := issue.EncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
