package check_test

import (
	"bytes"
	"crypto"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"slices"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

const (
	apiserverManifest = manifest + "kube-apiserver.yaml"
	managerManifest   = manifest + "kube-controller-manager.yaml"
	etcdManifest      = manifest + "etcd.yaml"
)

// must panics on an error: it is the test's own.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// setFlag replaces the value of a flag in a manifest of cp1.
func setFlag(component, flag, old, value string) func(*testpki.Cluster) {
	return func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/"+component+".yaml", "    - --"+flag+"="+old+"\n", "    - --"+flag+"="+value+"\n")
	}
}

// dropFlag takes a flag with its value out of a manifest of cp1.
func dropFlag(c *testpki.Cluster, component, flag, value string) {
	c.Edit("cp1", "manifests/"+component+".yaml", "    - --"+flag+"="+value+"\n", "")
}

// addFlag adds an argument to the apiserver's manifest of cp1.
func addFlag(c *testpki.Cluster, argument string) {
	c.Edit("cp1", "manifests/kube-apiserver.yaml", "    - --allow-privileged=true\n", "    - --allow-privileged=true\n    - "+argument+"\n")
}

// block changes the first PEM block of a file of cp1.
func block(c *testpki.Cluster, file string, change func(*pem.Block)) {
	b, rest := pem.Decode(c.Read("cp1", file))
	change(b)
	c.Write("cp1", file, append(pem.EncodeToMemory(b), rest...))
}

// certificates are those of a PEM file.
func certificates(c *testpki.Cluster, node, file string) []*x509.Certificate {
	return must(trust.ParseCertificates(c.Read(node, file)))
}

// swap exchanges two files of cp1.
func swap(c *testpki.Cluster, a, b string) {
	x, y := c.Read("cp1", a), c.Read("cp1", b)
	c.Write("cp1", a, y)
	c.Write("cp1", b, x)
}

// confData replaces the content of a field of a kubeconfig of cp1.
func confData(c *testpki.Cluster, conf, field string, change func([]byte) []byte) {
	old := confField(c, conf, field+": ")
	raw := must(base64.StdEncoding.DecodeString(old))
	c.Edit("cp1", conf, field+": "+old, field+": "+base64.StdEncoding.EncodeToString(change(raw)))
}

// confLine adds a line below another in a kubeconfig of cp1, or takes it out.
func confLine(c *testpki.Cluster, conf, after, line string) {
	c.Edit("cp1", conf, after, after+line)
}

// smallExponent makes an RSA key whose public exponent is 3.
func smallExponent() *rsa.PrivateKey {
	e, one := big.NewInt(3), big.NewInt(1)
	for {
		p, q := must(rand.Prime(rand.Reader, 1024)), must(rand.Prime(rand.Reader, 1024))
		phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		d := new(big.Int).ModInverse(e, phi)
		if d == nil {
			continue
		}
		k := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 3}, D: d, Primes: []*big.Int{p, q}}
		if k.N.BitLen() != 2048 {
			continue
		}
		k.Precompute()
		return k
	}
}

// withMD5 signs a certificate of an RSA authority anew with MD5.
func withMD5(cert *x509.Certificate, key *rsa.PrivateKey) []byte {
	sha256, md := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b}, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04}
	der := bytes.ReplaceAll(slices.Clone(cert.Raw), sha256, md)
	tbs := bytes.ReplaceAll(slices.Clone(cert.RawTBSCertificate), sha256, md)
	sum := md5.Sum(tbs)
	signature := must(rsa.SignPKCS1v15(nil, key, crypto.MD5, sum[:]))
	copy(der[len(der)-len(signature):], signature)
	return pem.EncodeToMemory(&pem.Block{Type: trust.CertificateType, Bytes: der})
}

// rsaAuthority gives an authority of cp1 an RSA key, and its leaves new
// certificates.
func rsaAuthority(c *testpki.Cluster, name string, key *rsa.PrivateKey, leaves ...string) {
	c.Rekey("cp1", name, key)
	for _, leaf := range leaves {
		c.Reissue("cp1", leaf, name, nil)
	}
}

func publicKey(k crypto.Signer) []byte { return must(issue.EncodePublicKey(k.Public())) }

// sha1 signs with an algorithm that crypto/x509 refuses.
func sha1(x *x509.Certificate) { x.SignatureAlgorithm = x509.ECDSAWithSHA1 }
