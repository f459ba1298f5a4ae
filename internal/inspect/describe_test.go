package inspect_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kubepki/kubepki/internal/inspect"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

var start = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)

// material is a small authority with one leaf and their texts.
type material struct {
	authority, leaf       *x509.Certificate
	key                   crypto.Signer
	authorityPEM, leafPEM []byte
	keyPEM, publicPEM     []byte
	request               *x509.CertificateRequest
	kubeconfig            []byte
	token                 string
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("test material: %v", err))
	}
	return v
}

func newMaterial() *material {
	caKey := must(issue.GenerateKey(issue.ECDSAP256))
	m := &material{key: must(issue.GenerateKey(issue.ECDSAP256))}
	m.authority = must(issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: "kubernetes"}, Authority: true, NotBefore: start, NotAfter: start.AddDate(10, 0, 0)}, caKey))
	leaf := issue.Template{
		Subject: pkix.Name{CommonName: "jane", Organization: []string{"dev"}}, DNSNames: []string{"a.example.test"},
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, NotBefore: start, NotAfter: start.AddDate(1, 0, 0),
	}
	m.leaf = must(issue.Sign(leaf, m.key.Public(), issue.Authority{Certificate: m.authority, Key: caKey}))
	m.request = must(issue.Request(leaf, m.key))
	m.authorityPEM, m.leafPEM = trust.EncodeCertificates(m.authority), trust.EncodeCertificates(m.leaf)
	m.keyPEM, m.publicPEM = must(issue.EncodePrivateKey(m.key)), must(issue.EncodePublicKey(m.key.Public()))
	m.kubeconfig = must(layout.EncodeKubeconfig(layout.KubeconfigSpec{
		Cluster: "kubernetes", Server: "https://10.0.0.11:6443", CA: m.authorityPEM, User: "jane", Certificate: m.leafPEM, Key: m.keyPEM,
	}))
	signer := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: m.key, KeyID: "k1"}}, nil))
	m.token = must(jwt.Signed(signer).Claims(map[string]any{
		"iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:ci:robot", "aud": []string{"https://kubernetes.default.svc"},
		"iat": start.Unix(), "exp": start.Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{
			"namespace": "ci", "serviceaccount": map[string]string{"name": "robot", "uid": "u-1"},
			"pod": map[string]string{"name": "build", "uid": "u-2"}, "node": map[string]string{"name": "w1", "uid": "u-3"}, "warnafter": start.Add(50 * time.Minute).Unix(),
		},
	}).Serialize())
	return m
}

func b64(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

// kinds says in short what a description holds.
func kinds(d *inspect.Description) []string {
	var all []string
	for _, p := range d.Parts {
		text := string(p.Kind)
		if p.Field != "" {
			text += " " + p.Field
		}
		if p.Problem != "" {
			text += " !"
		}
		all = append(all, text)
	}
	return all
}

func TestDescribeTellsByContent(t *testing.T) {
	m := newMaterial()
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{0x30, 0}})
	tests := map[string]struct {
		data   []byte
		format inspect.Format
		parts  []string
	}{
		"a certificate":                       {m.leafPEM, inspect.PEM, []string{"certificate"}},
		"a certificate with text and CRLF":    {bytes.ReplaceAll(append([]byte("subject=jane\n"), m.leafPEM...), []byte("\n"), []byte("\r\n")), inspect.PEM, []string{"certificate"}},
		"a certificate behind a BOM":          {append([]byte("\xef\xbb\xbf"), m.leafPEM...), inspect.PEM, []string{"certificate"}},
		"a bundle with a key":                 {concat(m.leafPEM, m.authorityPEM, m.keyPEM), inspect.PEM, []string{"certificate", "certificate", "private key"}},
		"a public key":                        {m.publicPEM, inspect.PEM, []string{"public key"}},
		"a request":                           {issue.EncodeRequest(m.request), inspect.PEM, []string{"request"}},
		"an encrypted key":                    {encrypted, inspect.PEM, []string{"private key"}},
		"a DER certificate":                   {m.leaf.Raw, inspect.DER, []string{"certificate"}},
		"two DER certificates":                {concat(m.leaf.Raw, m.authority.Raw), inspect.DER, []string{"certificate", "certificate"}},
		"a DER request":                       {m.request.Raw, inspect.DER, []string{"request"}},
		"a DER key":                           {must(x509.MarshalPKCS8PrivateKey(m.key)), inspect.DER, []string{"private key"}},
		"a DER public key":                    {must(x509.MarshalPKIXPublicKey(m.key.Public())), inspect.DER, []string{"public key"}},
		"base64 of a certificate":             {[]byte(b64(m.leafPEM)), inspect.Base64, []string{"certificate"}},
		"a token with a line break":           {[]byte(m.token + "\n"), inspect.TokenFile, []string{"token"}},
		"a certificate that is broken inside": {concat(m.authorityPEM, []byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")), inspect.PEM, []string{"certificate", "certificate !"}},
		"a kubeconfig": {m.kubeconfig, inspect.Kubeconfig, []string{
			"context contexts[jane@kubernetes]", "certificate clusters[kubernetes].cluster.certificate-authority-data",
			"certificate users[jane].user.client-certificate-data", "private key users[jane].user.client-key-data",
		}},
		"a kubeconfig with dangling names": {[]byte("kind: Config\ncontexts: [{name: c, context: {cluster: x, user: nobody}}]\n"), inspect.Kubeconfig, []string{"context contexts[c] !"}},
		"a TLS Secret": {fmt.Appendf(nil, "kind: Secret\nmetadata: {name: s}\ntype: kubernetes.io/tls\ndata: {tls.crt: %s, tls.key: %s, note: %s}\n", b64(m.leafPEM), b64(m.keyPEM), b64([]byte("hello"))), inspect.Manifest, []string{
			"object", "other data[note]", "certificate data[tls.crt]", "private key data[tls.key]",
		}},
		"a Secret with stringData":                 {fmt.Appendf(nil, "kind: Secret\nstringData: {token: %s}\ndata: {bad: '***'}\n", m.token), inspect.Manifest, []string{"object", "other data[bad] !", "token stringData[token]"}},
		"a Secret with a broken certificate in it": {fmt.Appendf(nil, "kind: Secret\ndata: {tls.crt: %s}\n", b64([]byte("-----BEGIN CERTIFICATE-----\n"))), inspect.Manifest, []string{"object", "other data[tls.crt] !"}},
		"a List with a kubeconfig in a Secret": {fmt.Appendf(nil, "kind: List\nitems: [{kind: Secret, data: {value: %s}}]\n", b64(m.kubeconfig)), inspect.Manifest, []string{
			"object items[0]", "context items[0].data[value].contexts[jane@kubernetes]", "certificate items[0].data[value].clusters[kubernetes].cluster.certificate-authority-data",
			"certificate items[0].data[value].users[jane].user.client-certificate-data", "private key items[0].data[value].users[jane].user.client-key-data",
		}},
		"a ConfigMap as JSON":          {must(json.Marshal(map[string]any{"kind": "ConfigMap", "data": map[string]string{"ca.crt": string(m.authorityPEM)}})), inspect.Manifest, []string{"object", "certificate data[ca.crt]"}},
		"a webhook's caBundle":         {fmt.Appendf(nil, "kind: ValidatingWebhookConfiguration\nwebhooks: [{clientConfig: {caBundle: %s}}]\n", b64(m.authorityPEM)), inspect.Manifest, []string{"object", "certificate webhooks[0].clientConfig.caBundle"}},
		"a TokenRequest":               {fmt.Appendf(nil, "kind: TokenRequest\nstatus: {token: %s}\n", m.token), inspect.Manifest, []string{"object", "token status.token"}},
		"two documents":                {fmt.Appendf(nil, "kind: Namespace\n---\nkind: ConfigMap\ndata: {ca: %q}\n", m.authorityPEM), inspect.Manifest, []string{"object document 2", "certificate document 2.data[ca]"}},
		"the manifest of a static pod": {[]byte("kind: Pod\nspec: {containers: [{name: e, command: [etcd, --cert-file=/a.crt, --name=x]}]}\n"), inspect.Manifest, []string{"object", "component"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d, err := inspect.Describe(test.data)
			if err != nil {
				t.Fatal(err)
			}
			if d.Format != test.format {
				t.Errorf("format = %s, want %s", d.Format, test.format)
			}
			if diff := cmp.Diff(test.parts, kinds(d)); diff != "" {
				t.Errorf("parts (-want +got):\n%s", diff)
			}
		})
	}
}

func concat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestDescribeRefuses(t *testing.T) {
	tests := map[string]struct{ data, want string }{
		"nothing":                        {" \n", "is empty"},
		"a text":                         {"hello world\n", "none of PEM"},
		"bytes":                          {"\x00\x01\x02", "none of PEM"},
		"too much":                       {strings.Repeat("a", inspect.MaxSize+1), "1 MiB"},
		"a manifest without credentials": {"kind: ConfigMap\ndata: {}\n", "none of PEM"},
		"a block without an end":         {"-----BEGIN CERTIFICATE-----\nMAA=\n", "line 1"},
		"YAML with a mistake":            {"apiVersion: v1\nkind: Secret\n data: [\n", "line 3"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := inspect.Describe([]byte(test.data)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error = %v, want one about %q", err, test.want)
			}
		})
	}
	if _, err := inspect.Describe([]byte("x")); !errors.Is(err, inspect.ErrUnknown) {
		t.Errorf("error = %v, want ErrUnknown", err)
	}
}

func TestDescribeCertificate(t *testing.T) {
	m := newMaterial()
	d := must(inspect.Describe(m.leafPEM))
	c := d.Parts[0].Certificate
	if c.Subject != "CN=jane,O=dev" || c.Issuer != "CN=kubernetes" || c.IsAuthority || c.SelfSigned || c.DiscoveryHash != "" {
		t.Errorf("leaf = %+v", c)
	}
	if diff := cmp.Diff([]string{"DNS:a.example.test"}, c.All()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"clientAuth"}, c.Usages); diff != "" {
		t.Error(diff)
	}
	if c.KeyAlgorithm != "ECDSA-P256" || c.KeyAlgorithm != "ECDSA-"+strings.ReplaceAll(elliptic.P256().Params().Name, "-", "") {
		t.Errorf("key algorithm = %s", c.KeyAlgorithm)
	}
	if key := must(inspect.Describe(m.keyPEM)).Parts[0].Key; key.PublicKeySHA256 != c.PublicKeySHA256 {
		t.Errorf("the hash of the key %s is not that of its certificate %s", key.PublicKeySHA256, c.PublicKeySHA256)
	}
	a := must(inspect.Describe(m.authorityPEM)).Parts[0].Certificate
	if !a.IsAuthority || !a.SelfSigned || a.DiscoveryHash != "sha256:"+a.PublicKeySHA256 || a.SubjectKeyID != c.AuthorityKeyID {
		t.Errorf("authority = %+v", a)
	}
}

func TestDescribeNameConstraints(t *testing.T) {
	key := must(issue.GenerateKey(issue.ECDSAP256))
	_, subnet, err := net.ParseCIDR("10.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: start, NotAfter: start.AddDate(1, 0, 0), BasicConstraintsValid: true, IsCA: true,
		PermittedDNSDomains: []string{"example.test"}, ExcludedIPRanges: []*net.IPNet{subnet},
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	c := must(inspect.Describe(der)).Parts[0].Certificate
	if diff := cmp.Diff([]string{"permitted DNS:example.test", "excluded IP:10.0.0.0/8"}, c.NameConstraints); diff != "" {
		t.Error(diff)
	}
}

func TestDescribeToken(t *testing.T) {
	m := newMaterial()
	got := must(inspect.Describe([]byte(m.token))).Parts[0].Token
	issued, expires, warn := start, start.Add(time.Hour), start.Add(50*time.Minute)
	want := &inspect.Token{
		Algorithm: "ES256", KeyID: "k1", Subject: "system:serviceaccount:ci:robot", Issuer: "https://kubernetes.default.svc",
		Audiences: []string{"https://kubernetes.default.svc"}, IssuedAt: &issued, Expires: &expires, WarnAfter: &warn,
		Namespace: "ci", ServiceAccount: &inspect.Reference{Kind: "ServiceAccount", Name: "robot", UID: "u-1"},
		BoundTo: []inspect.Reference{{Kind: "Pod", Name: "build", UID: "u-2"}, {Kind: "Node", Name: "w1", UID: "u-3"}},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(inspect.Token{})); diff != "" {
		t.Errorf("token (-want +got):\n%s", diff)
	}
}

func TestDescribeRefusesTokensThatNobodyAccepts(t *testing.T) {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	for name, token := range map[string]string{
		"without signature":    part(`{"alg":"none"}`) + "." + part(`{"sub":"a"}`) + ".",
		"with a shared secret": part(`{"alg":"HS256"}`) + "." + part(`{"sub":"a"}`) + "." + part("x"),
		"with claims cut off":  part(`{"alg":"RS256"}`) + "." + part(`{"sub":`) + "." + part("x"),
		"before all time":      part(`{"alg":"RS256"}`) + "." + part(`{"exp":-99999999999999}`) + "." + part("x"),
	} {
		t.Run(name, func(t *testing.T) {
			d := must(inspect.Describe([]byte(token)))
			if len(d.Problems()) != 1 || d.Parts[0].Token != nil {
				t.Errorf("problems = %q, want one and no token", d.Problems())
			}
		})
	}
}

// TestDescribeKeepsSecrets plants secrets in every kind of file, and looks for
// them in all that a description can print.
func TestDescribeKeepsSecrets(t *testing.T) {
	m := newMaterial()
	const password = "correct-horse-battery"
	config := fmt.Sprintf(`{kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
clusters: [{name: c, cluster: {server: "https://user:%[1]s@host/?token=%[1]s", proxy-url: "http://p:%[1]s@proxy"}}],
users: [{name: u, user: {token: %[2]s, username: bob, password: %[1]s, exec: {command: /bin/x, args: [%[1]s], env: [{name: A, value: %[1]s}]}, auth-provider: {name: oidc, config: {client-secret: %[1]s}}}}]}`, password, m.token)
	secret := fmt.Sprintf("kind: Secret\ndata: {password: %s, token: %s, tls.key: %s}\nstringData: {p: %s}\n", b64([]byte(password)), b64([]byte(m.token)), b64(m.keyPEM), password)
	secrets := []string{password, b64([]byte(password)), m.token, m.token[strings.LastIndexByte(m.token, '.')+1:], b64(m.keyPEM)}
	for line := range strings.Lines(string(m.keyPEM)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-") {
			secrets = append(secrets, line)
		}
	}
	for name, data := range map[string]string{
		"kubeconfig": config, "secret": secret, "key": string(m.keyPEM), "token": m.token, "token cut short": m.token[:len(m.token)-9],
		"broken key": strings.Replace(string(m.keyPEM), "\n-----END", "AAAA\n-----END", 1), "broken YAML": "kind: Secret\n" + password + "\n  data: [\n",
		"embedded": string(m.kubeconfig),
	} {
		t.Run(name, func(t *testing.T) {
			d, err := inspect.Describe([]byte(data))
			text := fmt.Sprint(err)
			if err == nil {
				text += string(must(json.Marshal(d))) + strings.Join(d.Problems(), " ")
			}
			for _, s := range secrets {
				if strings.Contains(text, s) {
					t.Errorf("a secret is in %s", strings.ReplaceAll(text, s, "<SECRET>"))
				}
			}
		})
	}
}

func FuzzDescribe(f *testing.F) {
	m := newMaterial()
	for _, seed := range [][]byte{
		m.leafPEM, m.keyPEM, m.publicPEM, issue.EncodeRequest(m.request), m.leaf.Raw, m.request.Raw, m.kubeconfig, []byte(m.token), []byte(b64(m.leafPEM)),
		fmt.Appendf(nil, "kind: List\nitems:\n- kind: Secret\n  data: {a: %s}\n- kind: ConfigMap\n  data: {k: %q}\n", b64(m.leafPEM), m.kubeconfig),
		[]byte("kind: Pod\nspec: {containers: [{command: [etcd, --cert-file=/a]}]}\n"), []byte("a: &a [*a]\n"),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := inspect.Describe(data)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("the error has several lines: %q", err)
			}
			return
		}
		if _, err := json.Marshal(d); err != nil {
			t.Fatalf("the description does not encode: %v", err)
		}
		first := d.Certificates()
		if len(first) == 0 {
			return
		}
		again, err := inspect.Describe(trust.EncodeCertificates(first...))
		if err != nil {
			if len(trust.EncodeCertificates(first...)) > inspect.MaxSize || len(first) > trust.MaxBlocks {
				return // more than a file may hold, found in several
			}
			t.Fatalf("the certificates do not read again: %v", err)
		}
		second := again.Certificates()
		if len(second) != len(first) {
			t.Fatalf("%d certificates became %d", len(first), len(second))
		}
		for i := range first {
			if !first[i].Equal(second[i]) {
				t.Fatalf("certificate %d is another one", i)
			}
		}
	})
}
