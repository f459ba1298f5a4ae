package proxyclient

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"
)

func TestHealthFollowsTheWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		synced, lines := false, &strings.Builder{}
		w := &watcher{failures: lines, synced: []cache.InformerSynced{func() bool { return synced }}}
		is := func(when string, want int) {
			t.Helper()
			answer := httptest.NewRecorder()
			w.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/healthz", nil))
			if answer.Code != want {
				t.Errorf("%s: %d %s; want %d", when, answer.Code, answer.Body, want)
			}
		}
		is("before all is listed", http.StatusServiceUnavailable)
		synced = true
		is("when all is listed", http.StatusOK)
		for _, end := range []error{io.EOF, apierrors.NewResourceExpired("old"), apierrors.NewGone("old")} { //nolint:staticcheck // servers that say so are served
			w.fail("services", end)
		}
		is("after watches that ended as they do", http.StatusOK)
		if lines.Len() > 0 {
			t.Errorf("their ends are told as failures: %s", lines)
		}
		w.fail("services", errors.New("x509: certificate signed by unknown authority"))
		is("after a failure", http.StatusServiceUnavailable)
		if !strings.HasSuffix(lines.String(), "Z services: x509: certificate signed by unknown authority\n") {
			t.Errorf("the failure is told as %q", lines)
		}
		time.Sleep(settled)
		is("when nothing has failed for a while", http.StatusOK)
	})
}
