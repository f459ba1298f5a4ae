package provision

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
)

func TestEachUsesAllCores(t *testing.T) {
	cores := runtime.GOMAXPROCS(0)
	var arrived atomic.Int64
	all := make(chan struct{})
	// Each call waits for as many others as there are cores: one core less, and
	// the test never ends.
	err := each(context.Background(), make([]int, cores), func(int) error {
		if int(arrived.Add(1)) == cores {
			close(all)
		}
		<-all
		return nil
	})
	if err != nil || int(arrived.Load()) != cores {
		t.Errorf("%d of %d calls, error %v", arrived.Load(), cores, err)
	}
}

func TestEachStopsAtAnError(t *testing.T) {
	broken := errors.New("broken")
	var calls atomic.Int64
	err := each(context.Background(), make([]int, 10000), func(int) error {
		calls.Add(1)
		return broken
	})
	if !errors.Is(err, broken) || int(calls.Load()) > runtime.GOMAXPROCS(0) {
		t.Errorf("error %v after %d calls", err, calls.Load())
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := each(ctx, []int{1}, func(int) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	if err := each(ctx, nil, func(int) error { return broken }); err != nil {
		t.Errorf("got %v for no items", err)
	}
}
