package load

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// clock is the time in a test since its start.
func clock() func() time.Duration {
	began := time.Now()
	return func() time.Duration { return time.Since(began) }
}

// steady is a stream whose requests take some time and do not fail.
func steady(name string, took time.Duration) *Stream {
	return &Stream{Name: name, Link: 9, Every: time.Second, Do: func(context.Context) error {
		time.Sleep(took)
		return nil
	}}
}

func find(t *testing.T, r *Report, name string) StreamReport {
	t.Helper()
	i := slices.IndexFunc(r.Streams, func(s StreamReport) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("no stream %s in the report", name)
	}
	return r.Streams[i]
}

func TestEachFailureIsReportedOnceWithItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		since := clock()
		began := time.Now()
		n := 0
		broken := &Stream{Name: "broken", Link: 4, Every: time.Second, Do: func(context.Context) error {
			time.Sleep(10 * time.Millisecond)
			if n++; n == 3 {
				return errors.New("refused\nfor a reason")
			}
			return nil
		}}
		var told []Failure
		r := keep(t.Context(), []*Stream{broken, steady("sound", time.Millisecond)}, Options{
			For: 4900 * time.Millisecond, OnFailure: func(f Failure) { told = append(told, f) },
		})
		want := []Failure{{Time: began.Add(2*time.Second + 10*time.Millisecond), Stream: "broken", Link: 4, Seconds: 0.01, Error: "refused for a reason"}}
		if diff := cmp.Diff(want, r.Failures); diff != "" {
			t.Errorf("reported failures (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("told failures (-want +got):\n%s", diff)
		}
		if s := find(t, r, "broken"); s.Requests != 5 || s.Failures != 1 || s.LongestGapSeconds != 2 {
			t.Errorf("want 5 requests, 1 failure, a gap of 2 s: %+v", s)
		}
		if s := find(t, r, "sound"); s.Failures != 0 || s.LongestGapSeconds > 1 {
			t.Errorf("want no failure and no gap longer than a second: %+v", s)
		}
		if r.Requests != 10 || r.Failed != 1 {
			t.Errorf("want 10 requests, 1 failed: got %d, %d", r.Requests, r.Failed)
		}
		if since() != 4900*time.Millisecond {
			t.Errorf("ended after %s", since())
		}
	})
}

func TestARequestThatHangsFailsAtItsDeadline(t *testing.T) {
	for name, do := range map[string]struct {
		do   func(context.Context) error
		at   time.Duration
		want string
	}{
		"and says why": {func(ctx context.Context) error {
			<-ctx.Done()
			return errors.New("no route")
		}, 3 * time.Second, "no route"},
		"deaf to its context": {func(context.Context) error {
			time.Sleep(time.Hour)
			return nil
		}, 4 * time.Second, "no answer after 3s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				hanging := &Stream{Name: "hanging", Link: 1, Every: time.Second, Do: do.do}
				r := keep(t.Context(), []*Stream{hanging, steady("sound", 0)}, Options{For: 3400 * time.Millisecond, Timeout: 3 * time.Second})
				if len(r.Failures) == 0 || r.Failures[0].Time.Sub(began) != do.at || r.Failures[0].Error != do.want {
					t.Errorf("want the failure %q after %s, got %+v", do.want, do.at, r.Failures)
				}
				if s := find(t, r, "sound"); s.Requests != 3 || s.Failures != 0 {
					t.Errorf("the other stream was held up: %+v", s)
				}
				if s := find(t, r, "hanging"); s.LongestGapSeconds < 3 || s.P50Seconds != 0 {
					t.Errorf("want no success, and a gap of all the time: %+v", s)
				}
				time.Sleep(time.Hour) // the deaf one ends too
			})
		})
	}
}

func TestTheEndCutsNoRequestOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		slow := &Stream{Name: "slow", Every: time.Second, Do: func(ctx context.Context) error {
			time.Sleep(4 * time.Second)
			return ctx.Err()
		}}
		fails := &Stream{Name: "fails", Every: time.Second, Do: func(context.Context) error {
			time.Sleep(4 * time.Second)
			return errors.New("late")
		}}
		time.AfterFunc(time.Second, interrupt)
		since := clock()
		r := keep(ctx, []*Stream{slow, fails}, Options{})
		if s := find(t, r, "slow"); s.Requests != 1 || s.Failures != 0 {
			t.Errorf("want one request that succeeded: %+v", s)
		}
		if s := find(t, r, "fails"); s.Requests != 1 || s.Failures != 1 {
			t.Errorf("want one request that failed: %+v", s)
		}
		if since() != 4500*time.Millisecond { // the second stream began half a second later
			t.Errorf("ended after %s", since())
		}
	})
}

func TestTheFirstFailureEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		since := clock()
		broken := &Stream{Name: "broken", Every: time.Second, Do: func(context.Context) error { return errors.New("no") }}
		closed := false
		broken.Close = func() { closed = true }
		r := keep(t.Context(), []*Stream{broken, steady("sound", 0)}, Options{For: time.Hour, FailFast: true})
		if r.Failed != 1 || since() > time.Second || !closed {
			t.Errorf("want one failure at once, and the stream closed: %d after %s, closed %t", r.Failed, since(), closed)
		}
	})
}

func TestPercentilesAreOfTheRequestsThatSucceeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		s := &Stream{Name: "varying", Every: time.Second, Do: func(context.Context) error {
			n++
			if n%2 == 0 {
				return errors.New("fails fast")
			}
			if n <= 194 { // 97 of 100 successes
				time.Sleep(10 * time.Millisecond)
			} else {
				time.Sleep(500 * time.Millisecond)
			}
			return nil
		}}
		r := keep(t.Context(), []*Stream{s}, Options{For: 199900 * time.Millisecond})
		got := find(t, r, "varying")
		near := func(got, want float64) bool { return got > want*0.999 && got < want*1.001 }
		if got.Requests != 200 || got.Failures != 100 || !near(got.P50Seconds, 0.01) || !near(got.P99Seconds, 0.5) {
			t.Errorf("want 200 requests, 100 failures, p50 0.01 s, p99 0.5 s: %+v", got)
		}
	})
}

func TestTheRateIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var progress []Progress
		r := keep(t.Context(), []*Stream{steady("quick", 0), steady("slow", 3*time.Second)}, Options{
			For: 9900 * time.Millisecond, Rate: 2, OnProgress: func(p Progress) { progress = append(progress, p) },
		})
		if s := find(t, r, "quick"); s.Requests != 20 {
			t.Errorf("want 20 requests at twice one a second: %+v", s)
		}
		if s := find(t, r, "slow"); s.Requests != 4 {
			t.Errorf("want 4 requests, one after another: %+v", s)
		}
		if len(progress) < 9 || progress[8].Elapsed != 9*time.Second || progress[8].Requests < 18 {
			t.Errorf("want progress each second: %+v", progress)
		}
	})
}

func TestErrorsAreOneLineWithoutSecrets(t *testing.T) {
	token := "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJl"
	got := oneLine(errors.New("refused:\n\ttoken " + token + " " + strings.Repeat("é", errorLimit)))
	if strings.Contains(got, token) || strings.Contains(got, "\n") || len(got) > errorLimit+len("…") {
		t.Errorf("%q", got)
	}
}

func TestStreamsAreChosenByNameOrKind(t *testing.T) {
	all := []*Stream{{Name: "reads"}, {Name: "exec/w1"}, {Name: "exec/w2"}}
	absent := []NotHere{{Stream: "etcd-peers", Why: "one member"}, {Stream: "webhook", Why: "none"}}
	for name, row := range map[string]struct {
		names        []string
		want, absent string
		err          string
	}{
		"no name: all":                 {nil, "reads exec/w1 exec/w2", "etcd-peers webhook", ""},
		"a kind":                       {[]string{"exec"}, "exec/w1 exec/w2", "", ""},
		"one of a kind":                {[]string{"exec/w2"}, "exec/w2", "", ""},
		"one that is not here":         {[]string{"reads", "webhook"}, "reads", "webhook", ""},
		"none that is here":            {[]string{"webhook"}, "", "", "webhook: not here: none"},
		"one that there is nowhere":    {[]string{"reeds"}, "", "", `no such stream: "reeds": there are`},
		"a node that there is nowhere": {[]string{"exec/w3"}, "", "", `no such stream: "exec/w3"`},
	} {
		t.Run(name, func(t *testing.T) {
			streams, notHere, err := choose(all, absent, row.names)
			if row.err != "" {
				if err == nil || !strings.Contains(err.Error(), row.err) {
					t.Errorf("want the error %q, got %v", row.err, err)
				}
				return
			}
			var names, missing []string
			for _, s := range streams {
				names = append(names, s.Name)
			}
			for _, n := range notHere {
				missing = append(missing, n.Stream)
			}
			if err != nil || strings.Join(names, " ") != row.want || strings.Join(missing, " ") != row.absent {
				t.Errorf("want %q and %q, got %q and %q, %v", row.want, row.absent, names, missing, err)
			}
		})
	}
}
