package certmanager

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"fmt"
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

// recordSecret is a record as the rollover keeps it: the anchors, the oldest first, who of
// them signs, and the pair of the one before where it is kept.
func recordSecret(t *testing.T, signing corev1.Secret, previous *corev1.Secret, anchors ...corev1.Secret) corev1.Secret {
	t.Helper()
	leaf := func(s corev1.Secret) *x509.Certificate {
		list, err := trust.ParseCertificates(s.Data["tls.crt"])
		check(t, err)
		return list[0]
	}
	idOf := func(s corev1.Secret) string { id := anchorOf(leaf(s)).ID; return hex.EncodeToString(id[:]) }
	state := map[string]any{"signing": idOf(signing), "secret": "ca"}
	var list []any
	var bundle []byte
	for _, s := range anchors {
		sum := sha256.Sum256(leaf(s).Raw)
		list = append(list, map[string]any{"id": idOf(s), "certificate": hex.EncodeToString(sum[:]), "signsUntil": leaf(s).NotAfter})
		bundle = append(bundle, s.Data["tls.crt"]...)
	}
	state["anchors"] = list
	text, err := json.Marshal(state)
	check(t, err)
	o := corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Name: "ca.issuer.ca-rollover"}, Type: recordType,
		Data: map[string][]byte{"ca.crt": bundle, "state.json": text}}
	if previous != nil {
		o.Data["previous.crt"], o.Data["previous.key"] = previous.Data["tls.crt"], previous.Data["tls.key"]
	}
	return o
}

// TestWhoSignsElsewhereIsCarriedOverToo has the steps of a rollover, as the record has
// them: each wants who signs, and whom readers are told to trust.
func TestWhoSignsElsewhereIsCarriedOverToo(t *testing.T) {
	a := newAPI(t)
	client, err := NewClient(a.config())
	check(t, err)
	first, second := authoritySecret(t, "first"), authoritySecret(t, "second")
	issuer := cmapi.Issuer{TypeMeta: metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String(), Kind: cmapi.IssuerKind}, ObjectMeta: metav1.ObjectMeta{Name: "ca"}}
	issuer.Spec.CA = &cmapi.CAIssuer{SecretName: "ca"}
	a.make(t, cm+"issuers", issuer)
	a.make(t, strings.TrimSuffix(secretPath, "/"), first)
	var said sync.Map
	start := func() *IssuerSource {
		s := &IssuerSource{Client: client, Namespace: "n", Name: "ca", Told: func(_ *x509.Certificate, err error) {
			if err != nil {
				said.Store(err.Error(), true)
			}
		}}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		t.Cleanup(func() { stop(); check(t, <-ended) })
		return s
	}
	names := func(list []*x509.Certificate) string {
		var all []string
		for _, c := range list {
			all = append(all, c.Subject.CommonName)
		}
		return strings.Join(all, " ")
	}
	becomes := func(s *IssuerSource, step, signs, trusted string) issue.Authority {
		t.Helper()
		var by issue.Authority
		var got string
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
			anchors, err := s.Anchors()
			if got = fmt.Sprint(err); err == nil {
				by, err = s.Authority()
				check(t, err)
				got = by.Certificate.Subject.CommonName + " signs, trusted: " + names(anchors)
			}
			if got == signs+" signs, trusted: "+trusted {
				return by
			}
		}
		t.Fatalf("%s: %s; wanted: %s signs, trusted: %s", step, got, signs, trusted)
		return by
	}
	s := start()
	old := becomes(s, "no record", "first", "first")
	end := time.Now().Add(30 * time.Minute)
	check(t, s.Given(t.Context(), old, end)) // nobody keeps a record
	const record = secretPath + "ca.issuer.ca-rollover"
	a.make(t, strings.TrimSuffix(secretPath, "/"), recordSecret(t, first, nil, first))
	check(t, s.Given(t.Context(), old, end))
	others := func() time.Time {
		var o corev1.Secret
		if !a.read(record, &o) {
			t.Fatal("there is no record")
		}
		rec, err := parseRecord(&o)
		check(t, err)
		return rec.Anchors[0].Others
	}
	if until := others(); until.Before(end.Truncate(time.Second)) || until.After(end.Add(time.Hour)) {
		t.Errorf("what was given out until %s keeps its anchor until %s", end, until)
	}
	before := others()
	check(t, s.Given(t.Context(), old, end.Add(time.Minute)))
	if !others().Equal(before) {
		t.Error("each certificate is a write")
	}
	a.replace(t, secretPath+"ca", "MODIFIED", second)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		told := false
		said.Range(func(text, _ any) bool {
			told = told || strings.Contains(text.(string), "does not name it yet")
			return true
		})
		if told {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody was told that the CA has changed")
		}
	}
	becomes(s, "the CA has changed, and the record does not name it", "first", "first")
	a.replace(t, record, "MODIFIED", recordSecret(t, first, &first, first, second))
	becomes(s, "both are published", "first", "first second")
	becomes(start(), "a process that begins then", "first", "first second")
	a.replace(t, record, "MODIFIED", recordSecret(t, second, nil, first, second))
	next := becomes(s, "the new one signs", "second", "first second")
	if err := s.Given(t.Context(), old, end); err == nil {
		t.Error("what the old one signed may be given out when the new one signs")
	}
	check(t, s.Given(t.Context(), next, end))
	a.replace(t, record, "MODIFIED", recordSecret(t, second, nil, second))
	becomes(s, "the old one is dropped", "second", "second")
}
