package controller

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubepki/kubepki/internal/csr"
)

func TestAnswersAboutRightsAreRememberedForTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI()
		access := newAccess(a.client(t).AuthorizationV1().SubjectAccessReviews(), NewMetrics(prometheus.NewRegistry()))
		r := csr.Request{Username: "u", Groups: []string{"a", "b"}, Extra: map[string][]string{"k": {"v"}}}
		ask := func(r csr.Request, permission string, want csr.Answer) {
			t.Helper()
			if got, err := access.may(t.Context(), r, permission); err != nil || got != want {
				t.Errorf("got %v, %v, want %v", got, err, want)
			}
		}
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { ask(r, "nodeclient", csr.Yes) })
		}
		all.Wait()
		if n := a.count("POST subjectaccessreviews"); n != 1 {
			t.Errorf("%d questions for one identity at the same time", n)
		}
		a.mu.Lock()
		a.allowed = false
		a.mu.Unlock()
		time.Sleep(accessFor - time.Millisecond)
		ask(r, "nodeclient", csr.Yes)
		time.Sleep(time.Millisecond)
		ask(r, "nodeclient", csr.No)
		before := a.count("POST subjectaccessreviews")
		for name, other := range map[string]csr.Request{
			"user":   {Username: "v", Groups: r.Groups, Extra: r.Extra},
			"uid":    {Username: "u", UserUID: "1", Groups: r.Groups, Extra: r.Extra},
			"groups": {Username: "u", Groups: []string{"ab"}, Extra: r.Extra},
			"extra":  {Username: "u", Groups: r.Groups, Extra: map[string][]string{"k": {"w"}}},
		} {
			ask(other, "nodeclient", csr.No)
			if before++; a.count("POST subjectaccessreviews") != before {
				t.Errorf("another %s is taken for the same identity", name)
			}
		}
		ask(r, "selfnodeclient", csr.No)
		if a.count("POST subjectaccessreviews") != before+1 {
			t.Error("another permission is taken for the same")
		}
		time.Sleep(time.Hour)
		ask(r, "nodeclient", csr.No)
		if len(access.answers) != 1 {
			t.Errorf("%d old answers are kept", len(access.answers)-1)
		}
	})
}
