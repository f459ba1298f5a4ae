package main

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// apiServer serves the few paths of the API that csr needs, over TLS, to
// clients that show certificates of its authority. What it keeps is what the
// real one would: lab/csr_cli_test.go does the same with that.
type apiServer struct {
	authority issue.Authority
	url       string

	mu       sync.Mutex
	requests map[string]*certificatesv1.CertificateSigningRequest
	nodes    []corev1.Node
	revision int
	// conflicts is how many approvals are answered with a conflict.
	conflicts int
	pages     int // lists of requests that were answered
	// forge changes what is signed: a signer that cannot be trusted.
	forge func(*issue.Template)
}

var csrResource = schema.GroupResource{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}

func newAPIServer() (*apiServer, error) {
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		return nil, err
	}
	c, err := issue.SelfSign(issue.Template{
		Subject: pkix.Name{CommonName: "kubernetes"}, Authority: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour * 24 * 365),
	}, key)
	return &apiServer{authority: issue.Authority{Certificate: c, Key: key}, requests: map[string]*certificatesv1.CertificateSigningRequest{}}, err
}

// leaf makes a certificate of the server's authority.
func (a *apiServer) leaf(t issue.Template) (*x509.Certificate, crypto.Signer, error) {
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		return nil, nil, err
	}
	t.NotBefore, t.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	c, err := issue.Sign(t, key.Public(), a.authority)
	return c, key, err
}

// start serves on loopback, and returns the URL.
func (a *apiServer) start() (url string, stop func(), err error) {
	c, key, err := a.leaf(issue.Template{Subject: pkix.Name{CommonName: "kube-apiserver"}, Addresses: []net.IP{net.IPv4(127, 0, 0, 1)}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return "", nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.authority.Certificate)
	server := httptest.NewUnstartedServer(a)
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{c.Raw}, PrivateKey: key}},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}
	server.StartTLS()
	a.url = server.URL
	return server.URL, server.Close, nil
}

// kubeconfig makes one of a user.
func (a *apiServer) kubeconfig(url, user string, groups ...string) ([]byte, error) {
	c, key, err := a.leaf(issue.Template{Subject: pkix.Name{CommonName: user, Organization: groups}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return nil, err
	}
	keyPEM, err := issue.EncodePrivateKey(key)
	if err != nil {
		return nil, err
	}
	return layout.EncodeKubeconfig(layout.KubeconfigSpec{
		Cluster: "test", Server: url, CA: trust.EncodeCertificates(a.authority.Certificate), User: user,
		Certificate: trust.EncodeCertificates(c), Key: keyPEM,
	})
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	answer, err := a.answer(r)
	var status *apierrors.StatusError
	if err != nil && !errors.As(err, &status) {
		status = apierrors.NewInternalError(err)
	}
	w.Header().Set("Content-Type", "application/json")
	if status != nil {
		w.WriteHeader(int(status.ErrStatus.Code))
		status.ErrStatus.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
		answer = &status.ErrStatus
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (a *apiServer) answer(r *http.Request) (any, error) {
	const requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
	name, subresource, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, requests), "/"), "/")
	user := r.TLS.PeerCertificates[0].Subject
	switch {
	case r.Method == http.MethodGet && r.URL.Path == "/api/v1/nodes":
		return &corev1.NodeList{Items: a.nodes}, nil
	case r.Method == http.MethodGet && r.URL.Path == "/apis/networking.k8s.io/v1/servicecidrs":
		return &networkingv1.ServiceCIDRList{Items: []networkingv1.ServiceCIDR{{Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.111.0.0/16"}}}}}, nil
	case r.Method == http.MethodGet && r.URL.Path == "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices":
		return &discoveryv1.EndpointSliceList{}, nil
	case r.Method == http.MethodPost && r.URL.Path == "/apis/authorization.k8s.io/v1/subjectaccessreviews":
		return a.reviewAccess(r)
	case r.Method == http.MethodPost && r.URL.Path == "/apis/authentication.k8s.io/v1/selfsubjectreviews":
		return &authenticationv1.SelfSubjectReview{Status: authenticationv1.SelfSubjectReviewStatus{UserInfo: authenticationv1.UserInfo{
			Username: user.CommonName, Groups: append(slices.Clone(user.Organization), "system:authenticated"),
		}}}, nil
	case !strings.HasPrefix(r.URL.Path, requests):
		return nil, apierrors.NewNotFound(schema.GroupResource{}, r.URL.Path)
	case r.Method == http.MethodGet && name == "":
		return a.list(r)
	case r.Method == http.MethodGet && subresource == "":
		return a.get(name)
	case r.Method == http.MethodPost && name == "":
		return a.create(r, user)
	case r.Method == http.MethodPut && subresource == "approval":
		return a.approve(r, name, user)
	}
	return nil, apierrors.NewMethodNotSupported(csrResource, r.Method)
}

func decode(r *http.Request, into runtime.Object) error {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	_, _, err = scheme.Codecs.UniversalDeserializer().Decode(data, nil, into)
	return err
}

// reviewAccess knows kubeadm's bindings.
func (a *apiServer) reviewAccess(r *http.Request) (any, error) {
	review := &authorizationv1.SubjectAccessReview{}
	if err := decode(r, review); err != nil {
		return nil, err
	}
	group := map[string]string{"nodeclient": "system:bootstrappers", "selfnodeclient": "system:nodes"}[review.Spec.ResourceAttributes.Subresource]
	review.Status.Allowed = slices.Contains(review.Spec.Groups, group)
	return review, nil
}

func (a *apiServer) get(name string) (*certificatesv1.CertificateSigningRequest, error) {
	o, ok := a.requests[name]
	if !ok {
		return nil, apierrors.NewNotFound(csrResource, name)
	}
	return o, nil
}

// list answers in pages, by name.
func (a *apiServer) list(r *http.Request) (any, error) {
	a.pages++
	query := r.URL.Query()
	signer := strings.TrimPrefix(query.Get("fieldSelector"), "spec.signerName=")
	limit, _ := strconv.Atoi(query.Get("limit"))
	var names []string
	for name, o := range a.requests {
		if name > query.Get("continue") && (signer == "" || signer == o.Spec.SignerName) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	list := &certificatesv1.CertificateSigningRequestList{Items: []certificatesv1.CertificateSigningRequest{}}
	if limit > 0 && len(names) > limit {
		names = names[:limit]
		list.Continue = names[limit-1]
	}
	for _, name := range names {
		list.Items = append(list.Items, *a.requests[name])
	}
	return list, nil
}

func (a *apiServer) create(r *http.Request, user pkix.Name) (any, error) {
	o := &certificatesv1.CertificateSigningRequest{}
	if err := decode(r, o); err != nil {
		return nil, err
	}
	if _, ok := a.requests[o.Name]; ok {
		return nil, apierrors.NewAlreadyExists(csrResource, o.Name)
	}
	o.Spec.Username, o.Spec.Groups = user.CommonName, append(slices.Clone(user.Organization), "system:authenticated")
	if r.URL.Query().Get("dryRun") == "" {
		a.add(o)
	}
	return o, nil
}

func (a *apiServer) add(o *certificatesv1.CertificateSigningRequest) {
	a.revision++
	o.UID, o.ResourceVersion = types.UID(fmt.Sprintf("uid-%d", a.revision)), strconv.Itoa(a.revision)
	if o.CreationTimestamp.IsZero() {
		o.CreationTimestamp = metav1.NewTime(time.Now().Add(-3 * time.Minute))
	}
	a.requests[o.Name] = o
}

// approve lets all but viewers in, and then signs for the signer of clients.
func (a *apiServer) approve(r *http.Request, name string, user pkix.Name) (any, error) {
	o := &certificatesv1.CertificateSigningRequest{}
	if err := decode(r, o); err != nil {
		return nil, err
	}
	have, err := a.get(name)
	switch {
	case err != nil:
		return nil, err
	case user.CommonName == "viewer":
		return nil, apierrors.NewForbidden(csrResource, name, fmt.Errorf("user %q may not approve", user.CommonName))
	case a.conflicts > 0:
		a.conflicts--
		return nil, apierrors.NewConflict(csrResource, name, fmt.Errorf("somebody else was faster"))
	case o.ResourceVersion != have.ResourceVersion:
		return nil, apierrors.NewConflict(csrResource, name, fmt.Errorf("it is at %s", have.ResourceVersion))
	case r.URL.Query().Get("dryRun") != "":
		return o, nil
	}
	a.revision++
	next := have.DeepCopy()
	next.ResourceVersion, next.Status.Conditions = strconv.Itoa(a.revision), o.Status.Conditions
	a.requests[name] = next
	if next.Spec.SignerName == certificatesv1.KubeAPIServerClientSignerName && next.Status.Conditions[0].Type == certificatesv1.CertificateApproved {
		next.Status.Certificate, err = a.sign(next)
	}
	return next, err
}

func (a *apiServer) sign(o *certificatesv1.CertificateSigningRequest) ([]byte, error) {
	asked, err := issue.ParseRequest(o.Spec.Request)
	if err != nil {
		return nil, err
	}
	life := time.Hour
	if o.Spec.ExpirationSeconds != nil {
		life = time.Duration(*o.Spec.ExpirationSeconds) * time.Second
	}
	t := issue.Template{
		Subject: asked.Subject, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore: time.Now().Add(-issue.Backdate), NotAfter: time.Now().Add(life),
	}
	if a.forge != nil {
		a.forge(&t)
	}
	c, err := issue.Sign(t, asked.PublicKey, a.authority)
	if err != nil {
		return nil, err
	}
	return trust.EncodeCertificates(c), nil
}

// apiServers are those of scripts, by the test that runs.
type apiServers struct{ all sync.Map }

// start is the command apiserver [NODES-AND-REQUESTS...]: it starts a server
// until the script ends, and writes admin.conf and viewer.conf.
func (all *apiServers) start(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: apiserver [FILE...]")
	}
	a, err := newAPIServer()
	ts.Check(err)
	url, stop, err := a.start()
	ts.Check(err)
	ts.Defer(stop)
	for _, name := range args {
		data, err := os.ReadFile(ts.MkAbs(name))
		ts.Check(err)
		ts.Check(a.load(data))
	}
	all.all.Store(ts.Name(), a)
	ts.Defer(func() { all.all.Delete(ts.Name()) })
	for _, user := range []string{"admin", "viewer"} {
		data, err := a.kubeconfig(url, user, "staff")
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(user+".conf"), data, 0o600))
	}
	ts.Setenv("KUBECONFIG", ts.MkAbs("admin.conf"))
}

func (a *apiServer) load(data []byte) error {
	for document := range strings.SplitSeq(string(data), "\n---\n") {
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode([]byte(document), nil, nil)
		if err != nil {
			return err
		}
		switch o := o.(type) {
		case *corev1.Node:
			a.nodes = append(a.nodes, *o)
		case *certificatesv1.CertificateSigningRequest:
			a.add(o)
		default:
			return fmt.Errorf("%T is not for this server", o)
		}
	}
	return nil
}

// conflict is the command conflict N: the next approvals meet another writer.
func (all *apiServers) conflict(ts *testscript.TestScript, neg bool, args []string) {
	a, ok := all.all.Load(ts.Name())
	if neg || !ok || len(args) != 1 {
		ts.Fatalf("usage: conflict N, after apiserver")
	}
	server := a.(*apiServer)
	server.mu.Lock()
	defer server.mu.Unlock()
	var err error
	server.conflicts, err = strconv.Atoi(args[0])
	ts.Check(err)
}

// request is the command request FILE KEY=VALUE...: it writes a
// CertificateSigningRequest. Keys: name, signer, user, group, cn, o, dns, ip,
// usage, state, and key for the file of its private key, which is made where
// there is none; those of lists may be repeated.
func request(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: request FILE KEY=VALUE...")
	}
	values := map[string][]string{}
	for _, arg := range args[1:] {
		key, value, _ := strings.Cut(arg, "=")
		values[key] = append(values[key], value)
	}
	key, err := keyOf(ts, append(values["key"], "")[0])
	ts.Check(err)
	o, err := makeRequest(values, key)
	ts.Check(err)
	data, err := runtime.Encode(scheme.Codecs.LegacyCodec(certificatesv1.SchemeGroupVersion), o)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o644))
}

func keyOf(ts *testscript.TestScript, name string) (crypto.Signer, error) {
	if data, err := os.ReadFile(ts.MkAbs(name)); name != "" && err == nil {
		return issue.ParsePrivateKey(data)
	}
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil || name == "" {
		return key, err
	}
	data, err := issue.EncodePrivateKey(key)
	ts.Check(err)
	return key, os.WriteFile(ts.MkAbs(name), data, 0o600)
}

func makeRequest(values map[string][]string, key crypto.Signer) (*certificatesv1.CertificateSigningRequest, error) {
	first := func(key string) string { return append(values[key], "")[0] }
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: first("cn"), Organization: values["o"]}, DNSNames: values["dns"]}
	for _, ip := range values["ip"] {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	data, err := encodeRequest(template, key)
	if err != nil {
		return nil, err
	}
	o := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: first("name")},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: data, SignerName: first("signer"), Username: first("user"), Groups: values["group"],
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature},
		},
	}
	for _, u := range values["usage"] {
		o.Spec.Usages = append(o.Spec.Usages, certificatesv1.KeyUsage(u))
	}
	if state := first("state"); state != "" {
		o.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.RequestConditionType(state), Status: corev1.ConditionTrue}}
	}
	return o, nil
}

// TestListIsReadInPages of some hundreds, however many requests there are.
func TestListIsReadInPages(t *testing.T) {
	a, err := newAPIServer()
	if err != nil {
		t.Fatal(err)
	}
	url, stop, err := a.start()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	config, err := a.kubeconfig(url, "admin")
	if err != nil {
		t.Fatal(err)
	}
	file := t.TempDir() + "/admin.conf"
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	one, err := makeRequest(map[string][]string{"cn": {"jane"}, "signer": {certificatesv1.KubeAPIServerClientSignerName}}, a.authority.Key)
	if err != nil {
		t.Fatal(err)
	}
	const many = 2345
	for i := range many {
		o := one.DeepCopy()
		o.Name = fmt.Sprintf("csr-%05d", i)
		a.add(o)
	}
	for _, output := range []string{"table", "wide", "name", "json", "yaml"} {
		var out, talk strings.Builder
		a.pages = 0
		if code := run(t.Context(), []string{"csr", "list", "--kubeconfig", file, "-o", output}, streams{out: &out, err: &talk}); code != exitDone {
			t.Fatalf("-o %s ended with %d: %s", output, code, talk.String())
		}
		if got := strings.Count(out.String(), "csr-0"); got != many {
			t.Errorf("-o %s names %d requests, want %d", output, got, many)
		}
		if a.pages != 5 {
			t.Errorf("-o %s asked for %d pages, want 5", output, a.pages)
		}
		if output == "json" && !json.Valid([]byte(out.String())) {
			t.Error("-o json is no JSON")
		}
	}
}

func encodeRequest(template *x509.CertificateRequest, key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: trust.RequestType, Bytes: der}), nil
}
