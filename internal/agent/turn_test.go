package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestNodesTakeTurnsByALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		var working, most, done atomic.Int32
		left := make(chan struct{})
		for i := range 3 {
			go func() {
				l := &Lease{Client: client, Namespace: "kube-system", Name: "kubepki-agent", Identity: fmt.Sprint("cp", i), Patience: 30 * time.Second, Log: quiet()}
				for {
					err := l.Take(t.Context(), time.Now().Add(time.Hour), func(context.Context) error {
						most.Store(max(most.Load(), working.Add(1)))
						time.Sleep(time.Minute) // a restart
						working.Add(-1)
						return nil
					})
					if err == nil {
						break
					}
					var waiting *NotYetError
					if !errors.As(err, &waiting) {
						t.Error(err)
						break
					}
					time.Sleep(waiting.Again)
				}
				done.Add(1)
				left <- struct{}{}
			}()
		}
		for range 3 {
			<-left
		}
		if done.Load() != 3 || most.Load() != 1 {
			t.Errorf("%d did their work, up to %d at once", done.Load(), most.Load())
		}
	})
}

func TestWithoutTheAPIThatWhichHasRunOutIsStillMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		client.PrependReactor("*", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, errors.New("connection refused")
		})
		l := &Lease{Client: client, Namespace: "kube-system", Name: "kubepki-agent", Identity: "cp1", Patience: 30 * time.Second, Log: quiet()}
		did := 0
		work := func(context.Context) error { did++; return nil }
		if err := l.Take(t.Context(), time.Now(), work); err == nil || did != 0 {
			t.Errorf("without another way: %v, %d", err, did)
		}
		l.Else = &Spread{Node: "cp1", Clock: newClock(time.Now())}
		began := time.Now()
		for did == 0 && time.Since(began) < 2*time.Hour {
			err := l.Take(t.Context(), time.Now().Add(-time.Hour), work)
			var waiting *NotYetError
			if errors.As(err, &waiting) {
				time.Sleep(waiting.Again)
			}
		}
		if took := time.Since(began); did != 1 || took > spreadLate+2*time.Minute {
			t.Errorf("did its work %d times, after %s", did, took)
		}
	})
}

func TestALeaseThatIsLostEndsTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		var down atomic.Bool
		client.PrependReactor("*", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			return down.Load(), nil, errors.New("connection refused")
		})
		l := &Lease{Client: client, Namespace: "kube-system", Name: "kubepki-agent", Identity: "cp1", Patience: 30 * time.Second, Log: quiet()}
		err := l.Take(t.Context(), time.Now(), func(ctx context.Context) error {
			down.Store(true)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Minute):
				return nil
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the work went on: %v", err)
		}
	})
}

func TestNodesThatKnowNothingOfEachOtherAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := time.Now().Add(30 * 24 * time.Hour)
		for _, name := range []string{"cp1", "cp2", "cp3"} {
			s := &Spread{Node: name, Clock: newClock(time.Now())}
			began := time.Now()
			did := false
			for !did {
				var waiting *NotYetError
				if err := s.Take(t.Context(), ends, func(context.Context) error { did = true; return nil }); errors.As(err, &waiting) {
					time.Sleep(waiting.Again)
				}
			}
			want := time.Duration(share(name) * float64(time.Hour))
			if took := time.Since(began); (took - want).Abs() > time.Second {
				t.Errorf("%s went on after %s, want %s", name, took, want)
			}
		}
	})
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }
