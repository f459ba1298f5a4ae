package approve_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubepki/kubepki/lab/internal/approve"
)

// What Run does with the real API server, and when that has been away, package
// lab's tests show. This is what they cannot: an API server that fails, and
// requests of every kind side by side.
func TestRunApprovesWhatIsRightAndTouchesNothingElse(t *testing.T) {
	named := func(name string, csr *certificatesv1.CertificateSigningRequest) *certificatesv1.CertificateSigningRequest {
		csr.ObjectMeta = metav1.ObjectMeta{Name: name, UID: "1"}
		return csr
	}
	judged := func(csr *certificatesv1.CertificateSigningRequest, condition certificatesv1.RequestConditionType) *certificatesv1.CertificateSigningRequest {
		csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: condition, Status: "True"}}
		return csr
	}
	right := func(*asked) {}
	client := fake.NewClientset(
		named("right", ask(t, right)),
		named("stranger", ask(t, dns("kubernetes"))),
		named("denied", judged(ask(t, right), certificatesv1.CertificateDenied)),
		named("failed", judged(ask(t, right), certificatesv1.CertificateFailed)),
	)
	var mu sync.Mutex
	failures := 2
	client.PrependReactor("update", "certificatesigningrequests", func(clienttesting.Action) (bool, runtime.Object, error) {
		mu.Lock()
		defer mu.Unlock()
		failures--
		return failures >= 0, nil, errors.New("the API server is away")
	})
	var log bytes.Buffer // read when Run has ended
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- approve.Run(ctx, client, lookup, slog.New(slog.NewTextHandler(&log, nil))) }()
	get := func(name string) *certificatesv1.CertificateSigningRequest {
		csr, err := client.CertificatesV1().CertificateSigningRequests().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return csr
	}
	err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		return len(get("right").Status.Conditions) > 0, nil
	})
	cancel()
	if ended := <-ended; err != nil || ended != nil {
		t.Fatalf("%v, %v\n%s", err, ended, &log)
	}
	if got := get("right").Status.Conditions[0]; got.Type != certificatesv1.CertificateApproved || got.Status != "True" {
		t.Errorf("the right one is %v", got)
	}
	for name, want := range map[string]int{"stranger": 0, "denied": 1, "failed": 1} {
		if got := get(name).Status.Conditions; len(got) != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := log.String(); !strings.Contains(got, "left alone") || !strings.Contains(got, "stranger") || !strings.Contains(got, "the API server is away") {
		t.Errorf("the log does not say what was done and why:\n%s", got)
	}
}
