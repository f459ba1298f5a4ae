package restart

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// script is what becomes of one target, as time goes on after its restart.
type script struct {
	cannot       error // found before the first is touched
	may, restart error
	ill          time.Duration // how long it is not well yet; <0: for ever
	dies         time.Duration // when it ends after that; 0: never
	again        bool          // it is started again then
	over         bool          // it is not: and the supervisor has given up
	hangs        bool          // the restart does not return by itself
}

// fakeLife follows a script.
type fakeLife struct {
	script
	began time.Time
	told  bool
}

func (l *fakeLife) dead() bool { return l.dies > 0 && time.Since(l.began) >= l.dies }

func (l *fakeLife) Stands(context.Context) error {
	if !l.dead() || l.again && l.told {
		return nil
	}
	l.told = true
	return errors.New("it ended")
}

func (l *fakeLife) Over(context.Context) bool { return l.dead() && l.over }

func (l *fakeLife) Close() {}

func TestTargetsAreRestartedOneAtATime(t *testing.T) {
	for name, c := range map[string]struct {
		scripts map[string]script
		done    string
		want    string        // of the error
		hint    string        // part of it
		took    time.Duration // at most
	}{
		"all come back":                               {done: "a b c", took: 10 * time.Second},
		"one needs its time":                          {scripts: map[string]script{"b": {ill: 3 * time.Minute}}, done: "a b c", took: 4 * time.Minute},
		"one is never well":                           {scripts: map[string]script{"b": {ill: -1}}, done: "a", want: "b did not come back: not within 4m0s: not well", hint: "see why: log b; not restarted yet: c; restarted and proved: a", took: 5 * time.Minute},
		"the first is never well":                     {scripts: map[string]script{"a": {ill: -1}}, want: "a did not come back", hint: "not restarted yet: b, c", took: 5 * time.Minute},
		"one comes up, is well, and dies":             {scripts: map[string]script{"b": {dies: 2 * time.Second, over: true}}, done: "a", want: "b did not come back: it ended", took: 10 * time.Second},
		"one dies and its supervisor goes on in vain": {scripts: map[string]script{"b": {dies: 2 * time.Second}}, done: "a", want: "not within 4m0s: it ended", took: 5 * time.Minute},
		"one dies once and then stands":               {scripts: map[string]script{"b": {dies: 2 * time.Second, again: true}}, done: "a b c", took: 20 * time.Second},
		"a restart that fails":                        {scripts: map[string]script{"b": {restart: &NotBackError{errors.New("no"), "look here"}}}, done: "a", want: "b did not come back: no", hint: "look here", took: 10 * time.Second},
		"a restart that hangs":                        {scripts: map[string]script{"c": {hangs: true}}, done: "a b", want: "not within 4m0s", took: 5 * time.Minute},
		"one that may not be ended":                   {scripts: map[string]script{"b": {may: &QuorumError{3, []string{"x"}}}}, done: "a", want: "b was not restarted: etcd would lose its quorum", hint: "not restarted yet: c", took: 10 * time.Second},
		"one that nobody starts again":                {scripts: map[string]script{"b": {restart: &NotTriedError{&NoSupervisorError{"b", 7}}}}, done: "a", want: "b was not restarted: b runs as process 7", took: 10 * time.Second},
		"one that cannot be restarted at all":         {scripts: map[string]script{"c": {cannot: &NoSupervisorError{"c", 7}}}, want: "c was not restarted: c runs as process 7", hint: "not restarted yet: a, b", took: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				alive, began := "", time.Now()
				lives := map[string]*fakeLife{}
				r := &Runner{
					Can: func(_ context.Context, x *Target) error { return c.scripts[x.Component].cannot },
					May: func(_ context.Context, x *Target) error { return c.scripts[x.Component].may },
					Restart: func(ctx context.Context, x *Target) (Life, string, string, error) {
						if alive != "" && lives[alive].ill < 0 {
							t.Error("the one before is not well")
						}
						s := c.scripts[x.Component]
						if s.hangs {
							<-ctx.Done()
							return nil, "", "", context.Cause(ctx)
						}
						alive = x.Component
						lives[alive] = &fakeLife{script: s, began: time.Now()}
						return lives[alive], "somehow", "log " + x.Component, s.restart
					},
					Proved: func(_ context.Context, x *Target) error {
						if l := lives[x.Component]; l.ill < 0 || time.Since(l.began) < l.ill {
							return errors.New("not well")
						}
						return nil
					},
				}
				done, err := r.Run(t.Context(), []Target{{Component: "a"}, {Component: "b"}, {Component: "c"}})
				var names []string
				for _, d := range done {
					names = append(names, d.Target.ID())
				}
				if got := strings.Join(names, " "); got != c.done {
					t.Errorf("done: %q, want %q", got, c.done)
				}
				if took := time.Since(began); took > c.took {
					t.Errorf("it took %s", took)
				}
				var stopped *StoppedError
				switch {
				case c.want == "" && err != nil:
					t.Error(err)
				case c.want != "" && (!errors.As(err, &stopped) || !strings.Contains(err.Error(), c.want) || !strings.Contains(stopped.Hint(), c.hint)):
					t.Errorf("want %q and %q, got %v", c.want, c.hint, err)
				}
			})
		})
	}
}

// What is only waited for is not ended, and holds the next up until it is proved.
func TestWhatIsWaitedForIsNotEnded(t *testing.T) {
	for name, well := range map[string]time.Duration{"it comes": time.Minute, "it never comes": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var restarted []string
				r := &Runner{
					Can: func(_ context.Context, x *Target) error {
						if x.Await {
							return errors.New("nobody can")
						}
						return nil
					},
					May: func(_ context.Context, x *Target) error {
						if x.Await {
							return errors.New("nobody may")
						}
						return nil
					},
					Restart: func(_ context.Context, x *Target) (Life, string, string, error) {
						restarted = append(restarted, x.Component)
						return &fakeLife{began: time.Now()}, "somehow", "", nil
					},
					Proved: func(_ context.Context, x *Target) error {
						if x.Await && time.Since(began) < well {
							return errors.New("it is not there")
						}
						return nil
					},
				}
				done, err := r.Run(t.Context(), []Target{{Component: "a", Await: true}, {Component: "b"}})
				if well < DefaultTimeout {
					if err != nil || len(done) != 2 || strings.Join(restarted, " ") != "b" {
						t.Errorf("%v, %v restarted: %v", done, restarted, err)
					}
					return
				}
				var stopped *StoppedError
				if !errors.As(err, &stopped) || len(restarted) > 0 || !strings.Contains(err.Error(), "a did not come back: not within 4m0s: it is not there") || !strings.Contains(stopped.Hint(), "not restarted yet: b") {
					t.Errorf("%v restarted: %v", restarted, err)
				}
			})
		})
	}
}

func TestAnInterruptEndsARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(errors.New("somebody said stop")) })
		r := &Runner{
			Restart: func(context.Context, *Target) (Life, string, string, error) {
				return &fakeLife{began: time.Now()}, "", "", nil
			},
			Proved: func(context.Context, *Target) error { return errors.New("not well") },
		}
		began := time.Now()
		if _, err := r.Run(ctx, []Target{{Component: "a"}}); err == nil || !strings.Contains(err.Error(), "somebody said stop: not well") || time.Since(began) > 61*time.Second {
			t.Error(err, time.Since(began))
		}
	})
}
