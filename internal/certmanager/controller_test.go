package certmanager

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/klog/v2"

	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

func TestMain(m *testing.M) {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // watches end in the middle
	utilruntime.ErrorHandlers = nil                   // one sleeps since the last error, which was in another bubble's time
	os.Exit(m.Run())
}

const (
	cm          = "/apis/cert-manager.io/v1/namespaces/n/"
	certificate = cm + "certificates/web"
	secretPath  = "/api/v1/namespaces/n/secrets/"
)

// process runs a controller until it is to end, or dies.
func process(t *testing.T, a *api, approver Approver, until func() bool) {
	t.Helper()
	client, err := NewClient(a.config())
	check(t, err)
	var said bytes.Buffer // read when the process has ended
	c := New(Options{Client: client, Approver: approver, Workers: 2, ClusterNamespace: "n", Log: slog.New(slog.NewTextHandler(&said, nil))})
	ctx, stop := context.WithCancel(t.Context())
	a.mu.Lock()
	a.die, a.dead = stop, false
	a.mu.Unlock()
	var running sync.WaitGroup
	running.Go(func() { check(t, c.Run(ctx)) })
	deadline := time.Now().Add(20 * time.Second)
	for !until() && ctx.Err() == nil && time.Now().Before(deadline) {
		time.Sleep(2 * time.Millisecond)
	}
	late := ctx.Err() == nil && !until()
	stop()
	running.Wait()
	if late {
		var o cmapi.Certificate
		a.read(certificate, &o)
		t.Fatalf("it does not become as wanted: %+v\nwrites: %q\n%s", o.Status, a.writes, &said)
	}
}

// prepare makes a Certificate of an issuer that signs itself.
func prepare(t *testing.T) *api {
	a := newAPI(t)
	gv := metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String()}
	issuer := cmapi.Issuer{TypeMeta: gv, ObjectMeta: metav1.ObjectMeta{Name: "self"}, Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}}}
	issuer.Kind = cmapi.IssuerKind
	a.make(t, cm+"issuers", issuer)
	o := cmapi.Certificate{TypeMeta: gv, ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: cmapi.CertificateSpec{
		SecretName: "web-tls", DNSNames: []string{"web"}, IssuerRef: cmmeta.IssuerReference{Name: "self"}, PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
	}}
	o.Kind = cmapi.CertificateKind
	a.make(t, cm+"certificates", o)
	return a
}

func (a *api) ready() bool {
	var issuer cmapi.Issuer
	var o cmapi.Certificate
	if !a.read(certificate, &o) || !a.read(cm+"issuers/self", &issuer) || len(issuer.Status.Conditions) == 0 {
		return false
	}
	c := workload.Condition(&o.Status, cmapi.CertificateConditionReady)
	_, under := workload.Issuing(&o.Status)
	return c != nil && c.Status == cmmeta.ConditionTrue && o.Status.Revision != nil && !under && len(a.names(strings.TrimSuffix(secretPath, "/"))) == 1
}

// inOrder tells what of the objects does not fit the others.
func (a *api) inOrder() error {
	var o cmapi.Certificate
	var s corev1.Secret
	var r cmapi.CertificateRequest
	if !a.read(certificate, &o) || !a.read(secretPath+"web-tls", &s) || o.Status.Revision == nil {
		return fmt.Errorf("there is no Certificate with a Secret: %+v", o.Status)
	}
	name := fmt.Sprint("web-", *o.Status.Revision)
	if !a.read(cm+"certificaterequests/"+name, &r) || !bytes.Equal(r.Status.Certificate, s.Data["tls.crt"]) {
		return fmt.Errorf("the Secret is not of request %s", name)
	}
	list, err := trust.ParseCertificates(s.Data["tls.crt"])
	if err != nil {
		return err
	}
	key, err := workload.ParseKey(s.Data["tls.key"])
	if err != nil || !trust.SameKey(key.Public(), list[0].PublicKey) {
		return fmt.Errorf("the key does not fit: %v", err)
	}
	if all := a.names(strings.TrimSuffix(cm, "/") + "/certificaterequests"); len(all) != 1 {
		return fmt.Errorf("there are requests %q", all)
	}
	return nil
}

func TestFourWrites(t *testing.T) {
	a := prepare(t)
	process(t, a, BuiltInSigners(), a.ready)
	check(t, a.inOrder())
	var got []string
	for _, w := range a.writes {
		if !strings.Contains(w, "issuers") {
			got = append(got, strings.NewReplacer(cm, "", secretPath, "secrets/").Replace(w))
		}
	}
	want := []string{"POST certificaterequests", "PUT certificaterequests/web-1/status", "PATCH secrets/web-tls", "PUT certificates/web/status"}
	if !slices.Equal(got, want) {
		t.Errorf("it wrote %q, want %q", got, want)
	}
}

// TestAProcessThatDiesAtAnyWriteLosesNothing has the process die at each write in turn,
// once before it is done and once after, without an answer. The next process brings all
// to the end, and a third one finds nothing to write.
func TestAProcessThatDiesAtAnyWriteLosesNothing(t *testing.T) {
	for name, slow := range map[string]bool{"at once": false, "with a key that waits": true} {
		t.Run(name, func(t *testing.T) {
			for n, died := 1, true; died; n++ {
				for _, before := range []bool{true, false} {
					a := prepare(t)
					died = false
					a.dies = func(i int) (bool, bool) {
						died = died || i == n
						return i == n && before, i == n && !before
					}
					var approver Approver = BuiltInSigners()
					until := a.ready
					if slow {
						approver = nil
						until = func() bool { a.approve(); return a.ready() }
					}
					process(t, a, approver, until)
					a.mu.Lock()
					a.dies = nil
					first := len(a.writes)
					a.mu.Unlock()
					process(t, a, approver, until)
					settled := len(a.writes)
					if err := a.inOrder(); err != nil {
						t.Fatalf("died at write %d (%t) %q: %v", n, before, a.writes, err)
					}
					if settled > first+10 {
						t.Errorf("died at write %d (%t): %d writes, %q", n, before, settled, a.writes)
					}
					begin := time.Now()
					process(t, a, approver, func() bool { return time.Since(begin) > 30*time.Millisecond })
					if len(a.writes) > settled {
						t.Errorf("died at write %d (%t): a third process wrote %q", n, before, a.writes[settled:])
					}
				}
			}
		})
	}
}

// approve approves what nobody has decided on, as somebody else.
func (a *api) approve() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for path, o := range a.objects {
		if status, _ := o["status"].(map[string]any); strings.Contains(path, "/certificaterequests/") && (status == nil || status["conditions"] == nil) {
			changed := clone(o)
			changed["metadata"] = clone(meta(o))
			changed["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Approved", "status": "True", "reason": "Somebody"}}}
			a.put(path, "MODIFIED", changed)
			return
		}
	}
}
