package controller

import (
	"fmt"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

func TestOldRequestsAreRemovedAsUpstreamDoes(t *testing.T) {
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	authority := newFixed(t)
	certificate := func(ends time.Time) []byte {
		c, err := issue.Sign(issue.Template{Subject: authority.a.Certificate.Subject, NotBefore: now.Add(-48 * time.Hour), NotAfter: ends}, newKey(t).Public(), authority.a)
		if err != nil {
			t.Fatal(err)
		}
		return trust.EncodeCertificates(c)
	}
	tests := map[string]struct {
		made      time.Duration // ago
		condition certificatesv1.RequestConditionType
		since     time.Duration // ago
		chain     []byte
		want      bool
	}{
		"pending for 25 hours":                  {made: 25 * time.Hour, want: true},
		"pending for 23 hours":                  {made: 23 * time.Hour},
		"denied for 61 minutes":                 {25 * time.Hour, certificatesv1.CertificateDenied, 61 * time.Minute, nil, true},
		"denied for 59 minutes":                 {25 * time.Hour, certificatesv1.CertificateDenied, 59 * time.Minute, nil, false},
		"failed for 61 minutes":                 {25 * time.Hour, certificatesv1.CertificateFailed, 61 * time.Minute, nil, true},
		"failed for 59 minutes":                 {25 * time.Hour, certificatesv1.CertificateFailed, 59 * time.Minute, nil, false},
		"issued for 61 minutes":                 {25 * time.Hour, certificatesv1.CertificateApproved, 61 * time.Minute, certificate(now.AddDate(1, 0, 0)), true},
		"issued for 59 minutes":                 {25 * time.Hour, certificatesv1.CertificateApproved, 59 * time.Minute, certificate(now.AddDate(1, 0, 0)), false},
		"issued, and the certificate has ended": {25 * time.Hour, certificatesv1.CertificateApproved, time.Minute, certificate(now.Add(-time.Second)), true},
		"approved for 23 hours, not issued":     {48 * time.Hour, certificatesv1.CertificateApproved, 23 * time.Hour, nil, false},
		"approved for 25 hours, not issued":     {48 * time.Hour, certificatesv1.CertificateApproved, 25 * time.Hour, nil, true},
		"issued with what is no certificate":    {25 * time.Hour, certificatesv1.CertificateApproved, time.Minute, []byte("x"), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(now.Add(-test.made))}}
			if test.condition != "" {
				o.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: test.condition, Status: corev1.ConditionTrue, LastUpdateTime: metav1.NewTime(now.Add(-test.since))}}
			}
			o.Status.Certificate = test.chain
			e := &entry{kept: see(o, wantAll).kept}
			if got := e.isOld(now); got != test.want {
				t.Errorf("got %v, state %s", got, e.state)
			}
		})
	}
}

func TestCleanerRemovesOnlyWhatIsOld(t *testing.T) {
	within(t, func(o *CSROptions) { o.Approve, o.Sources = nil, nil }, func(t *testing.T, b *bench) {
		for i := range 20 {
			b.create(bootstrap(t, fmt.Sprint("old-", i), fmt.Sprint("n", i), newKey(t)))
		}
		time.Sleep(keepWaiting + time.Minute)
		b.create(bootstrap(t, "new", "new", newKey(t)))
		waitFor(t, "it is known", func() bool { return b.loop.ledger.depths().known == 21 })
		NewCleaner(b.loop).clean(t.Context(), time.Now())
		waitFor(t, "one is left", func() bool { return b.loop.ledger.depths().known == 1 })
		if b.state("new") != csr.Pending {
			t.Error("the new one is gone")
		}
	})
}
