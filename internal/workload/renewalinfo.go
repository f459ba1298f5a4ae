package workload

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/url"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RenewalInfo is when a server wishes a certificate to be renewed (RFC 9773).
type RenewalInfo struct {
	Start, End time.Time
	// Explanation is a page for people; "": none.
	Explanation string
	// RetryAfter is how long the answer holds; 0: the server does not say.
	RetryAfter time.Duration
}

// How often a server is asked, as in cert-manager (its
// pkg/controller/certificates/readiness).
const (
	askEvery  = 6 * time.Hour
	askFirst  = time.Hour
	askLast   = 7 * 24 * time.Hour
	askSpread = 10 // the tenth part sooner or later
)

// AskAgain is when the server of a certificate in a Secret is to be asked next when it
// wishes it to be renewed: the zero time where it has not been asked of this one.
func AskAgain(s *cmapi.CertificateStatus, secret *SecretFacts) time.Time {
	if s.ACME == nil || s.ACME.ARI == nil {
		return time.Time{}
	}
	ari := s.ACME.ARI
	if ari.NextCheck == nil || ari.LastChecked == nil || ari.LastChecked.Time.Before(secret.NotBefore) {
		return time.Time{}
	}
	return ari.NextCheck.Time
}

// Informed is the status of a Certificate after its server has said when it wishes the
// certificate to be renewed, or has not: failure tells why. What it said before stays then.
func Informed(o *cmapi.Certificate, secret *SecretFacts, info RenewalInfo, failure string, now time.Time) cmapi.CertificateStatus {
	s := *o.Status.DeepCopy()
	if s.ACME == nil {
		s.ACME = &cmapi.CertificateACMEStatus{}
	}
	if s.ACME.ARI == nil {
		s.ACME.ARI = &cmapi.CertificateACMEARIStatus{}
	}
	ari := s.ACME.ARI
	checked, next := metav1.NewTime(now), metav1.NewTime(now.Add(askIn(info.RetryAfter, string(o.UID), now)))
	ari.LastChecked, ari.NextCheck, ari.LastError = &checked, &next, failure
	if failure == "" {
		start, end := metav1.NewTime(info.Start), metav1.NewTime(info.End)
		ari.SuggestedWindow = &cmapi.ACMERenewalWindow{Start: &start, End: &end}
		ari.ExplanationURL = page(info.Explanation)
	}
	if at, _, err := renewalTime(o, &s, secret); err == nil && !at.IsZero() {
		renewal := metav1.NewTime(at)
		s.RenewalTime = &renewal
	}
	return s
}

// askIn is how long an answer holds, within bounds and spread.
func askIn(wish time.Duration, seed string, now time.Time) time.Duration {
	if wish <= 0 {
		wish = askEvery
	}
	wish = min(max(wish, askFirst), askLast)
	return wish - wish/askSpread + time.Duration(part(seed+" "+now.UTC().Format(time.RFC3339))*float64(2*wish/askSpread))
}

// part is a part of 1 that follows from a text.
func part(of string) float64 {
	sum := sha256.Sum256([]byte(of))
	return float64(binary.BigEndian.Uint64(sum[:8])>>11) / (1 << 53)
}

// page is an address that people may follow; "" where it is none.
func page(address string) string {
	u, err := url.Parse(address)
	if err != nil || len(address) > 1024 || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return ""
	}
	return u.String()
}

// suggested is the time within the window that the server of a certificate suggests, one
// that follows from the Certificate's UID; false where it suggests none that can be: it
// ends after the certificate, or was said of the one before.
func suggested(o *cmapi.Certificate, s *cmapi.CertificateStatus, secret *SecretFacts) (time.Time, bool) {
	if s.ACME == nil || s.ACME.ARI == nil || s.ACME.ARI.SuggestedWindow == nil || AskAgain(s, secret).IsZero() {
		return time.Time{}, false
	}
	w := s.ACME.ARI.SuggestedWindow
	if w.Start == nil || w.End == nil || !w.Start.Time.Before(w.End.Time) || !w.Start.After(secret.NotBefore) || w.End.After(secret.NotAfter) {
		return time.Time{}, false
	}
	within := part(fmt.Sprintf("%s %d %d", o.UID, w.Start.Unix(), w.End.Unix())) * float64(w.End.Sub(w.Start.Time))
	return w.Start.Add(time.Duration(within)).Truncate(time.Second), true
}

// renewalTime is when the certificate in a Secret is to be made anew, by what the server
// suggests, or else by the spec ([RenewalTime]); s is the status that holds what the server
// has said. It tells whether the server's word counted.
func renewalTime(o *cmapi.Certificate, s *cmapi.CertificateStatus, secret *SecretFacts) (at time.Time, byServer bool, err error) {
	if wanted, ok := suggested(o, s, secret); ok {
		at, err = allowedAt(secret.NotBefore, secret.NotAfter, wanted, &o.Spec)
		if err == nil {
			return at, true, nil
		}
	}
	at, err = RenewalTime(secret.NotBefore, secret.NotAfter, &o.Spec)
	return at, false, err
}
