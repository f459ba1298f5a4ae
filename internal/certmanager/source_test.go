package certmanager

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// authoritySecret is a Secret with an authority that signs itself.
func authoritySecret(t *testing.T, name string) corev1.Secret {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	check(t, err)
	c, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: name}, Authority: true, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour)}, key)
	check(t, err)
	text, err := issue.EncodePrivateKey(key)
	check(t, err)
	return corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Name: "ca"},
		Data: map[string][]byte{"tls.key": text, "tls.crt": trust.EncodeCertificates(c)}}
}

// replace writes an object again, or removes it, as somebody else.
func (a *api) replace(t *testing.T, path, kind string, object any) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	o := clone(a.objects[path])
	if object != nil {
		data, err := json.Marshal(object)
		check(t, err)
		var more map[string]any
		check(t, json.Unmarshal(data, &more))
		for _, field := range []string{"data", "spec"} {
			if more[field] != nil {
				o[field] = more[field]
			}
		}
	}
	a.put(path, kind, o)
}

func TestTheAuthorityOfAnIssuerIsFollowed(t *testing.T) {
	a := newAPI(t)
	client, err := NewClient(a.config())
	check(t, err)
	var told sync.Map
	s := &IssuerSource{Client: client, Namespace: "n", Name: "ca", Told: func(c *x509.Certificate, err error) {
		if err == nil {
			told.Store(c.Subject.CommonName, true)
		}
	}}
	if _, err := s.Authority(); err == nil {
		t.Error("there is an authority before anything was read")
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { check(t, s.Run(ctx)) })
	defer running.Wait()
	defer stop()
	becomes := func(want string) {
		t.Helper()
		var got string
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
			a, err := s.Authority()
			if err != nil {
				got = err.Error()
			} else {
				got = a.Certificate.Subject.CommonName
			}
			if strings.Contains(got, want) {
				return
			}
		}
		t.Fatalf("it says %q, want %q", got, want)
	}
	becomes("there is no Issuer")
	issuer := cmapi.Issuer{TypeMeta: metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String(), Kind: cmapi.IssuerKind}, ObjectMeta: metav1.ObjectMeta{Name: "ca"}}
	issuer.Spec.CA = &cmapi.CAIssuer{SecretName: "ca"}
	a.make(t, cm+"issuers", issuer)
	becomes("Secret n/ca")
	a.make(t, strings.TrimSuffix(secretPath, "/"), authoritySecret(t, "first"))
	becomes("first")
	a.replace(t, secretPath+"ca", "MODIFIED", authoritySecret(t, "second"))
	becomes("second")
	a.replace(t, secretPath+"ca", "MODIFIED", corev1.Secret{Data: map[string][]byte{"tls.key": []byte("nothing"), "tls.crt": nil}})
	becomes("tls.key")
	a.replace(t, secretPath+"ca", "MODIFIED", authoritySecret(t, "third"))
	becomes("third")
	issuer.Spec = cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}}
	a.replace(t, cm+"issuers/ca", "MODIFIED", issuer)
	becomes("no CA issuer")
	a.replace(t, cm+"issuers/ca", "DELETED", nil)
	becomes("there is no Issuer")
	for _, name := range []string{"first", "second", "third"} {
		if _, ok := told.Load(name); !ok {
			t.Errorf("nobody was told of %q", name)
		}
	}
}
