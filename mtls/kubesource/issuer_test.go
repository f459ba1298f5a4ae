package kubesource_test

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/kubesource"
)

const signerName = "shop.example.com/pods"

// named gives requests the names and UIDs that an API server would, which the
// fake does not.
func named(api *fake.Clientset) {
	api.PrependReactor("create", "certificatesigningrequests", func(a ktesting.Action) (bool, runtime.Object, error) {
		o := a.(ktesting.CreateAction).GetObject().(*certificatesv1.CertificateSigningRequest)
		if o.Name == "" {
			o.Name, o.UID = o.GenerateName+"abcde", types.UID("1")
		}
		return false, nil, nil
	})
}

func asks(t testing.TB) []byte {
	t.Helper()
	r, err := issue.Request(issue.Template{DNSNames: []string{"till.shop.svc"}}, tlstest.Key(t, issue.ECDSAP256))
	check(t, err)
	return r.Raw
}

func certificateFor(t testing.TB, ca issue.Authority, o *certificatesv1.CertificateSigningRequest) []byte {
	t.Helper()
	r, err := issue.ParseRequest(o.Spec.Request)
	check(t, err)
	now := time.Now()
	life := time.Hour
	if o.Spec.ExpirationSeconds != nil {
		life = time.Duration(*o.Spec.ExpirationSeconds) * time.Second
	}
	c, err := issue.Sign(issue.Template{DNSNames: r.DNSNames, URIs: r.URIs, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: now, NotAfter: now.Add(life)}, r.PublicKey, ca)
	check(t, err)
	return trust.EncodeCertificates(c, ca.Certificate)
}

func condition(kind certificatesv1.RequestConditionType, reason, message string) certificatesv1.CertificateSigningRequestCondition {
	return certificatesv1.CertificateSigningRequestCondition{Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message}
}

func TestWhatBecomesOfARequest(t *testing.T) {
	approved := condition(certificatesv1.CertificateApproved, "", "")
	rows := map[string]struct {
		answer func(*testing.T, *fake.Clientset, *certificatesv1.CertificateSigningRequest)
		want   string // "": it is signed
	}{
		"it is signed": {answer: func(t *testing.T, api *fake.Clientset, o *certificatesv1.CertificateSigningRequest) {
			o.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{approved}
			put(t, api, o)
			time.Sleep(time.Minute)
			o.Status.Certificate = certificateFor(t, tlstest.Authority(t, "ca"), o)
			put(t, api, o)
		}},
		"it is denied": {func(t *testing.T, api *fake.Clientset, o *certificatesv1.CertificateSigningRequest) {
			o.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{condition(certificatesv1.CertificateDenied, "Policy", "no such shop")}
			put(t, api, o)
		}, `mtls-abcde for signer shop.example.com/pods: was denied: "Policy", "no such shop"`},
		"its signer fails": {func(t *testing.T, api *fake.Clientset, o *certificatesv1.CertificateSigningRequest) {
			o.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{approved, condition(certificatesv1.CertificateFailed, "SignerValidationFailure", strings.Repeat("x", 1000))}
			put(t, api, o)
		}, `has failed: "SignerValidationFailure", "xxx`},
		"it is removed": {func(t *testing.T, api *fake.Clientset, o *certificatesv1.CertificateSigningRequest) {
			check(t, api.CertificatesV1().CertificateSigningRequests().Delete(t.Context(), o.Name, metav1.DeleteOptions{}))
		}, "was removed"},
		"it is made anew by another": {func(t *testing.T, api *fake.Clientset, o *certificatesv1.CertificateSigningRequest) {
			o.UID = "2"
			o.Status.Certificate = certificateFor(t, tlstest.Authority(t, "ca"), o)
			put(t, api, o)
		}, "was made anew by somebody else"},
		"its certificate is none": {func(t *testing.T, api *fake.Clientset, o *certificatesv1.CertificateSigningRequest) {
			o.Status.Certificate = []byte("none")
			put(t, api, o)
		}, "status.certificate: no PEM block"},
		"nobody approves it": {func(*testing.T, *fake.Clientset, *certificatesv1.CertificateSigningRequest) {}, "nobody has approved it: context deadline exceeded"},
		"nobody signs it": {func(t *testing.T, api *fake.Clientset, o *certificatesv1.CertificateSigningRequest) {
			o.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{approved}
			put(t, api, o)
		}, "is approved, and its signer has not signed it: context deadline exceeded"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := fake.NewClientset()
				named(api)
				i := &kubesource.Issuer{Client: api, SignerName: signerName, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageServerAuth}, Expiration: 20 * time.Minute}
				go func() {
					time.Sleep(time.Second)
					o, err := api.CertificatesV1().CertificateSigningRequests().Get(t.Context(), "mtls-abcde", metav1.GetOptions{})
					if err != nil {
						t.Error(err)
						return
					}
					row.answer(t, api, o)
				}()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				issued, err := i.Issue(ctx, asks(t))
				if row.want != "" {
					if err == nil || !strings.Contains(err.Error(), row.want) || len(err.Error()) > 500 {
						t.Errorf("got %v, want %q", err, row.want)
					}
					return
				}
				if err != nil || len(issued.Chain) != 2 || issued.Bundle != nil {
					t.Fatalf("%+v, %v", issued, err)
				}
				if life := issued.Chain[0].NotAfter.Sub(issued.Chain[0].NotBefore); life != 20*time.Minute {
					t.Errorf("it lives %s", life)
				}
			})
		})
	}
}

func put(t *testing.T, api *fake.Clientset, o *certificatesv1.CertificateSigningRequest) {
	t.Helper()
	_, err := api.CertificatesV1().CertificateSigningRequests().Update(t.Context(), o.DeepCopy(), metav1.UpdateOptions{})
	check(t, err)
}

func TestRequestsThatCannotBeMade(t *testing.T) {
	api := fake.NewClientset()
	good := kubesource.Issuer{Client: api, SignerName: signerName, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageServerAuth}}
	for want, change := range map[string]func(*kubesource.Issuer){
		"Client is not set":                          func(i *kubesource.Issuer) { i.Client = nil },
		"SignerName is not set":                      func(i *kubesource.Issuer) { i.SignerName = "" },
		"Usages is not set":                          func(i *kubesource.Issuer) { i.Usages = nil },
		"Expiration is 9m59s: the API takes 10m0s":   func(i *kubesource.Issuer) { i.Expiration = 10*time.Minute - time.Second },
		"for signer shop.example.com/pods: no right": func(*kubesource.Issuer) {},
	} {
		i := good
		change(&i)
		if strings.Contains(want, "no right") {
			api.PrependReactor("create", "*", func(ktesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("no right") })
		}
		if _, err := i.Issue(t.Context(), asks(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		api.ReactionChain = fake.NewClientset().ReactionChain
	}
}

func TestRequestThatCannotBeWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewClientset()
		named(api)
		api.PrependReactor("list", "*", func(ktesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(certificatesv1.Resource("certificatesigningrequests"), "", errors.New("no right"))
		})
		i := &kubesource.Issuer{Client: api, SignerName: signerName, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageServerAuth}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := i.Issue(ctx, asks(t))
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "cannot be watched") || !strings.Contains(err.Error(), "no right") {
			t.Errorf("got %v", err)
		}
	})
}

// The issuer and what renews, together.
func TestCertificateFromASignerOfTheCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, ca := fake.NewClientset(), tlstest.Authority(t, "ca")
		api.PrependReactor("create", "certificatesigningrequests", func(a ktesting.Action) (bool, runtime.Object, error) {
			o := a.(ktesting.CreateAction).GetObject().(*certificatesv1.CertificateSigningRequest)
			o.Name = o.GenerateName + time.Now().Format("150405")
			o.Status.Certificate = certificateFor(t, ca, o)
			return false, nil, nil
		})
		r, err := mtls.NewRenewing(mtls.Renewal{
			Issuer:  &kubesource.Issuer{Client: api, SignerName: signerName, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageServerAuth}, Expiration: time.Hour},
			Request: x509.CertificateRequest{DNSNames: []string{"till.shop.svc"}}, Usage: x509.ExtKeyUsageServerAuth,
		})
		check(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		check(t, r.WaitReady(t.Context()))
		time.Sleep(10 * time.Hour)
		cancel()
		check(t, <-ended)
		if s := r.Status(); s.Taken < 15 || s.Taken > 19 || s.Refused > 0 {
			t.Errorf("%+v", s)
		}
	})
}
