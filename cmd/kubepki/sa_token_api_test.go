package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/token"
)

// accountsAPI answers what sa token asks of a cluster, as kube-apiserver and the
// controller serviceaccount-token do: lab/satoken_test.go asks those the same.
type accountsAPI struct {
	signer *token.Signer
	max    int64 // seconds that a token may live; 0: any
	idle   bool  // no controller fills Secrets

	mu      sync.Mutex
	objects map[string]metav1.Object // by path below /api/v1
}

const accountsIssuer = "https://kubernetes.default.svc.cluster.local"

// serveAccounts starts it until the script ends: accounts NAME MANIFESTS
// [max=SECONDS] [idle]. It sets the variable NAME to its URL, and writes
// NAME.conf, NAME.crt and, of a user without rights, NAME-viewer.conf.
func serveAccounts(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: accounts NAME MANIFESTS [max=SECONDS] [idle]")
	}
	key, err := issue.GenerateKey(issue.ECDSAP256)
	ts.Check(err)
	signer, err := token.NewSigner(key)
	ts.Check(err)
	api := &accountsAPI{signer: signer, objects: map[string]metav1.Object{}}
	for _, option := range args[2:] {
		if seconds, found := strings.CutPrefix(option, "max="); found {
			api.max, err = strconv.ParseInt(seconds, 10, 64)
			ts.Check(err)
		}
		api.idle = api.idle || option == "idle"
	}
	data, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	ts.Check(api.load(data))
	server := httptest.NewUnstartedServer(api)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	ts.Defer(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".crt"), ca, 0o600))
	for suffix, bearer := range map[string]string{"": "admins-own", "-viewer": "viewers-own"} {
		conf, err := layout.EncodeKubeconfig(layout.KubeconfigSpec{Cluster: "test", Server: server.URL, CA: ca, User: "user", Token: bearer})
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[0]+suffix+".conf"), conf, 0o600))
	}
	ts.Setenv(args[0], server.URL)
}

func (a *accountsAPI) load(manifests []byte) error {
	for document := range bytes.SplitSeq(manifests, []byte("\n---\n")) {
		o, kind, err := scheme.Codecs.UniversalDeserializer().Decode(document, nil, nil)
		if err != nil {
			return err
		}
		m := o.(metav1.Object)
		a.objects[path.Join(m.GetNamespace(), strings.ToLower(kind.Kind)+"s", m.GetName())] = m
	}
	return nil
}

// ServeHTTP is one request of a client.
func (a *accountsAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	answer, err := a.answer(w, r)
	w.Header().Set("Content-Type", "application/json")
	var status *apierrors.StatusError
	if err != nil && !errors.As(err, &status) {
		status = apierrors.NewInternalError(err)
	}
	if status != nil {
		status.ErrStatus.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
		w.WriteHeader(int(status.ErrStatus.Code))
		answer = &status.ErrStatus
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (a *accountsAPI) answer(w http.ResponseWriter, r *http.Request) (any, error) {
	at := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/api/v1/"), "namespaces/")
	parts := append(strings.Split(at, "/"), "", "", "")
	resource := schema.GroupResource{Resource: parts[1]}
	o, found := a.objects[path.Join(parts[:3]...)]
	switch {
	case r.Header.Get("Authorization") != "Bearer admins-own":
		return nil, apierrors.NewForbidden(resource, parts[2], errors.New("user viewer may not"))
	case r.Method == http.MethodPost && parts[1] == "secrets":
		return a.createSecret(r, parts[0])
	case !found:
		return nil, apierrors.NewNotFound(resource, parts[2])
	case r.Method == http.MethodPost && parts[3] == "token":
		return a.createToken(w, r, o.(*corev1.ServiceAccount))
	}
	if s, is := o.(*corev1.Secret); is && !a.idle {
		return s, a.fill(s)
	}
	return o, nil
}

func (a *accountsAPI) createToken(w http.ResponseWriter, r *http.Request, account *corev1.ServiceAccount) (any, error) {
	q := &authenticationv1.TokenRequest{}
	if err := decode(r, q); err != nil {
		return nil, err
	}
	if q.UID != "" && q.UID != account.UID {
		return nil, apierrors.NewConflict(schema.GroupResource{Resource: "TokenRequest"}, account.Name, fmt.Errorf("the UID in the token request (%s) does not match the UID of the service account (%s)", q.UID, account.UID))
	}
	now, seconds := time.Now(), *q.Spec.ExpirationSeconds
	if a.max > 0 && seconds > a.max {
		w.Header().Add("Warning", fmt.Sprintf(`299 - "requested expiration of %d seconds shortened to %d seconds"`, seconds, a.max))
		seconds = a.max
	}
	c := token.Claims{
		Issuer: accountsIssuer, Audiences: q.Spec.Audiences, ID: "one", IssuedAt: now, NotBefore: now, Expires: now.Add(time.Duration(seconds) * time.Second),
		Namespace: account.Namespace, ServiceAccount: token.Ref{Name: account.Name, UID: string(account.UID)},
	}
	if len(c.Audiences) == 0 {
		c.Audiences = []string{accountsIssuer}
	}
	if ref := q.Spec.BoundObjectRef; ref != nil {
		o, found := a.objects[path.Join(account.Namespace, strings.ToLower(ref.Kind)+"s", ref.Name)]
		if !found {
			return nil, apierrors.NewNotFound(schema.GroupResource{Resource: strings.ToLower(ref.Kind) + "s"}, ref.Name)
		}
		c.Pod = &token.Ref{Name: ref.Name, UID: string(o.GetUID())}
		w.Header().Add("Warning", `299 - "the pod is old"`)
	}
	text, err := a.signer.Sign(c)
	q.Status = authenticationv1.TokenRequestStatus{Token: text, ExpirationTimestamp: metav1.NewTime(c.Expires)}
	return q, err
}

func (a *accountsAPI) createSecret(r *http.Request, namespace string) (any, error) {
	s := &corev1.Secret{}
	if err := decode(r, s); err != nil {
		return nil, err
	}
	at := path.Join(namespace, "secrets", s.Name)
	if _, found := a.objects[at]; found {
		return nil, apierrors.NewAlreadyExists(schema.GroupResource{Resource: "secrets"}, s.Name)
	}
	a.objects[at] = s
	return s, nil
}

// fill is done after the first look, so that it is waited for.
func (a *accountsAPI) fill(s *corev1.Secret) error {
	account, found := a.objects[path.Join(s.Namespace, "serviceaccounts", s.Annotations[corev1.ServiceAccountNameKey])].(*corev1.ServiceAccount)
	switch {
	case !found || s.Data["token"] != nil:
		return nil
	case s.Labels["looked"] == "":
		s.Labels = map[string]string{"looked": "yes"}
		return nil
	}
	text, err := a.signer.Sign(token.Claims{
		Issuer: token.LegacyIssuer, Legacy: true, Namespace: s.Namespace,
		ServiceAccount: token.Ref{Name: account.Name, UID: string(account.UID)}, Secret: &token.Ref{Name: s.Name},
	})
	s.Annotations[corev1.ServiceAccountUIDKey] = string(account.UID)
	s.Data = map[string][]byte{"token": []byte(text), "namespace": []byte(s.Namespace), "ca.crt": []byte("ca")}
	return err
}
