package apitest

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

var kind = metav1.TypeMeta{APIVersion: "certificates.k8s.io/v1", Kind: "CertificateSigningRequest"}

func (s *Server) create(w http.ResponseWriter, r *http.Request, user authenticationv1.UserInfo) {
	var o certificatesv1.CertificateSigningRequest
	if err := read(r, &o); err != nil {
		refuse(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	if _, err := issue.ParseRequest(o.Spec.Request); err != nil {
		refuse(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	exists := false
	s.change(func() {
		if _, exists = s.requests[o.Name]; exists {
			return
		}
		s.version++
		o.TypeMeta, o.UID, o.CreationTimestamp = kind, types.UID(fmt.Sprint("uid-", s.version)), metav1.Now()
		o.Spec.Username, o.Spec.Groups = user.Username, user.Groups
		s.order = append(s.order, o.Name)
		s.requests[o.Name] = &o
		s.decide(&o)
	})
	if exists {
		refuse(w, apierrors.NewAlreadyExists(resource, o.Name))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	answer(w, http.StatusCreated, &o)
}

// decide answers a request that has no answer yet. The lock is held.
func (s *Server) decide(o *certificatesv1.CertificateSigningRequest) {
	s.version++
	o.ResourceVersion = strconv.Itoa(s.version)
	if len(o.Status.Certificate) > 0 {
		return
	}
	set := func(t certificatesv1.RequestConditionType, message string) {
		o.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: t, Status: corev1.ConditionTrue, Reason: "ByTest", Message: message}}
	}
	switch s.answer {
	case Deny:
		set(certificatesv1.CertificateDenied, "not this one")
	case Fail:
		set(certificatesv1.CertificateFailed, "the signer is ill")
	case Approve:
		set(certificatesv1.CertificateApproved, "")
	case Issue, Swap:
		set(certificatesv1.CertificateApproved, "")
		o.Status.Certificate = s.sign(o)
	case Wait:
	}
}

func (s *Server) sign(o *certificatesv1.CertificateSigningRequest) []byte {
	r, err := issue.ParseRequest(o.Spec.Request)
	if err != nil {
		panic(err) // was parsed before
	}
	subject := r.Subject
	if s.answer == Swap {
		subject.CommonName = "system:node:somebody-else"
	}
	now := time.Now()
	c, err := issue.Sign(issue.Template{
		Subject: subject, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, NotBefore: now.Add(-issue.Backdate), NotAfter: now.Add(s.lifetime),
	}, r.PublicKey, s.authority)
	if err != nil {
		panic(err) // a test's own subject
	}
	return trust.EncodeCertificates(c)
}

func (s *Server) get(w http.ResponseWriter, r *http.Request, _ authenticationv1.UserInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.requests[r.PathValue("name")]
	if !ok {
		refuse(w, notFound(r.PathValue("name")))
		return
	}
	answer(w, http.StatusOK, o)
}

func (s *Server) list(w http.ResponseWriter, r *http.Request, _ authenticationv1.UserInfo) {
	name := strings.TrimPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	if r.URL.Query().Get("watch") != "" {
		s.watch(w, r, name)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list := certificatesv1.CertificateSigningRequestList{TypeMeta: metav1.TypeMeta{APIVersion: kind.APIVersion, Kind: kind.Kind + "List"}}
	list.ResourceVersion = strconv.Itoa(s.version)
	if o, ok := s.requests[name]; ok {
		list.Items = append(list.Items, *o)
	}
	answer(w, http.StatusOK, &list)
}

// watch streams the states of one request, as reflectors ask for them: from a
// list, or with the initial events.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, name string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	encoder := json.NewEncoder(w)
	send := func(event string, o any) {
		_ = encoder.Encode(map[string]any{"type": event, "object": o}) // see answer
		w.(http.Flusher).Flush()
	}
	sent := r.URL.Query().Get("resourceVersion")
	there := sent != "" && r.URL.Query().Get("sendInitialEvents") == ""
	initial := !there
	for {
		s.mu.Lock()
		o, ok := s.requests[name]
		if ok {
			o = o.DeepCopy()
		}
		version, changed := strconv.Itoa(s.version), s.changed
		s.mu.Unlock()
		switch {
		case ok && !there:
			send("ADDED", o)
		case ok && o.ResourceVersion != sent:
			send("MODIFIED", o)
		case !ok && there:
			send("DELETED", &certificatesv1.CertificateSigningRequest{TypeMeta: kind, ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: version}})
		}
		if there = ok; ok {
			sent = o.ResourceVersion
		}
		if initial {
			initial = false
			send("BOOKMARK", &certificatesv1.CertificateSigningRequest{TypeMeta: kind, ObjectMeta: metav1.ObjectMeta{
				ResourceVersion: version, Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"},
			}})
		}
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		}
	}
}
