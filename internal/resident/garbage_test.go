package resident

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

// percent is what GOGC is at the moment.
func percent() uint64 {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func TestTheFirstCollectionOfARenewalComesLaterAndThoseAfterItAsEver(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	for _, args := range [][]string{nil, {"kubepki"}, {"kubepki", "agent"}, {"kubepki", "verify", "renew"}} {
		if collectLater(args) || percent() != 100 {
			t.Errorf("%v: %d %%", args, percent())
		}
	}
	renew := []string{"kubepki", "renew", "--all"}
	if !collectLater(renew) || percent() != roomyPercent {
		t.Errorf("renew: %d %%, want %d", percent(), roomyPercent)
	}
	deadline := time.Now().Add(time.Minute)
	for runtime.GC(); percent() != 100; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("after a collection: %d %%", percent())
		}
	}
	debug.SetGCPercent(50)
	if collectLater(renew) || percent() != 50 {
		t.Errorf("what GOGC asks for became %d %%", percent())
	}
}
