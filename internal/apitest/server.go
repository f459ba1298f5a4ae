package apitest

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/kubepki/kubepki/internal/bootstrap"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// Answer is what becomes of requests.
type Answer string

// The answers. With Wait, a request waits until another answer is set.
const (
	Issue   Answer = "issue"
	Approve Answer = "approve" // and no signature
	Wait    Answer = "wait"
	Deny    Answer = "deny"
	Fail    Answer = "fail"
	Swap    Answer = "swap" // a certificate for somebody else
)

// Server is a running API server. Its methods are safe for concurrent use.
type Server struct {
	URL   string
	CA    []byte // PEM
	Token string // the only one that it accepts

	authority issue.Authority
	http      *httptest.Server

	mu       sync.Mutex
	answer   Answer
	lifetime time.Duration
	down     bool // answers 503
	distrust bool // takes no client certificate
	order    []string
	requests map[string]*certificatesv1.CertificateSigningRequest
	version  int
	changed  chan struct{} // closed at the next change
}

// Start starts a server on loopback that issues certificates for a day.
func Start(token string) (*Server, error) {
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	ca, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: "kubernetes"}, Authority: true, NotBefore: now.Add(-issue.Backdate), NotAfter: now.Add(time.Hour * 1000)}, key)
	if err != nil {
		return nil, err
	}
	s := &Server{
		CA: trust.EncodeCertificates(ca), Token: token, authority: issue.Authority{Certificate: ca, Key: key},
		answer: Issue, lifetime: 24 * time.Hour, requests: map[string]*certificatesv1.CertificateSigningRequest{}, changed: make(chan struct{}),
	}
	pair, err := s.serving()
	if err != nil {
		return nil, err
	}
	s.http = httptest.NewUnstartedServer(s.handler())
	s.http.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}
	s.http.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that do not trust it are part of the tests
	s.http.StartTLS()
	s.URL = s.http.URL
	return s, nil
}

// Close ends the server and every connection.
func (s *Server) Close() {
	s.http.CloseClientConnections()
	s.http.Close()
}

func (s *Server) serving() (tls.Certificate, error) {
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	c, err := issue.Sign(issue.Template{
		Subject: pkix.Name{CommonName: "kube-apiserver"}, Addresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: now.Add(-issue.Backdate), NotAfter: now.Add(time.Hour),
	}, key.Public(), s.authority)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key}, nil
}

// Answer sets what becomes of requests, those that wait among them.
func (s *Server) Answer(a Answer) { s.change(func() { s.answer = a }) }

// Lifetime sets that of certificates.
func (s *Server) Lifetime(d time.Duration) { s.change(func() { s.lifetime = d }) }

// Down makes the server answer every call with 503, or not any more.
func (s *Server) Down(yes bool) { s.change(func() { s.down = yes }) }

// Distrust makes the server take no client certificate, or any again.
func (s *Server) Distrust(yes bool) { s.change(func() { s.distrust = yes }) }

// Delete deletes all requests.
func (s *Server) Delete() {
	s.change(func() {
		s.order = nil
		s.requests = map[string]*certificatesv1.CertificateSigningRequest{}
	})
}

// Requests are copies of those that are there, in the order of their creation.
func (s *Server) Requests() []certificatesv1.CertificateSigningRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []certificatesv1.CertificateSigningRequest
	for _, name := range s.order {
		all = append(all, *s.requests[name].DeepCopy())
	}
	return all
}

// Issue makes a client certificate for a subject and its key, both PEM.
func (s *Server) Issue(subject pkix.Name, begin, end time.Time) (certificate, key []byte, err error) {
	k, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		return nil, nil, err
	}
	c, err := issue.Sign(issue.Template{Subject: subject, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, NotBefore: begin, NotAfter: end}, k.Public(), s.authority)
	if err != nil {
		return nil, nil, err
	}
	key, err = issue.EncodePrivateKey(k)
	return trust.EncodeCertificates(c), key, err
}

func (s *Server) change(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
	for _, r := range s.requests {
		s.decide(r)
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

const requestsPath = "/apis/certificates.k8s.io/v1/certificatesigningrequests"

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/namespaces/kube-public/configmaps/cluster-info", s.clusterInfo)
	mux.HandleFunc("POST /apis/authentication.k8s.io/v1/selfsubjectreviews", s.known(s.review))
	mux.HandleFunc("POST "+requestsPath, s.known(s.create))
	mux.HandleFunc("GET "+requestsPath, s.known(s.list))
	mux.HandleFunc("GET "+requestsPath+"/{name}", s.known(s.get))
	return mux
}

// known lets nobody in who is not authenticated.
func (s *Server) known(do func(http.ResponseWriter, *http.Request, authenticationv1.UserInfo)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		down := s.down
		s.mu.Unlock()
		user, ok := s.user(r)
		switch {
		case down:
			refuse(w, apierrors.NewServiceUnavailable("down for a test"))
		case !ok:
			refuse(w, apierrors.NewUnauthorized("Unauthorized"))
		default:
			do(w, r, user)
		}
	}
}

func (s *Server) user(r *http.Request) (authenticationv1.UserInfo, bool) {
	s.mu.Lock()
	distrust := s.distrust
	s.mu.Unlock()
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		id, _, _ := strings.Cut(token, ".")
		return authenticationv1.UserInfo{Username: "system:bootstrap:" + id, Groups: []string{"system:bootstrappers"}}, token == s.Token
	}
	if len(r.TLS.PeerCertificates) == 0 || distrust {
		return authenticationv1.UserInfo{}, false
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.authority.Certificate)
	c := r.TLS.PeerCertificates[0]
	_, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return authenticationv1.UserInfo{Username: c.Subject.CommonName, Groups: c.Subject.Organization}, err == nil
}

func (s *Server) clusterInfo(w http.ResponseWriter, _ *http.Request) {
	token, err := bootstrap.ParseToken(s.Token)
	var kubeconfig []byte
	if err == nil {
		kubeconfig, err = bootstrap.ClusterInfoKubeconfig(s.URL, s.CA)
	}
	signature := ""
	if err == nil {
		signature, err = bootstrap.Sign(kubeconfig, token)
	}
	if err != nil {
		refuse(w, apierrors.NewInternalError(err))
		return
	}
	answer(w, http.StatusOK, &corev1.ConfigMap{Data: map[string]string{
		"kubeconfig": string(kubeconfig), bootstrap.SignatureKey(token.ID()): signature,
	}})
}

func (s *Server) review(w http.ResponseWriter, _ *http.Request, user authenticationv1.UserInfo) {
	answer(w, http.StatusCreated, &authenticationv1.SelfSubjectReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "SelfSubjectReview"},
		Status:   authenticationv1.SelfSubjectReviewStatus{UserInfo: user},
	})
}

var resource = schema.GroupResource{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}

func notFound(name string) *apierrors.StatusError { return apierrors.NewNotFound(resource, name) }

func refuse(w http.ResponseWriter, e *apierrors.StatusError) {
	e.ErrStatus.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	answer(w, int(e.ErrStatus.Code), &e.ErrStatus)
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // a client that is gone needs no answer
}

// read decodes what clients send: protobuf, or JSON.
func read(r *http.Request, into runtime.Object) error {
	data, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return err
	}
	_, _, err = scheme.Codecs.UniversalDeserializer().Decode(data, nil, into)
	return err
}
