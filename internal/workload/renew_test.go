package workload_test

import (
	"fmt"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/cert-manager/cert-manager/pkg/util/pki"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/kubepki/kubepki/internal/workload"
)

// TestRenewalTimeIsUpstreams compares with cert-manager's own function, so that a
// change-over in either direction changes no status.
func TestRenewalTimeIsUpstreams(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rapid.Int64Range(0, 400*24*3600).Draw(t, "begin")) * time.Second)
		life := time.Duration(rapid.Int64Range(60, 800*24*3600).Draw(t, "life")) * time.Second
		spec := &cmapi.CertificateSpec{}
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 1:
			spec.RenewBefore = &metav1.Duration{Duration: time.Duration(rapid.Int64Range(-10, int64(life/time.Second)*2).Draw(t, "before")) * time.Second}
		case 2:
			part := rapid.Int32Range(-5, 110).Draw(t, "percentage")
			spec.RenewBeforePercentage = &part
		}
		if rapid.Bool().Draw(t, "renewal") {
			spec.Renewal = &cmapi.CertificateRenewal{Policy: rapid.SampledFrom([]cmapi.CertificateRenewalPolicy{
				cmapi.CertificateRenewalPolicyDisabled, cmapi.CertificateRenewalPolicyRenewBefore, "Other",
			}).Draw(t, "policy")}
			for range rapid.IntRange(0, 2).Draw(t, "windows") {
				spec.Renewal.Windows = append(spec.Renewal.Windows, cmapi.CertificateRenewalWindows{
					Timezone: rapid.SampledFrom([]string{"", "UTC", "Europe/Vienna", "Nowhere/None"}).Draw(t, "zone"),
					Cron:     rapid.SampledFrom([]string{"0 2 * * *", "30 22 * * 6", "0 0 1 1 *", "*/5 * * * *", "61 * * * *", "0 0 30 2 *"}).Draw(t, "cron"),
					WindowDuration: rapid.SampledFrom([]*metav1.Duration{
						{Duration: time.Hour}, {Duration: 48 * time.Hour}, {Duration: time.Second}, {}, nil,
					}).Draw(t, "duration"),
				})
			}
		}
		got, err := workload.RenewalTime(begin, begin.Add(life), spec)
		want, wantErr := pki.RenewalTime(begin, begin.Add(life), spec.RenewBefore, spec.RenewBeforePercentage, spec.Renewal)
		if (err != nil) != (wantErr != nil) {
			t.Fatalf("got %v, upstream %v", err, wantErr)
		}
		if want == nil {
			want = &metav1.Time{}
		}
		if err == nil && !got.Equal(want.Time) {
			t.Fatalf("got %s, upstream %s", got, want)
		}
	})
}

func TestWhatWasMadeAtOnceIsNotAllDueAtOnce(t *testing.T) {
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	renewal := begin.Add(60 * 24 * time.Hour)
	spec := &cmapi.CertificateSpec{}
	hours := map[int]int{}
	for i := range 2000 {
		seed := fmt.Sprint("uid-", i)
		due := workload.Due(renewal, begin, spec, seed)
		if due.After(renewal) || due.Before(renewal.Add(-24*time.Hour)) {
			t.Fatalf("due at %s, where the renewal is at %s", due, renewal)
		}
		if again := workload.Due(renewal, begin, spec, seed); !again.Equal(due) {
			t.Fatalf("due at %s, and then at %s", due, again)
		}
		hours[int(renewal.Sub(due)/time.Hour)]++
	}
	for h := range 24 {
		if n := hours[h]; n < 40 || n > 140 { // 83 on average
			t.Errorf("%d are due in hour %d before the renewal", n, h)
		}
	}
	spec.Renewal = &cmapi.CertificateRenewal{Policy: cmapi.CertificateRenewalPolicyRenewBefore, Windows: make([]cmapi.CertificateRenewalWindows, 1)}
	if due := workload.Due(renewal, begin, spec, "a"); !due.Equal(renewal) {
		t.Errorf("with windows it is due at %s, before the window of %s", due, renewal)
	}
}

func TestBackoffDoublesFromAnHourToThirtyTwo(t *testing.T) {
	at := metav1.NewTime(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
	for _, row := range []struct {
		attempts int
		hours    time.Duration
	}{{-1, 1}, {0, 1}, {1, 1}, {2, 2}, {3, 4}, {6, 32}, {7, 32}, {1 << 40, 32}} {
		s := &cmapi.CertificateStatus{LastFailureTime: &at, FailedIssuanceAttempts: &row.attempts}
		if got := workload.Backoff(s, time.Hour, 32*time.Hour).Sub(at.Time); got != row.hours*time.Hour {
			t.Errorf("after %d attempts it waits %s, want %d hours", row.attempts, got, row.hours)
		}
	}
	if got := workload.Backoff(&cmapi.CertificateStatus{}, time.Hour, 32*time.Hour); !got.IsZero() {
		t.Errorf("without a failure it waits until %s", got)
	}
}
