package certmanager

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/trust"
)

const (
	validating = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
	mutating   = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
	apis       = "/apis/apiregistration.k8s.io/v1/apiservices"
	crds       = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	nSecrets   = "/api/v1/namespaces/n/secrets"

	fromCertificate = "cert-manager.io/inject-ca-from"
	fromSecret      = "cert-manager.io/inject-ca-from-secret"
	fromAPIServer   = "cert-manager.io/inject-apiserver-ca"
	allowDirect     = "cert-manager.io/allow-direct-injection"
)

var anchorsMade atomic.Int64

// anchorPEM makes an authority's certificate. Each is newer than the one before it.
func anchorPEM(t *testing.T, name string) []byte {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	age := 10*time.Hour - time.Duration(anchorsMade.Add(1))*time.Second
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-age), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	check(t, err)
	c, err := x509.ParseCertificate(der)
	check(t, err)
	return trust.EncodeCertificates(c)
}

// injected is a running injector of an API server.
type injected struct {
	*api
	*Injector
	t    *testing.T
	last int // of the sentinels
}

func startInjector(t *testing.T, ca func() ([]byte, error)) *injected {
	t.Helper()
	a := newAPI(t)
	client, err := NewClient(a.config())
	check(t, err)
	i := NewInjector(InjectorOptions{Client: client, APIServerCA: ca, Log: slog.New(slog.DiscardHandler)})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { check(t, i.Run(ctx)) })
	t.Cleanup(func() {
		stop()
		a.CloseClientConnections()
		running.Wait()
	})
	until(t, "all is seen", i.Synced)
	w := &injected{api: a, Injector: i, t: t}
	w.secret("sentinel", "", "sentinel", allowDirect)
	return w
}

// secret makes a Secret with an authority of a name, of a Certificate if it is given, or
// with an annotation that is true.
func (w *injected) secret(name, of, authority, annotation string) []byte {
	w.t.Helper()
	ca := anchorPEM(w.t, authority)
	notes := map[string]string{}
	if of != "" {
		notes[cmapi.CertificateNameKey] = of
	}
	if annotation != "" {
		notes[annotation] = "true"
	}
	w.make(w.t, nSecrets, corev1.Secret{
		TypeMeta: metav1.TypeMeta{Kind: "Secret", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: notes}, Data: map[string][]byte{"ca.crt": ca},
	})
	return ca
}

func (w *injected) certificate(name, secret string) {
	w.t.Helper()
	c := cmapi.Certificate{TypeMeta: metav1.TypeMeta{Kind: "Certificate", APIVersion: "cert-manager.io/v1"}, ObjectMeta: metav1.ObjectMeta{Name: name}}
	c.Spec.SecretName = secret
	w.make(w.t, cm+"certificates", c)
}

// object makes one that wants a bundle. rest is what it has beside its metadata.
func (w *injected) object(collection, name string, notes map[string]string, rest map[string]any) {
	w.t.Helper()
	kind, version := listKind(collection)
	o := clone(rest)
	o["kind"], o["apiVersion"], o["metadata"] = strings.TrimSuffix(kind, "List"), version, map[string]any{"name": name, "annotations": notes}
	w.make(w.t, collection, o)
}

func hook(name string, ca []byte) map[string]any {
	config := map[string]any{"url": "https://hook"}
	if ca != nil {
		config["caBundle"] = base64.StdEncoding.EncodeToString(ca)
	}
	return map[string]any{"name": name, "clientConfig": config, "sideEffects": "None"}
}

func hooks(all ...any) map[string]any { return map[string]any{"webhooks": all} }

// bundles are the names in each caBundle of an object, in the order of its text.
func (w *injected) bundles(path string) string {
	o := map[string]any{}
	w.api.read(path, &o)
	var all []string
	var look func(any)
	look = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, one := range v {
				look(one)
			}
		case map[string]any:
			if text, ok := v["caBundle"].(string); ok {
				data, err := base64.StdEncoding.DecodeString(text)
				list, bad := trust.ParseCertificates(data)
				var names []string
				for _, c := range list {
					names = append(names, c.Subject.CommonName)
				}
				if err != nil || bad != nil {
					names = []string{"?"}
				}
				all = append(all, strings.Join(names, "+"))
			} else if _, ok := v["url"]; ok {
				all = append(all, "-")
			}
			for k, one := range v {
				if k != "metadata" {
					look(one)
				}
			}
		}
	}
	look(o)
	return strings.Join(all, " ")
}

// becomes waits until the bundles of an object are these.
func (w *injected) becomes(path, want string) {
	w.t.Helper()
	until(w.t, path+" has "+want, func() bool { return w.bundles(path) == want })
}

// left waits until an object is left for a reason.
func (w *injected) left(key, why string) {
	w.t.Helper()
	until(w.t, key+" is left: "+why, func() bool { return strings.Contains(w.Blocked()[key], why) })
}

// settles waits until all that has happened has been looked at: what is made now has its
// bundle, and its turn comes after all that was told before.
func (w *injected) settles() {
	w.t.Helper()
	for range settling {
		w.last++
		name := "sentinel-" + strings.Repeat("x", w.last)
		w.object(mutating, name, map[string]string{fromSecret: "n/sentinel"}, hooks(hook("s", nil)))
		w.becomes(mutating+"/"+name, "sentinel")
	}
}

// settling are so many sentinels, one after the other: what came before them is in work, or
// done, when the last has its turn.
const settling = 4

func none() ([]byte, error) { return nil, errors.New("no file of it") }

func TestEachCABundleOfAnObjectIsWritten(t *testing.T) {
	w := startInjector(t, none)
	w.secret("web-tls", "web", "ca", "")
	w.certificate("web", "web-tls")
	of := map[string]string{fromCertificate: "n/web"}
	w.object(validating, "several", of, hooks(hook("empty", nil), hook("wrong", []byte("no certificate")), hook("other", anchorPEM(t, "other"))))
	w.object(apis, "v1.shop", of, map[string]any{"spec": map[string]any{"service": map[string]any{"name": "s"}, "group": "shop"}})
	w.object(apis, "v1.own", of, map[string]any{"spec": map[string]any{"group": "own"}})
	w.object(apis, "v1.insecure", of, map[string]any{"spec": map[string]any{"service": map[string]any{"name": "s"}, "insecureSkipTLSVerify": true}})
	w.object(crds, "things", of, map[string]any{"spec": map[string]any{"conversion": map[string]any{"strategy": "Webhook", "webhook": map[string]any{"clientConfig": map[string]any{"url": "https://c"}}}}})
	w.object(crds, "plain", of, map[string]any{"spec": map[string]any{"conversion": map[string]any{"strategy": "None"}}})
	w.object(mutating, "nobody", nil, hooks(hook("a", nil)))
	w.becomes(validating+"/several", "ca ca other+ca") // what lives and was there stays, as with cert-manager
	w.becomes(apis+"/v1.shop", "ca")
	w.becomes(crds+"/things", "ca")
	w.left("apiservices/v1.insecure", "insecureSkipTLSVerify")
	w.settles()
	for path, want := range map[string]string{mutating + "/nobody": "-", apis + "/v1.own": "", crds + "/plain": "", apis + "/v1.insecure": ""} {
		if got := w.bundles(path); got != want || w.writesTo(path) > 0 {
			t.Errorf("%s has %q", path, got)
		}
	}
	// All else of the objects is as it was.
	several := map[string]any{}
	w.api.read(validating+"/several", &several)
	if first := several["webhooks"].([]any)[0].(map[string]any); first["sideEffects"] != "None" || first["clientConfig"].(map[string]any)["url"] != "https://hook" {
		t.Errorf("%v", first)
	}
	if n := w.writesTo(validating + "/several"); n != 1 {
		t.Errorf("it was written %d times", n)
	}
}

func TestABundleFollowsItsSource(t *testing.T) {
	const path = validating + "/hook"
	other := func(w *injected, of string) {
		// Another namespace has a Secret of the same name: it is none of ours.
		w.make(w.t, "/api/v1/namespaces/m/secrets", corev1.Secret{
			TypeMeta: metav1.TypeMeta{Kind: "Secret", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "web-tls", Annotations: map[string]string{cmapi.CertificateNameKey: of, allowDirect: "true"}},
			Data: map[string][]byte{"ca.crt": anchorPEM(w.t, "foreign")},
		})
	}
	for name, c := range map[string]struct {
		change func(w *injected)
		want   string // of the bundle, when it has come to rest
		why    string // it is left
	}{
		"nothing changes": {func(*injected) {}, "ca", ""},
		"somebody empties it by hand": {func(w *injected) {
			w.edit(w.t, path, func(o map[string]any) { o["webhooks"] = []any{hook("a", nil)} })
		}, "ca", ""},
		"somebody writes nonsense into it": {func(w *injected) {
			w.edit(w.t, path, func(o map[string]any) { o["webhooks"] = []any{hook("a", []byte("x"))} })
		}, "ca", ""},
		"somebody puts an authority of their own there": {func(w *injected) {
			own := anchorPEM(w.t, "own")
			w.edit(w.t, path, func(o map[string]any) { o["webhooks"] = []any{hook("a", own)} })
		}, "own+ca", ""},
		"somebody adds a webhook": {func(w *injected) {
			w.edit(w.t, path, func(o map[string]any) { o["webhooks"] = append(o["webhooks"].([]any), hook("b", nil)) })
		}, "ca ca", ""},
		"the source gets another authority": {func(w *injected) {
			ca := anchorPEM(w.t, "next")
			w.edit(w.t, nSecrets+"/web-tls", func(o map[string]any) { o["data"] = map[string]any{"ca.crt": base64.StdEncoding.EncodeToString(ca)} })
		}, "ca+next", ""},
		"the source is spoiled": {func(w *injected) {
			w.edit(w.t, nSecrets+"/web-tls", func(o map[string]any) { o["data"] = map[string]any{"ca.crt": "eA=="} })
		}, "ca", "ca.crt"},
		"the source loses its authority": {func(w *injected) {
			w.edit(w.t, nSecrets+"/web-tls", func(o map[string]any) { o["data"] = map[string]any{"tls.crt": "eA=="} })
		}, "ca", "ca.crt is empty or not there"},
		"the source is removed": {func(w *injected) { w.remove(w.t, nSecrets+"/web-tls") }, "ca", "Secret n/web-tls is not there"},
		"the source is removed and comes back": {func(w *injected) {
			w.remove(w.t, nSecrets+"/web-tls")
			w.left("validatingwebhookconfigurations/hook", "is not there")
			w.secret("web-tls", "web", "next", "")
		}, "ca+next", ""},
		"the Secret becomes another Certificate's": {func(w *injected) {
			w.annotate(w.t, nSecrets+"/web-tls", cmapi.CertificateNameKey, "mallory")
			ca := anchorPEM(w.t, "mallory")
			w.edit(w.t, nSecrets+"/web-tls", func(o map[string]any) { o["data"] = map[string]any{"ca.crt": base64.StdEncoding.EncodeToString(ca)} })
		}, "ca", "is not of Certificate n/web"},
		"the Certificate is removed": {func(w *injected) { w.remove(w.t, certificate) }, "ca", "Certificate n/web is not there"},
		"the Certificate names another Secret": {func(w *injected) {
			w.secret("other-tls", "web", "next", "")
			w.edit(w.t, certificate, func(o map[string]any) { o["spec"] = map[string]any{"secretName": "other-tls"} })
		}, "ca+next", ""},
		"the annotation goes: what is there stays": {func(w *injected) {
			w.annotate(w.t, path, fromCertificate, "")
			w.edit(w.t, path, func(o map[string]any) { o["webhooks"] = []any{hook("a", nil)} })
		}, "-", ""},
		"the annotation leads elsewhere": {func(w *injected) {
			w.secret("direct", "", "direct", allowDirect)
			w.annotate(w.t, path, fromCertificate, "")
			w.annotate(w.t, path, fromSecret, "n/direct")
		}, "ca+direct", ""},
		"the annotation becomes nonsense": {func(w *injected) { w.annotate(w.t, path, fromCertificate, "web") }, "ca", "not of the form NAMESPACE/NAME"},
		"the annotation names another namespace": {func(w *injected) {
			other(w, "web")
			w.annotate(w.t, path, fromCertificate, "m/web")
		}, "ca", "Certificate m/web is not there"},
		"a Secret of another namespace has that name": {func(w *injected) { other(w, "web") }, "ca", ""},
		"a Secret that does not allow it": {func(w *injected) {
			w.secret("closed", "", "closed", "")
			w.annotate(w.t, path, fromSecret, "n/closed")
		}, "ca", "does not allow it"},
		"a Secret that did not allow it, and now does": {func(w *injected) {
			w.secret("closed", "", "opened", "")
			w.annotate(w.t, path, fromSecret, "n/closed")
			w.left("validatingwebhookconfigurations/hook", "does not allow it")
			w.annotate(w.t, nSecrets+"/closed", allowDirect, "true")
		}, "ca+opened", ""},
		"the API server's authority, which cannot be read": {func(w *injected) {
			w.annotate(w.t, path, fromCertificate, "")
			w.annotate(w.t, path, fromAPIServer, "true")
		}, "ca", "no file of it"},
		"the API server refuses the object": {func(w *injected) {
			w.api.mu.Lock()
			w.refuses = func(method, to string) int {
				if method == "PATCH" && to == path {
					return 422
				}
				return 0
			}
			w.api.mu.Unlock()
			w.edit(w.t, path, func(o map[string]any) { o["webhooks"] = []any{hook("a", nil)} })
		}, "-", "the API server refuses it"},
		"the API server fails once": {func(w *injected) {
			failed := false
			w.api.mu.Lock()
			w.refuses = func(method, to string) int {
				if method == "PATCH" && to == path && !failed {
					failed = true
					return 500
				}
				return 0
			}
			w.api.mu.Unlock()
			w.edit(w.t, path, func(o map[string]any) { o["webhooks"] = []any{hook("a", nil)} })
		}, "ca", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := startInjector(t, none)
			w.secret("web-tls", "web", "ca", "")
			w.certificate("web", "web-tls")
			w.object(validating, "hook", map[string]string{fromCertificate: "n/web"}, hooks(hook("a", nil)))
			w.becomes(path, "ca")
			c.change(w)
			if c.why != "" {
				w.left("validatingwebhookconfigurations/hook", c.why)
			}
			w.becomes(path, c.want)
			w.settles()
			writes := w.writesTo(path)
			w.settles()
			if got := w.bundles(path); got != c.want || w.writesTo(path) != writes {
				t.Errorf("it does not come to rest: it has %s", got)
			}
			if why := w.Blocked()["validatingwebhookconfigurations/hook"]; c.why == "" && why != "" {
				t.Errorf("it is said to be left: %s", why)
			}
		})
	}
}

// TestWatchesOfSourcesEndWithWhoWantsThem: a source is watched by its name for as long as
// an object names it.
func TestWatchesOfSourcesEndWithWhoWantsThem(t *testing.T) {
	ca := anchorPEM(t, "server")
	w := startInjector(t, func() ([]byte, error) { return ca, nil })
	w.secret("web-tls", "web", "ca", "")
	w.certificate("web", "web-tls")
	w.object(validating, "hook", map[string]string{fromCertificate: "n/web"}, hooks(hook("a", nil)))
	w.object(mutating, "server", map[string]string{fromAPIServer: "true"}, hooks(hook("a", nil)))
	w.becomes(validating+"/hook", "ca")
	w.becomes(mutating+"/server", "server")
	running := func() (n int) {
		w.named.mu.Lock()
		defer w.named.mu.Unlock()
		for k := range w.named.running {
			if k.Name == "web" || k.Name == "web-tls" {
				n++
			}
		}
		return n
	}
	if n := running(); n != 2 {
		t.Errorf("%d watches run for a Certificate and its Secret", n)
	}
	w.remove(t, validating+"/hook")
	until(t, "nothing is watched for an object that is gone", func() bool { return running() == 0 })
}
