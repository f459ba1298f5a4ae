package workload_test

import (
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/kubepki/kubepki/internal/workload"
)

// TestTheServersWordIsKeptWithinBounds: whatever a server answers, the renewal is within the
// life of the certificate and, where the window is, within the window; the same in each
// process; and the server is asked again within an hour to eight days.
func TestTheServersWordIsKeptWithinBounds(t *testing.T) {
	c := healthy(t)
	facts := workload.FactsOf(c.secret)
	rapid.Check(t, func(t *rapid.T) {
		moment := func(name string) time.Time {
			return made.Add(time.Duration(rapid.Int64Range(-100*24, 200*24).Draw(t, name)) * time.Hour)
		}
		o := c.certificate.DeepCopy()
		o.UID = types.UID(rapid.StringN(1, 8, -1).Draw(t, "uid"))
		now := made.Add(time.Duration(rapid.Int64Range(0, 60*24).Draw(t, "now")) * time.Hour)
		info := workload.RenewalInfo{
			Start: moment("start"), End: moment("end"),
			RetryAfter: time.Duration(rapid.Int64Range(-100, 1e6).Draw(t, "retryAfter")) * time.Second,
		}
		ordinary, err := workload.RenewalTime(facts.NotBefore, facts.NotAfter, &o.Spec)
		if err != nil {
			t.Fatal(err)
		}
		s := workload.Informed(o, &facts, info, "", now)
		at, w := s.RenewalTime.Time, s.ACME.ARI.SuggestedWindow
		good := info.Start.Before(info.End) && info.Start.After(facts.NotBefore) && !info.End.After(facts.NotAfter)
		if good && (at.Before(w.Start.Time) || !at.Before(w.End.Time)) || !good && !at.Equal(ordinary) {
			t.Fatalf("renewed at %s, window %s to %s, else %s", at, info.Start, info.End, ordinary)
		}
		if again := workload.Informed(o, &facts, info, "", now); !again.RenewalTime.Equal(s.RenewalTime) {
			t.Fatal("another process has another time")
		}
		next := workload.AskAgain(&s, &facts).Sub(now)
		if next < 50*time.Minute || next > 8*24*time.Hour {
			t.Fatalf("asked again in %s", next)
		}
		// One that fails then changes nothing of it.
		o.Status = s
		if failed := workload.Informed(o, &facts, workload.RenewalInfo{}, "no answer", now.Add(time.Hour)); !failed.RenewalTime.Equal(s.RenewalTime) || failed.ACME.ARI.LastError != "no answer" {
			t.Fatalf("a failure changed it to %s", failed.RenewalTime)
		}
	})
}

func TestWhatOthersChangeIsMended(t *testing.T) {
	window := func(c *cluster, start, end time.Duration) {
		facts := workload.FactsOf(c.secret)
		c.certificate.Status = workload.Informed(c.certificate, &facts, workload.RenewalInfo{Start: made.Add(start), End: made.Add(end)}, "", today)
	}
	for name, r := range map[string]struct {
		change func(c *cluster, s *workload.State)
		want   workload.Action
	}{
		"nothing":                         {func(*cluster, *workload.State) {}, workload.Rest},
		"a password":                      {func(_ *cluster, s *workload.State) { s.PasswordChanged = true }, workload.Mend},
		"a password, of another's Secret": {func(_ *cluster, s *workload.State) { s.PasswordChanged, s.Owner = true, false }, workload.Rest},
		"a password, while one is waiting": {func(c *cluster, s *workload.State) {
			c.failed(1, today.Add(-time.Minute))
			s.Differs, s.PasswordChanged = nil, true
		}, workload.Mend},
		"a password, beside a key that does not fit": {func(c *cluster, s *workload.State) {
			c.secret.Data[corev1.TLSPrivateKeyKey] = []byte("x")
			facts := workload.FactsOf(c.secret)
			s.Secret, s.PasswordChanged = &facts, true
		}, workload.Issue},
		"the server's window, which is to come": {func(c *cluster, _ *workload.State) { window(c, 30*time.Hour, 40*time.Hour) }, workload.Rest},
		"the server's window, which is over":    {func(c *cluster, _ *workload.State) { window(c, 12*time.Hour, 23*time.Hour) }, workload.Issue},
		"it is over, but said never to be renewed": {func(c *cluster, _ *workload.State) {
			c.certificate.Spec.Renewal = &cmapi.CertificateRenewal{Policy: cmapi.CertificateRenewalPolicyDisabled}
			window(c, 12*time.Hour, 23*time.Hour)
		}, workload.Rest},
		"it is over, and was said of a certificate before": {func(c *cluster, _ *workload.State) {
			window(c, 12*time.Hour, 23*time.Hour)
			at := metav1.NewTime(made.Add(-48 * time.Hour))
			c.certificate.Status.ACME.ARI.LastChecked = &at
		}, workload.Rest},
	} {
		t.Run(name, func(t *testing.T) {
			c := healthy(t)
			s := c.state(t)
			r.change(c, &s)
			if v := workload.Decide(s, today); v.Action != r.want {
				t.Errorf("%v: %s %s", v.Action, v.Reason, v.Message)
			}
		})
	}
}
