package podcert_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/podcert"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 123, time.UTC)

func generate(t testing.TB, a issue.Algorithm) crypto.Signer {
	t.Helper()
	key, err := issue.GenerateKey(a)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// stub is a request for a certificate as kubelets since 1.36 make it: empty.
func stub(t testing.TB, key crypto.Signer, template x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func pkixKey(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// prove signs a UID as k8s.io/api/certificates/v1beta1 describes.
func prove(t testing.TB, key crypto.Signer, uid string) []byte {
	t.Helper()
	sum := sha256.Sum256([]byte(uid))
	message, options := sum[:], crypto.SignerOpts(crypto.SHA256)
	switch key.(type) {
	case *rsa.PrivateKey:
		options = &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: rsa.PSSSaltLengthAuto}
	case *ecdsa.PrivateKey:
	default:
		message, options = []byte(uid), crypto.Hash(0)
	}
	proof, err := key.Sign(rand.Reader, message, options)
	if err != nil {
		t.Fatal(err)
	}
	return proof
}

// world is a request, and what is known about it.
type world struct {
	request podcert.Request
	facts   podcert.Facts
	policy  podcert.Policy
	key     crypto.Signer
}

// good is a request that is issued.
func good(t testing.TB) *world {
	key := generate(t, issue.ECDSAP256)
	return &world{
		key: key,
		request: podcert.Request{
			Namespace: "shop", Name: "req-1", SignerName: podcert.DefaultSignerName,
			Pod:                  podcert.Reference{Name: "web-0", UID: "pod-uid"},
			ServiceAccount:       podcert.Reference{Name: "web", UID: "account-uid"},
			Node:                 podcert.Reference{Name: "n1", UID: "node-uid"},
			MaxExpirationSeconds: seconds(86400),
			PKCS10:               stub(t, key, x509.CertificateRequest{}),
		},
		facts: podcert.Facts{
			Pod:               &podcert.Pod{UID: "pod-uid", ServiceAccount: "web", Node: "n1", Signers: []string{podcert.DefaultSignerName}},
			ServiceAccountUID: "account-uid", NodeUID: "node-uid",
		},
		policy: podcert.DefaultPolicy("example.org"),
	}
}

func seconds(n int32) *int32 { return &n }

// use gives the request another key, in the way of kubelets before 1.36.
func (w *world) use(t testing.TB, key crypto.Signer) {
	w.key, w.request.PKCS10 = key, nil
	w.request.PublicKey, w.request.ProofOfPossession = pkixKey(t, key), prove(t, key, w.request.Pod.UID)
}

func (w *world) decide() podcert.Review { return podcert.Decide(w.request, w.facts, w.policy) }

func curve(t testing.TB, c elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestOneThingChangedInAGoodRequest(t *testing.T) {
	if r := good(t).decide(); r.Verdict != podcert.Issue {
		t.Fatalf("a good request: %+v", r)
	}
	rsa2048, rsa3072 := generate(t, issue.RSA2048), generate(t, issue.RSA3072)
	for name, c := range map[string]struct {
		change func(*world)
		want   podcert.Verdict
		id     string
	}{
		"a key of RSA-2048":                          {func(w *world) { w.use(t, rsa2048) }, podcert.Deny, "UnsupportedKeyType"},
		"a stub with a key of RSA-2048":              {func(w *world) { w.request.PKCS10 = stub(t, rsa2048, x509.CertificateRequest{}) }, podcert.Deny, "UnsupportedKeyType"},
		"a key of RSA-3072":                          {func(w *world) { w.use(t, rsa3072) }, podcert.Issue, podcert.Issued},
		"a stub with a key of RSA-3072":              {func(w *world) { w.request.PKCS10 = stub(t, rsa3072, x509.CertificateRequest{}) }, podcert.Issue, podcert.Issued},
		"a key of P-256":                             {func(w *world) { w.use(t, curve(t, elliptic.P256())) }, podcert.Issue, podcert.Issued},
		"a key of P-384":                             {func(w *world) { w.use(t, curve(t, elliptic.P384())) }, podcert.Issue, podcert.Issued},
		"a key of P-521":                             {func(w *world) { w.use(t, curve(t, elliptic.P521())) }, podcert.Issue, podcert.Issued},
		"a key of P-224":                             {func(w *world) { w.use(t, curve(t, elliptic.P224())) }, podcert.Deny, "UnsupportedKeyType"},
		"a key of Ed25519":                           {func(w *world) { w.use(t, generate(t, issue.Ed25519)) }, podcert.Issue, podcert.Issued},
		"a key type that the policy leaves out":      {func(w *world) { w.policy.KeyTypes = []string{"ED25519"} }, podcert.Deny, "UnsupportedKeyType"},
		"an RSA key with the exponent 3":             {func(w *world) { w.request.PKCS10, w.request.PublicKey = nil, smallExponent(t, rsa3072) }, podcert.Deny, "UnsupportedKeyType"},
		"no key, which v1 does not show":             {func(w *world) { w.request.PKCS10 = nil }, podcert.Undecided, podcert.KeyNotSeen},
		"a stub that is not DER":                     {func(w *world) { w.request.PKCS10 = []byte("nothing") }, podcert.Deny, podcert.InvalidKey},
		"data after the stub":                        {func(w *world) { w.request.PKCS10 = append(w.request.PKCS10, 0) }, podcert.Deny, podcert.InvalidKey},
		"a stub that another key signed":             {func(w *world) { w.request.PKCS10[len(w.request.PKCS10)-1] ^= 1 }, podcert.Deny, podcert.InvalidKey},
		"a proof for another pod":                    {func(w *world) { w.use(t, w.key); w.request.ProofOfPossession = prove(t, w.key, "other") }, podcert.Deny, podcert.InvalidKey},
		"a proof by RSA for another pod":             {func(w *world) { w.use(t, rsa3072); w.request.ProofOfPossession = prove(t, rsa3072, "other") }, podcert.Deny, podcert.InvalidKey},
		"no proof":                                   {func(w *world) { w.use(t, w.key); w.request.ProofOfPossession = nil }, podcert.Deny, podcert.InvalidKey},
		"the authority's own key":                    {func(w *world) { w.facts.AuthorityKey = w.key.Public() }, podcert.Deny, podcert.InvalidKey},
		"another key than the authority's":           {func(w *world) { w.facts.AuthorityKey = rsa2048.Public() }, podcert.Issue, podcert.Issued},
		"a stub that asks for names":                 {func(w *world) { w.request.PKCS10 = stub(t, w.key, greedy()) }, podcert.Issue, podcert.Issued},
		"a user annotation":                          {func(w *world) { w.request.Annotations = map[string]string{"example.org/a": "b"} }, podcert.Deny, "InvalidUnverifiedUserAnnotations"},
		"an empty map of annotations":                {func(w *world) { w.request.Annotations = map[string]string{} }, podcert.Issue, podcert.Issued},
		"a life below an hour":                       {func(w *world) { w.request.MaxExpirationSeconds = seconds(3599) }, podcert.Deny, podcert.InvalidExpiration},
		"a life of an hour":                          {func(w *world) { w.request.MaxExpirationSeconds = seconds(3600) }, podcert.Issue, podcert.Issued},
		"a life that is not given":                   {func(w *world) { w.request.MaxExpirationSeconds = nil }, podcert.Issue, podcert.Issued},
		"a life of years, which will be shortened":   {func(w *world) { w.request.MaxExpirationSeconds = seconds(1 << 30) }, podcert.Issue, podcert.Issued},
		"a negative life":                            {func(w *world) { w.request.MaxExpirationSeconds = seconds(-1) }, podcert.Deny, podcert.InvalidExpiration},
		"another signer":                             {func(w *world) { w.request.SignerName = "kubernetes.io/kube-apiserver-client-pod" }, podcert.Undecided, podcert.OtherSigner},
		"a pod of the signer's namespace":            {func(w *world) { w.policy.Namespace = w.request.Namespace }, podcert.Issue, podcert.Issued},
		"a pod of another namespace than the signer": {func(w *world) { w.policy.Namespace = "other" }, podcert.Deny, podcert.OtherNamespace},
		"no pod":                                     {func(w *world) { w.facts.Pod = nil }, podcert.Deny, podcert.PodGone},
		"a new pod of the same name":                 {func(w *world) { w.facts.Pod.UID = "new" }, podcert.Deny, podcert.PodGone},
		"a pod without UID":                          {func(w *world) { w.facts.Pod.UID, w.request.Pod.UID = "", "" }, podcert.Deny, podcert.PodGone},
		"a static pod":                               {func(w *world) { w.facts.Pod.Mirror = true }, podcert.Deny, podcert.PodIsMirror},
		"a pod on another node":                      {func(w *world) { w.facts.Pod.Node = "n2" }, podcert.Deny, podcert.PodNotOnNode},
		"a pod on no node":                           {func(w *world) { w.facts.Pod.Node, w.request.Node.Name = "", "" }, podcert.Deny, podcert.PodNotOnNode},
		"a pod of another service account":           {func(w *world) { w.facts.Pod.ServiceAccount = "admin" }, podcert.Deny, podcert.OtherServiceAccount},
		"a pod that has ended":                       {func(w *world) { w.facts.Pod.Finished = true }, podcert.Deny, podcert.PodFinished},
		"a pod that mounts another signer's":         {func(w *world) { w.facts.Pod.Signers = []string{"example.org/other"} }, podcert.Deny, podcert.SignerNotMounted},
		"a pod that mounts two signers'":             {func(w *world) { w.facts.Pod.Signers = []string{"example.org/other", podcert.DefaultSignerName} }, podcert.Issue, podcert.Issued},
		"a pod that mounts nothing, where it may":    {func(w *world) { w.facts.Pod.Signers, w.policy.AllowUnmounted = nil, true }, podcert.Issue, podcert.Issued},
		"no service account":                         {func(w *world) { w.facts.ServiceAccountUID = "" }, podcert.Undecided, podcert.ServiceAccountGone},
		"a service account made anew":                {func(w *world) { w.facts.ServiceAccountUID = "new" }, podcert.Undecided, podcert.ServiceAccountGone},
		"neither side knows the service account":     {func(w *world) { w.facts.ServiceAccountUID, w.request.ServiceAccount.UID = "", "" }, podcert.Undecided, podcert.ServiceAccountGone},
		"no node":                                    {func(w *world) { w.facts.NodeUID = "" }, podcert.Undecided, podcert.NodeGone},
		"a node made anew":                           {func(w *world) { w.facts.NodeUID = "new" }, podcert.Undecided, podcert.NodeGone},
		"neither side knows the node":                {func(w *world) { w.facts.NodeUID, w.request.Node.UID = "", "" }, podcert.Undecided, podcert.NodeGone},
		"a sure violation while a fact is missing":   {func(w *world) { w.facts.NodeUID, w.facts.Pod.Mirror = "", true }, podcert.Deny, podcert.PodIsMirror},
		"a service account that is no path segment":  {func(w *world) { w.request.ServiceAccount.Name, w.facts.Pod.ServiceAccount = "..", ".." }, podcert.Deny, podcert.InvalidIdentity},
		"a namespace that would end the path":        {func(w *world) { w.request.Namespace = "a/sa/b" }, podcert.Deny, podcert.InvalidIdentity},
		"a service account with a name that escapes": {func(w *world) { w.request.ServiceAccount.Name, w.facts.Pod.ServiceAccount = "a%2fb", "a%2fb" }, podcert.Deny, podcert.InvalidIdentity},
	} {
		t.Run(name, func(t *testing.T) {
			w := good(t)
			c.change(w)
			if got := w.decide(); got.Verdict != c.want || got.ID != c.id {
				t.Errorf("got %+v; want %s, %s", got, c.want, c.id)
			}
		})
	}
}

// greedy asks for what nobody gets by asking.
func greedy() x509.CertificateRequest {
	return x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "system:admin", Organization: []string{"system:masters"}}, DNSNames: []string{"kubernetes"},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/ns/kube-system/sa/admin"}},
	}
}

func smallExponent(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	k := *key.Public().(*rsa.PublicKey)
	k.E = 3
	der, err := x509.MarshalPKIXPublicKey(&k)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestPoliciesThatCannotBe(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*podcert.Policy)
		want   string
	}{
		"the default":                       {func(*podcert.Policy) {}, ""},
		"a signer of its own":               {func(p *podcert.Policy) { p.SignerName = "pki.example.org/pods.v1" }, ""},
		"Kubernetes' own signer":            {func(p *podcert.Policy) { p.SignerName = "kubernetes.io/kube-apiserver-client-pod" }, "reserved"},
		"a signer below kubernetes.io":      {func(p *podcert.Policy) { p.SignerName = "x.kubernetes.io/pod" }, "reserved"},
		"a signer beside kubernetes.io":     {func(p *podcert.Policy) { p.SignerName = "mykubernetes.io/pod" }, ""},
		"a signer without a domain":         {func(p *podcert.Policy) { p.SignerName = "pod" }, "DOMAIN/NAME"},
		"a signer of a domain of one label": {func(p *podcert.Policy) { p.SignerName = "cluster/pod" }, "DOMAIN/NAME"},
		"a signer with two slashes":         {func(p *podcert.Policy) { p.SignerName = "a.b/c/d" }, "DOMAIN/NAME"},
		"a signer with large letters":       {func(p *podcert.Policy) { p.SignerName = "a.b/Pod" }, "DOMAIN/NAME"},
		"no trust domain":                   {func(p *podcert.Policy) { p.TrustDomain = "" }, "trust domain"},
		"a trust domain with large letters": {func(p *podcert.Policy) { p.TrustDomain = "Example.org" }, "trust domain"},
		"a trust domain with a port":        {func(p *podcert.Policy) { p.TrustDomain = "example.org:1" }, "trust domain"},
		"an ID for a trust domain":          {func(p *podcert.Policy) { p.TrustDomain = "spiffe://example.org" }, "the name alone"},
		"a path in the trust domain":        {func(p *podcert.Policy) { p.TrustDomain = "spiffe://example.org/a" }, "the name alone"},
		"a life of an hour":                 {func(p *podcert.Policy) { p.MaxLife = time.Hour }, ""},
		"a life below an hour":              {func(p *podcert.Policy) { p.MaxLife = time.Hour - 1 }, "1h0m0s"},
		"a life above 91 days":              {func(p *podcert.Policy) { p.MaxLife = podcert.MaxLife + 1 }, "2184h0m0s"},
		"no life":                           {func(p *podcert.Policy) { p.MaxLife = 0 }, "1h0m0s"},
		"no key type":                       {func(p *podcert.Policy) { p.KeyTypes = nil }, "no key type"},
		"a key type that is too weak":       {func(p *podcert.Policy) { p.KeyTypes = []string{"RSA2048"} }, "RSA2048"},
	} {
		p := podcert.DefaultPolicy("example.org")
		c.change(&p)
		err := p.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}

func TestSerialNumbersAreLargeAndDiffer(t *testing.T) {
	w, seen := good(t), map[string]bool{}
	a := root(t, func(*x509.Certificate) {})
	widest := new(big.Int)
	for range 50 {
		c, err := podcert.Sign(w.request, w.policy, a, now)
		if err != nil {
			t.Fatal(err)
		}
		n := c.Leaf.SerialNumber
		if seen[n.String()] || n.Sign() <= 0 || n.BitLen() > 159 {
			t.Errorf("serial number %s", n)
		}
		if seen[n.String()] = true; n.Cmp(widest) > 0 {
			widest = n
		}
	}
	if widest.BitLen() < 150 { // of fifty numbers of 159 bits, with a chance of 2^-400
		t.Errorf("the largest serial number has %d bits", widest.BitLen())
	}
}
