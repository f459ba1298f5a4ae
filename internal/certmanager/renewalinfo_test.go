package certmanager

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/acmeissuer"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

// wishes is an ACME server that knows every account, places no order, and answers what
// its test says when it is asked for renewal information.
type wishes struct {
	*httptest.Server
	offers bool
	answer http.HandlerFunc
	asked  atomic.Int32
}

func startWishes(t *testing.T, offers bool, answer http.HandlerFunc) *wishes {
	w := &wishes{offers: offers, answer: answer}
	w.Server = httptest.NewUnstartedServer(w)
	w.Config.ErrorLog = log.New(io.Discard, "", 0)
	w.StartTLS()
	t.Cleanup(w.Close)
	return w
}

func (w *wishes) ServeHTTP(r http.ResponseWriter, q *http.Request) {
	r.Header().Set("Replay-Nonce", "nonce")
	r.Header().Set("Content-Type", "application/json")
	switch {
	case q.URL.Path == "/dir":
		d := map[string]string{"newNonce": w.URL + "/nonce", "newAccount": w.URL + "/account", "newOrder": w.URL + "/order"}
		if w.offers {
			d["renewalInfo"] = w.URL + "/renewal"
		}
		_ = json.NewEncoder(r).Encode(d)
	case q.URL.Path == "/account":
		r.Header().Set("Location", w.URL+"/account/1")
		r.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(r, `{"status":"valid"}`)
	case strings.HasPrefix(q.URL.Path, "/renewal/"):
		w.asked.Add(1)
		w.answer(r, q)
	case q.URL.Path == "/nonce":
	default:
		http.Error(r, "no", http.StatusServiceUnavailable)
	}
}

// issuedLeaf is a key and a certificate of an authority, that began ten days ago and ends
// in ten.
func issuedLeaf(t *testing.T) (key, chain []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().AddDate(0, 0, -10), NotAfter: time.Now().AddDate(0, 0, 10),
		IsCA: true, BasicConstraintsValid: true, SubjectKeyId: []byte{1, 2, 3},
	}
	leaf := *template
	leaf.Subject, leaf.IsCA, leaf.DNSNames, leaf.SubjectKeyId = pkix.Name{}, false, []string{"web"}, nil
	leaf.KeyUsage, leaf.ExtKeyUsage = x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment, nil
	der, err := x509.CreateCertificate(rand.Reader, &leaf, template, &private.PublicKey, private)
	check(t, err)
	c, err := x509.ParseCertificate(der)
	check(t, err)
	text, err := issue.EncodePrivateKey(private)
	check(t, err)
	return text, trust.EncodeCertificates(c)
}

// issuedByACME is a Certificate of an issuer with a server, which has its certificate.
func issuedByACME(t *testing.T, w *wishes) *api {
	t.Helper()
	a := newAPI(t)
	gv := metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String(), Kind: cmapi.IssuerKind}
	bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.Certificate().Raw})
	a.make(t, cm+"issuers", cmapi.Issuer{TypeMeta: gv, ObjectMeta: metav1.ObjectMeta{Name: "acme"}, Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{ACME: &cmacme.ACMEIssuer{
		Server: w.URL + "/dir", CABundle: bundle, PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "account"}, Key: "tls.key"},
	}}}})
	key, chain := issuedLeaf(t)
	a.make(t, "/api/v1/namespaces/n/secrets", corev1.Secret{
		TypeMeta: metav1.TypeMeta{Kind: "Secret", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "account"}, Data: map[string][]byte{"tls.key": key},
	})
	a.make(t, "/api/v1/namespaces/n/secrets", corev1.Secret{
		TypeMeta: metav1.TypeMeta{Kind: "Secret", APIVersion: "v1"}, Type: corev1.SecretTypeTLS,
		ObjectMeta: metav1.ObjectMeta{Name: "web-tls", Labels: map[string]string{cmapi.PartOfCertManagerControllerLabelKey: "true"}, Annotations: map[string]string{
			cmapi.CertificateNameKey: "web", cmapi.IssuerNameAnnotationKey: "acme", cmapi.IssuerKindAnnotationKey: "Issuer", cmapi.IssuerGroupAnnotationKey: "cert-manager.io",
		}},
		Data: map[string][]byte{"tls.key": key, "tls.crt": chain},
	})
	revision := 1
	o := cmapi.Certificate{TypeMeta: gv, ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: cmapi.CertificateSpec{
		SecretName: "web-tls", DNSNames: []string{"web"}, IssuerRef: cmmeta.IssuerReference{Name: "acme", Kind: "Issuer", Group: "cert-manager.io"},
		PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
	}, Status: cmapi.CertificateStatus{Revision: &revision}}
	o.Kind = cmapi.CertificateKind
	a.make(t, cm+"certificates", o)
	return a
}

// informed runs a controller until the Certificate is as wanted.
func informed(t *testing.T, a *api, patience time.Duration, want func(s *cmapi.CertificateStatus) bool) {
	t.Helper()
	config := a.config()
	client, err := NewClient(config)
	check(t, err)
	orders, err := acmeissuer.NewClient(config)
	check(t, err)
	var said bytes.Buffer
	quiet := slog.New(slog.NewTextHandler(&said, nil))
	c := New(Options{Client: client, Workers: 2, ClusterNamespace: "n", Log: quiet, RenewalInfo: true, Approver: BuiltInSigners(),
		ACME: acmeissuer.New(orders, acmeissuer.Settings{ClusterNamespace: "n", UserAgent: "test", Log: quiet, Now: time.Now})})
	c.renewals.patience, c.renewals.pause = patience, 20*time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { check(t, c.Run(ctx)) })
	var o cmapi.Certificate
	deadline := time.Now().Add(20 * time.Second)
	for o = (cmapi.Certificate{}); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		o = cmapi.Certificate{}
		if a.read(certificate, &o) && want(&o.Status) {
			break
		}
	}
	stop()
	a.CloseClientConnections()
	running.Wait()
	if !want(&o.Status) {
		text, _ := json.Marshal(o.Status)
		t.Fatalf("it does not become as wanted: %s\n%s", text, &said)
	}
}

func TestCertificatesAreRenewedWhenTheirServerWishesIt(t *testing.T) {
	window := func(start, end time.Duration, page string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7200")
			at := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
			fmt.Fprintf(w, `{"suggestedWindow":{"start":%q,"end":%q},"explanationURL":%q}`, at(start), at(end), page)
		}
	}
	const day = 24 * time.Hour
	info := func(s *cmapi.CertificateStatus) *cmapi.CertificateACMEARIStatus {
		if s.ACME == nil || s.ACME.ARI == nil {
			return &cmapi.CertificateACMEARIStatus{}
		}
		return s.ACME.ARI
	}
	ordinary := func(s *cmapi.CertificateStatus) bool { // two thirds of twenty days from ten days ago
		return s.RenewalTime != nil && time.Until(s.RenewalTime.Time).Round(time.Hour) == (10*day-20*day/3).Round(time.Hour)
	}
	for name, c := range map[string]struct {
		without bool
		answer  http.HandlerFunc
		want    func(s *cmapi.CertificateStatus) bool
		asked   int32 // at least
	}{
		"in the window, which it explains": {false, window(day, 2*day, "https://acme.example/why"), func(s *cmapi.CertificateStatus) bool {
			i := info(s)
			return i.SuggestedWindow != nil && i.LastError == "" && i.ExplanationURL == "https://acme.example/why" && time.Until(i.NextCheck.Time) > time.Hour && time.Until(i.NextCheck.Time) < 3*time.Hour &&
				s.RenewalTime != nil && !s.RenewalTime.Before(i.SuggestedWindow.Start) && s.RenewalTime.Before(i.SuggestedWindow.End)
		}, 1},
		"at once, where the window is over": {false, window(-day, -time.Hour, ""), func(s *cmapi.CertificateStatus) bool {
			issuing := workload.Condition(s, cmapi.CertificateConditionIssuing)
			return issuing != nil && issuing.Status == cmmeta.ConditionTrue && issuing.Reason == "Renewing"
		}, 1},
		"not in a window that ends after the certificate": {false, window(day, 20*day, ""), func(s *cmapi.CertificateStatus) bool { return info(s).SuggestedWindow != nil && ordinary(s) }, 1},
		"not in one of before the certificate":            {false, window(-30*day, -29*day, ""), func(s *cmapi.CertificateStatus) bool { return info(s).SuggestedWindow != nil && ordinary(s) }, 1},
		"no page but one of the web is shown": {false, window(day, 2*day, "javascript:alert(1)"), func(s *cmapi.CertificateStatus) bool {
			return info(s).SuggestedWindow != nil && info(s).ExplanationURL == ""
		}, 1},
		"as ever, where the server offers nothing": {true, nil, func(s *cmapi.CertificateStatus) bool { return s.ACME == nil && ordinary(s) }, 0},
		"as ever, where the server fails": {false, func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "secret of an inner service", http.StatusBadGateway)
		}, func(s *cmapi.CertificateStatus) bool {
			return info(s).LastError != "" && !strings.Contains(info(s).LastError, "secret") && info(s).SuggestedWindow == nil && time.Until(info(s).NextCheck.Time) > time.Hour && ordinary(s)
		}, 1},
		"as ever, where the answer is huge": {false, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"suggestedWindow":{"start":"`+strings.Repeat("x", 2<<20)+`"}}`)
		}, func(s *cmapi.CertificateStatus) bool { return info(s).LastError != "" && ordinary(s) }, 1},
		"as ever, where it leads elsewhere": {false, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/metadata", http.StatusFound)
		}, func(s *cmapi.CertificateStatus) bool { return info(s).LastError != "" && ordinary(s) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := startWishes(t, !c.without, c.answer)
			a := issuedByACME(t, w)
			patience := renewalInfoPatience
			if strings.HasPrefix(name, "as ever") {
				patience = time.Second // the library would try for seven
			}
			informed(t, a, patience, c.want)
			n := w.asked.Load()
			if n < c.asked || c.asked == 0 && n > 0 {
				t.Errorf("the server was asked %d times", n)
			}
			if strings.HasPrefix(name, "at once") {
				return
			}
			// Another process does not ask again: the status says when.
			looks := 0
			informed(t, a, patience, func(s *cmapi.CertificateStatus) bool { looks++; return looks > 50 && c.want(s) })
			if w.asked.Load() != n {
				t.Errorf("the next process asked %d times", w.asked.Load()-n)
			}
		})
	}
}
