package controller

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func newElection(client *fake.Clientset, identity string) *Election {
	return &Election{
		Client: client, Namespace: "kube-system", Name: "kubepki", Identity: identity,
		Log: slog.New(slog.DiscardHandler), Metrics: NewMetrics(prometheus.NewRegistry()),
	}
}

func TestLeaseIsGivenBackWhenTheWorkIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		ctx, cancel := context.WithCancel(t.Context())
		var finishedAt time.Time
		ended := make(chan error, 1)
		go func() {
			ended <- newElection(client, "one").Run(ctx, func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(3 * time.Second) // what has been begun
				finishedAt = time.Now()
				return nil
			})
		}()
		time.Sleep(time.Minute)
		second, stop := context.WithCancel(t.Context())
		led := make(chan time.Time, 1)
		go func() {
			_ = newElection(client, "two").Run(second, func(ctx context.Context) error {
				led <- time.Now()
				<-ctx.Done()
				return nil
			})
		}()
		time.Sleep(time.Minute)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		when := <-led
		if when.Before(finishedAt) || when.Sub(finishedAt) > 3*retryPeriod {
			t.Errorf("the second one leads %s after the first one has finished", when.Sub(finishedAt))
		}
		stop()
		synctest.Wait()
		time.Sleep(time.Minute)
	})
}

func TestWhoLosesTheLeaseIsACandidateAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		var away atomic.Bool
		client.PrependReactor("*", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			if away.Load() {
				return true, nil, errors.New("no answer")
			}
			return false, nil, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		var terms, running atomic.Int32
		ended := make(chan error, 1)
		go func() {
			ended <- newElection(client, "one").Run(ctx, func(ctx context.Context) error {
				terms.Add(1)
				running.Add(1)
				<-ctx.Done()
				running.Add(-1)
				return nil
			})
		}()
		time.Sleep(time.Minute)
		away.Store(true)
		time.Sleep(time.Minute)
		if running.Load() != 0 {
			t.Error("it works without a lease")
		}
		away.Store(false)
		time.Sleep(time.Minute)
		if terms.Load() != 2 || running.Load() != 1 {
			t.Errorf("%d terms, %d running", terms.Load(), running.Load())
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		lease, err := client.CoordinationV1().Leases("kube-system").Get(t.Context(), "kubepki", metav1.GetOptions{})
		if err != nil || lease.Spec.HolderIdentity != nil && *lease.Spec.HolderIdentity != "" {
			t.Errorf("the lease is %+v, %v", lease.Spec, err)
		}
	})
}

func TestErrorOfTheWorkEndsTheElection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := errors.New("cannot go on")
		err := newElection(fake.NewClientset(), "one").Run(t.Context(), func(context.Context) error { return want })
		if !errors.Is(err, want) {
			t.Errorf("got %v", err)
		}
	})
}
