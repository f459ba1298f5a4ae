package kube_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/kube"
)

func object(name string, uid types.UID, states ...certificatesv1.RequestConditionType) *certificatesv1.CertificateSigningRequest {
	o := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: name, UID: uid}}
	for _, s := range states {
		o.Status.Conditions = append(o.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: s, Status: corev1.ConditionTrue})
	}
	return o
}

func TestApprovalOfTheRequestThatWasJudged(t *testing.T) {
	approve := kube.Approval{Type: certificatesv1.CertificateApproved, Reason: "Test", Message: "by the test"}
	for name, row := range map[string]struct {
		there   *certificatesv1.CertificateSigningRequest
		changed bool
		want    string // of the error
	}{
		"one that waits is approved":          {object("a", "uid-1"), true, ""},
		"one that is approved stays so":       {object("a", "uid-1", certificatesv1.CertificateApproved), false, ""},
		"one that was denied is refused":      {object("a", "uid-1", certificatesv1.CertificateDenied), false, "is denied already"},
		"one that has failed is refused":      {object("a", "uid-1", certificatesv1.CertificateFailed), false, "is failed already"},
		"another of the same name is refused": {object("a", "uid-2"), false, "was made anew"},
		"one that is gone is not found":       {object("b", "uid-1"), false, "not found"},
	} {
		t.Run(name, func(t *testing.T) {
			client := fake.NewClientset(row.there)
			changed, err := kube.SetApproval(t.Context(), client, csr.Request{Name: "a", UID: "uid-1"}, approve)
			if changed != row.changed || (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Fatalf("got %t, %v; want %t and an error with %q", changed, err, row.changed, row.want)
			}
			if !changed {
				return
			}
			got, err := client.CertificatesV1().CertificateSigningRequests().Get(t.Context(), "a", metav1.GetOptions{})
			if err != nil || len(got.Status.Conditions) != 1 || got.Status.Conditions[0].Message != "by the test" {
				t.Errorf("the request is %+v, %v", got.Status, err)
			}
		})
	}
}

func TestAListGoesOnWhenItsRevisionIsGone(t *testing.T) {
	client := fake.NewClientset()
	var asked []string
	client.PrependReactor("list", "certificatesigningrequests", func(a k8stesting.Action) (bool, runtime.Object, error) {
		token := a.(k8stesting.ListActionImpl).ListOptions.Continue
		asked = append(asked, token)
		switch token {
		case "":
			return true, &certificatesv1.CertificateSigningRequestList{ListMeta: metav1.ListMeta{Continue: "old"}, Items: []certificatesv1.CertificateSigningRequest{*object("a", "uid-1")}}, nil
		case "old":
			gone := apierrors.NewResourceExpired("too old")
			gone.ErrStatus.Continue = "new"
			return true, nil, gone
		}
		return true, &certificatesv1.CertificateSigningRequestList{Items: []certificatesv1.CertificateSigningRequest{*object("b", "uid-1")}}, nil
	})
	var names []string
	err := kube.EachPage(t.Context(), client, "", func(page []csr.Request) error {
		for _, r := range page {
			names = append(names, r.Name)
		}
		return nil
	})
	if fmt.Sprint(names) != "[a b]" || err != nil {
		t.Errorf("got %v, %v after asking with %q", names, err, asked)
	}
}

func TestWaitingEndsWithWhatBecomesOfARequest(t *testing.T) {
	for name, row := range map[string]struct {
		after func(o *certificatesv1.CertificateSigningRequest) error
		last  csr.State
		want  string
	}{
		"a certificate": {func(o *certificatesv1.CertificateSigningRequest) error {
			o.Status.Certificate = []byte("pem")
			return nil
		}, csr.Issued, ""},
		"a denial": {func(o *certificatesv1.CertificateSigningRequest) error {
			o.Status = object("a", "uid-1", certificatesv1.CertificateDenied).Status
			return nil
		}, csr.Denied, "is denied already"},
		"an approval alone": {func(o *certificatesv1.CertificateSigningRequest) error {
			o.Status = object("a", "uid-1", certificatesv1.CertificateApproved).Status
			return nil
		}, csr.Approved, "deadline"},
		"no approval":         {func(*certificatesv1.CertificateSigningRequest) error { return nil }, csr.Pending, "deadline"},
		"another of its name": {func(o *certificatesv1.CertificateSigningRequest) error { o.UID = "uid-2"; return nil }, "", "made anew"},
		"its end": {func(*certificatesv1.CertificateSigningRequest) error {
			return apierrors.NewNotFound(schema.GroupResource{}, "a")
		}, "", "not found"},
		"nothing, and time is up": {func(*certificatesv1.CertificateSigningRequest) error { return errors.New("the API server is away") }, "", "deadline"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := fake.NewClientset()
				begun := time.Now()
				client.PrependReactor("get", "certificatesigningrequests", func(k8stesting.Action) (bool, runtime.Object, error) {
					o := object("a", "uid-1")
					if time.Since(begun) < 10*time.Second {
						return true, nil, errors.New("the API server is away")
					}
					err := row.after(o)
					return true, o, err
				})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				got, last, err := kube.AwaitIssued(ctx, client, "a", "uid-1")
				if row.want == "" && (err != nil || string(got) != "pem") || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
					t.Errorf("got %q, %v; want an error with %q", got, err, row.want)
				}
				if last != row.last {
					t.Errorf("seen last as %q, want %q", last, row.last)
				}
			})
		})
	}
}
