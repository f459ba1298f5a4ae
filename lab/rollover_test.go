//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/kubesource"
)

// lateReader is a source that is read late, as an application reads a mounted Secret.
type lateReader struct {
	mtls.Source
	late time.Duration

	mu    sync.Mutex
	shown *mtls.Snapshot
	until time.Time // when it is read again; zero: nothing new is there
}

func (r *lateReader) Snapshot() (*mtls.Snapshot, error) {
	is, err := r.Source.Snapshot()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.shown == nil:
		r.shown = is
	case is == r.shown:
	case r.until.IsZero():
		r.until = time.Now().Add(time.Duration(rand.Int64N(int64(r.late)))) //nolint:gosec // a wait
	case time.Now().After(r.until):
		r.shown, r.until = is, time.Time{}
	}
	return r.shown, nil
}

// carriedApp is both a server and a client of mutual TLS with one Secret.
type carriedApp struct {
	mtls.Source
	address string
}

// carriedTraffic are applications that all the while talk to each other.
type carriedTraffic struct {
	apps []*carriedApp

	mu     sync.Mutex
	visits int
	errs   []error
}

// lateness is how late an application reads what has changed, at the most.
const lateness = time.Second

func (w *workloads) startTraffic(t *testing.T, names ...string) *carriedTraffic {
	t.Helper()
	var all []kubesource.Config
	for _, name := range names {
		all = append(all, kubesource.Config{Pair: kubesource.Secret{Namespace: "default", Name: name}, Bundle: kubesource.SecretCA("default", name)})
	}
	return w.startTrafficOf(t, all...)
}

func (w *workloads) startTrafficOf(t *testing.T, sources ...kubesource.Config) *carriedTraffic {
	t.Helper()
	all := &carriedTraffic{}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { stop(); running.Wait() })
	for _, source := range sources {
		secret, err := kubesource.New(w.client, source)
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() { secret.Run(ctx) }) //nolint:errcheck // its context ends
		wait, done := context.WithTimeout(ctx, readyWait)
		defer done()
		if err := secret.WaitReady(wait); err != nil {
			t.Fatal(err)
		}
		app := &carriedApp{Source: mtls.Join(&lateReader{Source: secret, late: lateness}, &lateReader{Source: secret, late: lateness})}
		listener, err := tls.Listen("tcp", "127.0.0.1:0", mtls.ServerConfig(app, mtls.RequireClients))
		if err != nil {
			t.Fatal(err)
		}
		context.AfterFunc(ctx, func() { listener.Close() })
		app.address = listener.Addr().String()
		running.Go(func() { app.serve(listener) })
		all.apps = append(all.apps, app)
	}
	for _, app := range all.apps {
		running.Go(func() { all.call(ctx, app) })
	}
	return all
}

func (a *carriedApp) serve(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = io.WriteString(conn, "hello") // after the handshake, or not at all
		}()
	}
}

// call visits the servers, one after the other, each with a new handshake.
func (a *carriedTraffic) call(ctx context.Context, client *carriedApp) {
	config := mtls.ClientConfig(client, mtls.Named("app.example.org"))
	for ctx.Err() == nil {
		for _, server := range a.apps {
			err := visitOnce(config, server.address)
			a.mu.Lock()
			a.visits++
			if err != nil && ctx.Err() == nil {
				a.errs = append(a.errs, err)
			}
			a.mu.Unlock()
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func visitOnce(config *tls.Config, address string) error {
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).Dial("tcp", address)
	if err != nil {
		return err
	}
	secure := tls.Client(conn, config)
	defer secure.Close()
	_ = secure.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = io.ReadFull(secure, make([]byte, 5)) // with TLS 1.3 a server refuses after the handshake
	return err
}

// since returns how many visits there were since it was last asked, and what failed.
func (a *carriedTraffic) since() (int, []error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, errs := a.visits, a.errs
	a.visits, a.errs = 0, nil
	return n, errs
}

// carriedLeaf is a Certificate of the issuer "carried".
func carriedLeaf(name string) string {
	return fmt.Sprintf(`---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: %s, namespace: default}
spec:
  secretName: %[1]s
  dnsNames: [app.example.org]
  usages: [digital signature, server auth, client auth]
  privateKey: {algorithm: ECDSA}
  issuerRef: {name: carried}
`, name)
}

// carriedCA is an authority in the Secret of its name, and carriedIssuer the issuer.
func carriedCA(name string) string {
	return fmt.Sprintf(`---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: %s, namespace: default}
spec:
  secretName: %[1]s
  commonName: %[1]s
  isCA: true
  privateKey: {algorithm: ECDSA}
  issuerRef: {name: self}
`, name)
}

func carriedIssuer(secret, accept, window string) string {
	return fmt.Sprintf(`---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata:
  name: carried
  namespace: default
  annotations:
    kubepki.dev/ca-rollover-accept: %s
    kubepki.dev/ca-rollover-window: %s
    kubepki.dev/ca-bundle-configmap: carried-bundle
spec: {ca: {secretName: %s}}
`, accept, window, secret)
}

// renew has a Certificate issued anew, as cmctl renew does.
func (w *workloads) renew(t *testing.T, name string) {
	t.Helper()
	w.renewIn(t, "default", name)
}

func (w *workloads) renewIn(t *testing.T, namespace, name string) {
	t.Helper()
	eventually(t, "cmctl renew", func(ctx context.Context) error {
		o := &cmapi.Certificate{}
		if err := w.cm.Get().Namespace(namespace).Resource("certificates").Name(name).Do(ctx).Into(o); err != nil {
			return err
		}
		workload.SetCondition(&o.Status, cmapi.CertificateConditionIssuing, o.Generation, cmmeta.ConditionTrue, "ManuallyTriggered", "Certificate re-issuance manually triggered", time.Now())
		return w.cm.Put().Namespace(namespace).Resource("certificates").Name(name).SubResource("status").Body(o).Do(ctx).Error()
	})
}

func (w *workloads) secretData(t *testing.T, name string) map[string][]byte {
	t.Helper()
	s, err := w.client.CoreV1().Secrets("default").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s.Data
}

// within asks until it is answered or a time is over.
func within(t *testing.T, most time.Duration, what string, ask func(context.Context) error) {
	t.Helper()
	begun := time.Now()
	for last := errors.New("never"); last != nil; {
		if time.Since(begun) > most {
			t.Fatalf("%s: %v", what, last)
		}
		last = ask(t.Context())
		time.Sleep(100 * time.Millisecond)
	}
}

// carriedOver waits until all leaves are of the CA in a Secret, and nothing else is
// trusted. It returns what the condition of the issuer said on the way.
func (w *workloads) carriedOver(t *testing.T, secret string, leaves []string) (reasons []string) {
	t.Helper()
	within(t, 25*time.Second, "all is carried over to "+secret, func(ctx context.Context) error {
		issuer := &cmapi.Issuer{}
		if err := w.cm.Get().Namespace("default").Resource("issuers").Name("carried").Do(ctx).Into(issuer); err != nil {
			return err
		}
		said := "nothing"
		for _, c := range issuer.Status.Conditions {
			if c.Type == "CARollover" {
				said = c.Reason
				if len(reasons) == 0 || reasons[len(reasons)-1] != said {
					reasons = append(reasons, said)
					t.Logf("%s: %s", c.Reason, c.Message)
				}
			}
		}
		ca, err := trust.ParseCertificates(w.secretData(t, secret)["tls.crt"])
		if err != nil {
			return err
		}
		for _, name := range leaves {
			data := w.secretData(t, name)
			leaf, err := trust.ParseCertificates(data["tls.crt"])
			if err != nil {
				return err
			}
			if !trust.SignedBy(leaf[0], ca[0]) || !bytes.Equal(data["ca.crt"], trust.EncodeCertificates(ca[0])) {
				return fmt.Errorf("%s is not, while the issuer says %s", name, said)
			}
		}
		if said != "Done" {
			return errors.New("the issuer says " + said)
		}
		return nil
	})
	return reasons
}

func TestCARollover(t *testing.T) {
	w := startWorkloads(t)
	w.run(t)
	leaves := []string{"app-1", "app-2", "app-3", "app-4"}
	objects := "apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: self, namespace: default}\nspec: {selfSigned: {}}\n" +
		carriedCA("ca-1") + carriedCA("ca-2") + carriedIssuer("ca-1", "2s", "1s")
	for _, name := range leaves {
		objects += carriedLeaf(name)
	}
	w.apply(t, objects)
	for _, name := range append([]string{"ca-2"}, leaves...) {
		w.atRevision(t, name, 1)
	}
	calls := w.startTraffic(t, leaves...)
	eventually(t, "they talk", func(context.Context) error {
		if n, errs := calls.since(); n < 20 || len(errs) > 0 {
			return fmt.Errorf("%d visits, %w", n, errors.Join(errs...))
		}
		return nil
	})
	none := func(t *testing.T) {
		t.Helper()
		n, errs := calls.since()
		t.Logf("%d handshakes, %d failed", n, len(errs))
		if len(errs) > 0 {
			t.Errorf("the first: %v", errs[0])
		}
		if n < 100 {
			t.Error("that is not much of a traffic")
		}
	}
	t.Run("a ClusterIssuer publishes a ClusterTrustBundle", w.testClusterBundle)
	t.Run("its Certificate is renewed with another key", func(t *testing.T) {
		before := w.secretData(t, "ca-1")["tls.crt"]
		w.renew(t, "ca-1")
		w.atRevision(t, "ca-1", 2)
		if bytes.Equal(before, w.secretData(t, "ca-1")["tls.crt"]) {
			t.Fatal("the CA is the same")
		}
		if record := w.secretData(t, "carried.issuer.ca-rollover"); len(record["previous.key"]) == 0 {
			t.Error("the key of the CA before is not at hand")
		}
		reasons := w.carriedOver(t, "ca-1", leaves)
		none(t)
		if !strings.Contains(strings.Join(reasons, " "), "Accepting Reissuing") {
			t.Errorf("the issuer said %q", reasons)
		}
		if record := w.secretData(t, "carried.issuer.ca-rollover"); len(record["previous.key"]) > 0 {
			t.Error("the key of the CA before is still there")
		}
	})
	if t.Failed() {
		return
	}
	t.Run("the issuer names another Secret", func(t *testing.T) {
		w.apply(t, carriedIssuer("ca-2", "2s", "1s"))
		w.carriedOver(t, "ca-2", leaves)
		none(t)
		published, err := w.client.CoreV1().ConfigMaps("default").Get(t.Context(), "carried-bundle", metav1.GetOptions{})
		if err != nil || published.Data["ca.crt"] != string(w.secretData(t, "ca-2")["tls.crt"]) {
			t.Errorf("the ConfigMap is %v, %v", published, err)
		}
	})
	t.Run("somebody overwrites the Secret, and the old key is gone", func(t *testing.T) {
		w.overwrite(t, "by-hand")
		w.apply(t, carriedIssuer("by-hand", "2s", "1s"))
		w.carriedOver(t, "by-hand", leaves)
		none(t)
		w.overwrite(t, "by-hand")
		w.carriedOver(t, "by-hand", leaves)
		none(t)
	})
	t.Run("without a wait there are failures, which this test sees", func(t *testing.T) {
		w.apply(t, carriedIssuer("ca-1", "0s", "0s"))
		w.carriedOver(t, "ca-1", leaves)
		time.Sleep(2 * lateness)
		if n, errs := calls.since(); len(errs) == 0 {
			t.Errorf("%d handshakes, none failed", n)
		} else {
			t.Logf("%d handshakes, %d failed; the first: %v", n, len(errs), errs[0])
		}
	})
}

// testClusterBundle has a ClusterIssuer, whose CA is in the namespace of such.
func (w *workloads) testClusterBundle(t *testing.T) {
	ca := strings.ReplaceAll(carriedCA("ca-cluster"), "namespace: default", "namespace: kube-system")
	w.apply(t, `apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: self, namespace: kube-system}
spec: {selfSigned: {}}
`+ca+`---
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {name: cluster, annotations: {kubepki.dev/ca-bundle-clustertrustbundle: workloads}}
spec: {ca: {secretName: ca-cluster}}
`)
	within(t, 20*time.Second, "the ClusterTrustBundle is the CA", func(ctx context.Context) error {
		secret, err := w.client.CoreV1().Secrets("kube-system").Get(ctx, "ca-cluster", metav1.GetOptions{})
		if err != nil {
			return err
		}
		bundle, err := w.client.CertificatesV1().ClusterTrustBundles().Get(ctx, "workloads", metav1.GetOptions{})
		if err == nil && bundle.Spec.TrustBundle != string(secret.Data["tls.crt"]) {
			err = fmt.Errorf("it is %q", bundle.Spec.TrustBundle)
		}
		return err
	})
}

// overwrite puts a new CA into a Secret, as somebody with openssl does.
func (w *workloads) overwrite(t *testing.T, name string) {
	t.Helper()
	ca := shopAuthority(t, fmt.Sprintf("%s %d", name, time.Now().UnixNano()))
	certificate, key := trust.EncodeCertificates([]*x509.Certificate{ca.Certificate}...), privatePEM(t, ca.Key)
	secrets := w.client.CoreV1().Secrets("default")
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": certificate, "tls.key": key}}
	_, err := secrets.Create(t.Context(), s, metav1.CreateOptions{})
	if err != nil {
		_, err = secrets.Update(t.Context(), s, metav1.UpdateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}
