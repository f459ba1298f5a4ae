package live_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls/frontproxy"
	"github.com/kubepki/kubepki/mtls/frontproxy/live"
)

func authority(name string) string {
	return string(tlstest.PEM(tlstest.Authority(tlstest.Panics, name)))
}

func config(bundle, names string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "extension-apiserver-authentication"}, Data: map[string]string{
		"requestheader-client-ca-file": bundle, "requestheader-allowed-names": names, "requestheader-username-headers": `["X-Remote-User"]`,
	}}
}

func exampleConfigMap() *corev1.ConfigMap {
	return config(authority("front-proxy-ca"), `["front-proxy-client"]`)
}

// heard is what a source has told of.
type heard struct {
	mu  sync.Mutex
	all []string
}

func (h *heard) told(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := "taken up"
	if err != nil {
		text = err.Error()
	}
	h.all = append(h.all, text)
}

func (h *heard) last() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.all) == 0 {
		return ""
	}
	return h.all[len(h.all)-1]
}

// The ConfigMap comes, changes, breaks, is mended and goes: what was good stays.
func TestSettingsFollowTheConfigMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		maps := client.CoreV1().ConfigMaps("kube-system")
		var h heard
		s := live.New(client, h.told)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx) })
		defer running.Wait()
		defer stop()

		var last *frontproxy.Settings
		// now looks after all that was to be done is done.
		now := func(what, told string, changed bool) *frontproxy.Settings {
			t.Helper()
			time.Sleep(time.Minute)
			got, err := s.Settings()
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if !strings.Contains(h.last(), told) || (got != last) != changed {
				t.Errorf("%s: told %q, changed: %v", what, h.last(), got != last)
			}
			last = got
			return got
		}
		must := func(_ *corev1.ConfigMap, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}

		time.Sleep(time.Minute)
		if got, err := s.Settings(); err == nil || !strings.Contains(err.Error(), "kube-system/extension-apiserver-authentication does not exist") {
			t.Errorf("before there is one: %v, %v", got, err)
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		if err := s.WaitReady(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "does not exist") {
			t.Errorf("waited in vain: %v", err)
		}
		cancel()

		first, second := authority("first"), authority("second")
		other := config(second, "[]")
		other.Name = "another"
		must(maps.Create(ctx, other, metav1.CreateOptions{}))
		must(maps.Create(ctx, config(first, `["a"]`), metav1.CreateOptions{}))
		if err := s.WaitReady(ctx); err != nil {
			t.Error(err)
		}
		if got := now("created", "taken up", true); len(got.Bundle.Anchors()) != 1 || got.Bundle.Anchors()[0].Subject.CommonName != "first" {
			t.Errorf("%+v", got)
		}
		labelled := config(first, `["a"]`)
		labelled.Labels = map[string]string{"a": "b"}
		must(maps.Update(ctx, labelled, metav1.UpdateOptions{}))
		now("changed elsewhere", "taken up", false)
		must(maps.Update(ctx, config(first[:200], `["a"]`), metav1.UpdateOptions{}))
		now("broken", "requestheader-client-ca-file: ", false)
		must(maps.Update(ctx, config(first, `["a"]`), metav1.UpdateOptions{}))
		now("as it was before", "taken up", false)
		must(maps.Update(ctx, config(first[:200], `["a"]`), metav1.UpdateOptions{}))
		now("broken again", "requestheader-client-ca-file: ", false)
		must(maps.Update(ctx, config(first+second, `["a"]`), metav1.UpdateOptions{}))
		if got := now("mended", "taken up", true); len(got.Bundle.Anchors()) != 2 {
			t.Errorf("%+v", got)
		}
		if err := maps.Delete(ctx, "extension-apiserver-authentication", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		now("deleted", "was deleted", false)
		must(maps.Create(ctx, config(second, `["a"]`), metav1.CreateOptions{}))
		now("made again", "taken up", true)
	})
}

func TestWhoMayNotReadHearsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(config(authority("first"), "[]"))
		var refused atomic.Bool
		refused.Store(true)
		client.PrependReactor("list", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
			if refused.Load() {
				return true, nil, apierrors.NewForbidden(corev1.Resource("configmaps"), "extension-apiserver-authentication", errors.New("no rights"))
			}
			return false, nil, nil
		})
		var h heard
		s := live.New(client, h.told)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx) })
		defer running.Wait()
		defer stop()
		time.Sleep(time.Second)
		synctest.Wait()
		if _, err := s.Settings(); !apierrors.IsForbidden(err) || !strings.Contains(h.last(), "no rights") {
			t.Errorf("%v, told %q", err, h.last())
		}
		refused.Store(false)
		time.Sleep(2 * time.Minute)
		if _, err := s.Settings(); err != nil {
			t.Errorf("once it may: %v", err)
		}
	})
}

// An API server that is not there is told of, before there are settings and
// after: client-go alone says nothing of refused connections.
func TestServerThatIsAwayIsToldOf(t *testing.T) {
	runs := func(t *testing.T, s *live.Source) {
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx) })
		t.Cleanup(func() { stop(); running.Wait() })
	}
	t.Run("from the start, by a socket", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		nobody := l.Addr().String()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		client, err := kubernetes.NewForConfig(&rest.Config{Host: "http://" + nobody})
		if err != nil {
			t.Fatal(err)
		}
		told := make(chan error, 100)
		s := live.New(client, func(err error) { told <- err })
		runs(t, s)
		if err := <-told; !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), "could not be asked") {
			t.Errorf("told %v", err)
		}
		if _, err := s.Settings(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("once it was there, its watches fail, and it is there again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client := fake.NewClientset(config(authority("first"), "[]"))
			var away atomic.Bool
			away.Store(true)
			client.PrependWatchReactor("configmaps", func(clienttesting.Action) (bool, watch.Interface, error) {
				return away.Load(), nil, syscall.ECONNREFUSED
			})
			var h heard
			s := live.New(client, h.told)
			runs(t, s)
			time.Sleep(time.Minute)
			if _, err := s.Settings(); err != nil || !strings.Contains(h.last(), "could not be asked: connection refused") {
				t.Errorf("%v, told %q", err, h.last())
			}
			away.Store(false)
			time.Sleep(time.Minute)
			if h.last() != "taken up" {
				t.Errorf("it is there again, told %q", h.last())
			}
		})
	})
}
