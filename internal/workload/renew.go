package workload

import (
	"fmt"
	"time"
	_ "time/tzdata" // images have no zone database: windows would open at no time

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/robfig/cron/v3"
)

// RenewalTime is when a certificate is to be made anew, as users see it in
// status.renewalTime: spec.renewBefore or renewBeforePercentage before its end, or after
// two thirds of its life; with spec.renewal.windows not before the first window from
// then on. The zero time says that it is never renewed (policy Disabled). An error tells
// what of spec.renewal cannot be; the time beside it is that without windows, but for an
// unknown policy.
func RenewalTime(notBefore, notAfter time.Time, spec *cmapi.CertificateSpec) (time.Time, error) {
	// Seconds, as the status has them: what is compared with it must not lie between.
	return allowedAt(notBefore, notAfter, notAfter.Add(-renewBefore(notAfter.Sub(notBefore), spec)).Truncate(time.Second), spec)
}

// allowedAt is the first moment from wanted on at which spec.renewal lets a certificate be
// made anew.
func allowedAt(notBefore, notAfter, wanted time.Time, spec *cmapi.CertificateSpec) (time.Time, error) {
	if spec.Renewal == nil {
		return wanted, nil
	}
	switch spec.Renewal.Policy {
	case cmapi.CertificateRenewalPolicyDisabled:
		return time.Time{}, nil
	case cmapi.CertificateRenewalPolicyRenewBefore:
		return inWindow(notBefore, notAfter, wanted, spec.Renewal.Windows)
	}
	return time.Time{}, fmt.Errorf("unsupported renewal policy: %s", spec.Renewal.Policy)
}

// renewBefore is how long before its end a certificate is renewed. What would be
// longer than its life counts for nothing.
func renewBefore(life time.Duration, spec *cmapi.CertificateSpec) time.Duration {
	if b := spec.RenewBefore; b != nil && b.Duration > 0 && b.Duration < life {
		return b.Duration
	}
	if p := spec.RenewBeforePercentage; p != nil && *p > 0 && *p < 100 {
		return time.Duration(float64(life) * float64(*p) / 100) // a product of integers overflows after three years
	}
	return life / 3
}

// inWindow is the first moment from wanted on that lies in a window.
func inWindow(notBefore, notAfter, wanted time.Time, windows []cmapi.CertificateRenewalWindows) (time.Time, error) {
	if len(windows) == 0 {
		return wanted, nil
	}
	var best time.Time
	for _, w := range windows {
		at, err := nextInWindow(w, notAfter, wanted)
		if err != nil {
			return wanted, err
		}
		if !at.IsZero() && (best.IsZero() || at.Before(best)) {
			best = at
		}
	}
	if best.IsZero() {
		return wanted, fmt.Errorf("cannot find a time with the given windows between %s and %s for: %s", notBefore, notAfter, wanted)
	}
	return best, nil
}

// nextInWindow is wanted itself where a window is open then, or the next opening; the
// zero time where that comes after the certificate's end.
func nextInWindow(w cmapi.CertificateRenewalWindows, notAfter, wanted time.Time) (time.Time, error) {
	zone := time.UTC
	if w.Timezone != "" {
		var err error
		if zone, err = time.LoadLocation(w.Timezone); err != nil {
			return time.Time{}, fmt.Errorf("error parsing timezone in window %w", err)
		}
	}
	parser := cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)
	schedule, err := parser.Parse("CRON_TZ=" + zone.String() + " " + w.Cron)
	if err != nil {
		return time.Time{}, fmt.Errorf("error parsing cron in window failed to parse cron spec '%s': %w", w.Cron, err)
	}
	if w.WindowDuration == nil || w.WindowDuration.Duration <= 0 {
		return time.Time{}, fmt.Errorf("windowDuration must be a positive duration in window %v", w)
	}
	// An opening no longer ago than the window is long: it is still open.
	open := schedule.Next(wanted.Add(-w.WindowDuration.Duration))
	switch {
	case open.IsZero() || open.After(notAfter.Add(w.WindowDuration.Duration)):
		return time.Time{}, nil
	case open.After(wanted):
		return open, nil
	}
	return wanted, nil
}

// A certificate is renewed up to a fiftieth of its time before its renewal time, but
// no more than a day: what was made at once is not all due at once.
const (
	jitterPart = 50
	jitterMost = 24 * time.Hour
)

// Due is when a certificate is renewed in truth: at its renewal time, or a little
// before it, by a part that follows from seed and is the same in every process. Where
// windows say when it may be it is the renewal time itself.
func Due(renewal, notBefore time.Time, spec *cmapi.CertificateSpec, seed string) time.Time {
	if renewal.IsZero() || spec.Renewal != nil && len(spec.Renewal.Windows) > 0 {
		return renewal
	}
	most := min(renewal.Sub(notBefore)/jitterPart, jitterMost)
	if most <= 0 {
		return renewal
	}
	return renewal.Add(-time.Duration(part(seed+" "+renewal.UTC().Format(time.RFC3339)) * float64(most)))
}

// FirstBackoff and LastBackoff are cert-manager's defaults (its
// pkg/controller/certificates/trigger). RefusedBackoff is the first wait where the API
// server does not take an object of ours: once a quota or a right has been set right
// nobody waits an hour.
const (
	FirstBackoff   = time.Hour
	LastBackoff    = 32 * time.Hour
	RefusedBackoff = time.Minute
)

// Backoff is until when a Certificate whose issuance has failed is left alone: first
// after the last failure, twice as long after each further one, no longer than most.
func Backoff(status *cmapi.CertificateStatus, first, most time.Duration) time.Time {
	if status.LastFailureTime == nil || first <= 0 {
		return time.Time{}
	}
	if c := Condition(status, cmapi.CertificateConditionIssuing); c != nil && (c.Reason == ReasonRequestNotWritten || c.Reason == ReasonSecretNotWritten) {
		first = min(first, RefusedBackoff)
	}
	delay := first
	if n := status.FailedIssuanceAttempts; n != nil {
		for i := 1; i < *n && delay < most; i++ {
			delay *= 2
		}
	}
	return status.LastFailureTime.Add(max(first, min(delay, most)))
}
