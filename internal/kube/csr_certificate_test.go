package kube_test

import (
	"errors"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/kube"
)

func TestCertificateIsWrittenOnTheRequestThatWasSigned(t *testing.T) {
	condition := func(kind certificatesv1.RequestConditionType) []certificatesv1.CertificateSigningRequestCondition {
		return []certificatesv1.CertificateSigningRequestCondition{{Type: kind, Status: corev1.ConditionTrue}}
	}
	rows := map[string]struct {
		uid       string
		status    certificatesv1.CertificateSigningRequestStatus
		conflicts int
		want      string // of the error
	}{
		"approved":           {"1", certificatesv1.CertificateSigningRequestStatus{Conditions: condition("Approved")}, 0, ""},
		"approved, and busy": {"1", certificatesv1.CertificateSigningRequestStatus{Conditions: condition("Approved")}, 2, ""},
		"made anew":          {"2", certificatesv1.CertificateSigningRequestStatus{Conditions: condition("Approved")}, 0, "made anew"},
		"denied meanwhile":   {"1", certificatesv1.CertificateSigningRequestStatus{Conditions: condition("Denied")}, 0, "denied already"},
		"issued meanwhile":   {"1", certificatesv1.CertificateSigningRequestStatus{Conditions: condition("Approved"), Certificate: []byte("theirs")}, 0, "issued already"},
		"not approved":       {"1", certificatesv1.CertificateSigningRequestStatus{}, 0, "pending already"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			client := fake.NewClientset(&certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "web", UID: types.UID(row.uid)}, Status: row.status})
			client.PrependReactor("update", "certificatesigningrequests", func(clienttesting.Action) (bool, runtime.Object, error) {
				if row.conflicts == 0 {
					return false, nil, nil
				}
				row.conflicts--
				return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "certificatesigningrequests"}, "web", errors.New("changed"))
			})
			err := kube.SetCertificate(t.Context(), client, csr.Request{Name: "web", UID: "1"}, []byte("ours"))
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Fatalf("got %v, want %q", err, row.want)
			}
			o, err := client.CertificatesV1().CertificateSigningRequests().Get(t.Context(), "web", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := string(o.Status.Certificate); (got == "ours") != (row.want == "") {
				t.Errorf("the certificate is %q", got)
			}
		})
	}
}
