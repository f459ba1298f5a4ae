package load

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/lab/internal/podclient"
)

// busy is a server that is too busy at first, and says that one may come again
// at once; client-go would, without a word.
func busy(t *testing.T) (*httptest.Server, *atomic.Int32) {
	t.Helper()
	asked := new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if asked.Add(1) == 1 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
		}
		fmt.Fprint(w, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}`)
	}))
	t.Cleanup(s.Close)
	return s, asked
}

func TestNoRequestIsMadeTwice(t *testing.T) {
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	for name, request := range map[string]func(context.Context, *clients) error{
		"get": func(ctx context.Context, c *clients) error {
			_, err := c.core.ConfigMaps("b").Get(ctx, "a", metav1.GetOptions{})
			return err
		},
		"create": func(ctx context.Context, c *clients) error {
			_, err := c.core.ConfigMaps("b").Create(ctx, object, metav1.CreateOptions{})
			return err
		},
		"update": func(ctx context.Context, c *clients) error {
			_, err := c.core.ConfigMaps("b").Update(ctx, object, metav1.UpdateOptions{})
			return err
		},
		"delete": func(ctx context.Context, c *clients) error {
			return c.core.ConfigMaps("b").Delete(ctx, "a", metav1.DeleteOptions{})
		},
		"watch": func(ctx context.Context, c *clients) error {
			_, err := c.core.ConfigMaps("b").Watch(ctx, metav1.ListOptions{})
			return err
		},
		"a path": func(ctx context.Context, c *clients) error {
			_, err := c.core.RESTClient().Get().AbsPath("/api/v1/nodes/a/proxy/pods").DoRaw(ctx)
			return err
		},
		"an aggregated call": func(ctx context.Context, c *clients) error {
			return c.wardle.Flunders("b").Delete(ctx, "a", metav1.DeleteOptions{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			server, asked := busy(t)
			c, err := newClients(&rest.Config{Host: server.URL})
			if err != nil {
				t.Fatal(err)
			}
			defer c.close()
			if err := request(t.Context(), c); !apierrors.IsTooManyRequests(err) {
				t.Errorf("want the first answer, got %v", err)
			}
			if n := asked.Load(); n != 1 {
				t.Errorf("the server was asked %d times", n)
			}
		})
	}
}

func TestAChangedKubeconfigIsTakenUp(t *testing.T) {
	file := filepath.Join(t.TempDir(), "admin.conf")
	write := func(server string) {
		t.Helper()
		data := "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: " + server + "}}]\n" +
			"contexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n"
		if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	u := &user{file: file}
	host := func() (host string, c *clients) {
		t.Helper()
		err := u.call(func(now *clients) error {
			host, c = now.config.Host, now
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return host, c
	}
	write("https://one:6443")
	one, first := host()
	_, second := host()
	write("https://two:6443")
	two, _ := host()
	if one != "https://one:6443" || two != "https://two:6443" || first != second {
		t.Errorf("called %s, then %s; the unchanged file kept its clients: %t", one, two, first == second)
	}
	write("{")
	if err := u.call(func(*clients) error { return nil }); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a broken file: %v", err)
	}
}

func TestAPodsFailuresAreTold(t *testing.T) {
	counts := func(requests, failures int64, last string) map[string]podclient.Counts {
		return map[string]podclient.Counts{"steady": {Requests: requests, Failures: failures, Last: last}, "fresh": {Requests: 10}}
	}
	for name, row := range map[string]struct {
		before, now map[string]podclient.Counts
		want        string
	}{
		"none has failed":                 {counts(10, 2, ""), counts(14, 2, ""), ""},
		"the last one failed":             {counts(10, 2, ""), counts(14, 3, "refused"), "1 of 4 steady requests failed; the last request: refused"},
		"one failed before the last":      {counts(10, 2, ""), counts(14, 3, ""), "1 of 4 steady requests failed; the last request: succeeded"},
		"its program was started again":   {counts(10, 2, ""), counts(3, 0, ""), ""},
		"which was not well at its start": {counts(10, 2, ""), counts(3, 1, "refused"), "1 of 3 steady requests failed; the last request: refused"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := compare(row.before, row.now); err != nil {
				got = err.Error()
			}
			if got != row.want {
				t.Errorf("want %q, got %q", row.want, got)
			}
		})
	}
}

func TestAnAnswerThatMayChangeIsAskedForAgain(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n := 0
	err := eventually(ctx, func(context.Context) error {
		if n++; n < 3 {
			return notYet("no pod yet")
		}
		return nil
	})
	if err != nil || n != 3 {
		t.Errorf("asked %d times: %v", n, err)
	}
	n = 0
	err = eventually(ctx, func(context.Context) error { n++; return context.DeadlineExceeded })
	if err == nil || n != 1 {
		t.Errorf("a failure was asked for again: %d times, %v", n, err)
	}
}

func TestARefusedRawRequestHasACode(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
	}))
	defer server.Close()
	c, err := newClients(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	_, err = c.core.RESTClient().Get().AbsPath("/api/v1/nodes/a/proxy/pods").DoRaw(t.Context())
	if err == nil {
		t.Fatal("no error")
	}
	if got := oneLine(err); !strings.Contains(got, "403") {
		t.Errorf("the error says %q", got)
	}
}
