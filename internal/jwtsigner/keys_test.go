package jwtsigner_test

import (
	"bytes"
	"crypto"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/jwtsigner"
	"github.com/kubepki/kubepki/internal/tokentest"
)

// rotation is a signer whose files a test changes, in the test's own time.
type rotation struct {
	t        *testing.T
	dir      string
	log      bytes.Buffer
	keys     *jwtsigner.Keys
	old, new crypto.Signer
}

func newRotation(t *testing.T, first time.Duration) *rotation {
	t.Helper()
	r := &rotation{t: t, dir: t.TempDir(), old: tokentest.Key(tokentest.RSA), new: tokentest.Key(tokentest.P256)}
	r.sign(r.old)
	r.publish(r.old)
	r.legacy(tokentest.Key(tokentest.P521))
	var err error
	r.keys, err = jwtsigner.OpenKeys(jwtsigner.KeysConfig{
		Files:        jwtsigner.Files{Signing: filepath.Join(r.dir, "sa.key"), Published: []string{filepath.Join(r.dir, "keys.pem")}, Legacy: []string{filepath.Join(r.dir, "legacy.pem")}},
		PublishFirst: first, Log: slog.New(slog.NewTextHandler(&r.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rotation) sign(key crypto.Signer) {
	put(r.t, filepath.Join(r.dir, "sa.key"), privatePEM(r.t, key))
}

func (r *rotation) publish(keys ...crypto.Signer) {
	put(r.t, filepath.Join(r.dir, "keys.pem"), publicPEM(r.t, keys...))
}

func (r *rotation) legacy(keys ...crypto.Signer) {
	put(r.t, filepath.Join(r.dir, "legacy.pem"), publicPEM(r.t, keys...))
}

// wait lets time pass, while tokens are asked for.
func (r *rotation) wait(d time.Duration) {
	step := time.Second
	if d > time.Minute {
		step = 20 * time.Second
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(min(step, time.Until(end)))
		r.keys.Signer()
	}
}

func (r *rotation) signs(key crypto.Signer, when string) {
	r.t.Helper()
	if got := r.keys.Signer().Key().ID; got != idOf(r.t, key) {
		r.t.Errorf("%s the key %s signs, want %s\n%s", when, got, idOf(r.t, key), &r.log)
	}
}

// publishes asks as the API server does.
func (r *rotation) publishes(when string, keys ...crypto.Signer) {
	r.t.Helper()
	var got, want []string
	for _, k := range r.keys.Publish().Keys {
		got = append(got, k.ID)
	}
	for _, k := range keys {
		want = append(want, idOf(r.t, k))
	}
	if !slices.Equal(got, want) {
		r.t.Errorf("%s the keys %q are published, want %q", when, got, want)
	}
}

func (r *rotation) says(text string) {
	r.t.Helper()
	if n := strings.Count(r.log.String(), text); n != 1 {
		r.t.Errorf("the log says %d times, not once, %q:\n%s", n, text, &r.log)
	}
}

// The procedure of docs/sa-external-signer.md.
func TestKeyThatWasPublishedLongEnoughSignsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRotation(t, time.Hour)
		r.publishes("at first", r.old)
		r.publish(r.old, r.new)
		r.wait(3 * time.Second)
		r.publishes("once it was added", r.old, r.new)
		r.wait(time.Hour)
		r.sign(r.new)
		r.wait(3 * time.Second)
		r.signs(r.new, "after an hour")
		r.publishes("then", r.new, r.old)
		r.publish(r.new)
		r.wait(3 * time.Second)
		r.publishes("when the old one was dropped", r.new)
		r.signs(r.new, "at the end")
	})
}

func TestKeyThatNobodyKnowsWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRotation(t, time.Hour)
		r.sign(r.new)
		r.wait(2 * time.Hour)
		r.signs(r.old, "while the API server does not ask")
		r.says("the API server has not asked for the keys since then")
		r.publishes("at once", r.old, r.new)
		if got := r.keys.Look().Waiting; got != idOf(t, r.new) {
			t.Errorf("%q waits", got)
		}
		r.wait(59 * time.Minute)
		r.signs(r.old, "before the hour is over")
		r.says("the new one is published first, until 2000-01-01T03:00:00Z")
		r.wait(time.Minute)
		r.signs(r.new, "after the hour")
		r.says("another key signs from now on")
		r.publishes("then", r.new, r.old)
	})
}

func TestKeyDoesNotSignWhileWhatTheOldOneSignedWouldBeRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRotation(t, time.Hour)
		r.publish(r.new) // and not the old one
		r.wait(3 * time.Second)
		r.publishes("at first", r.old, r.new)
		r.sign(r.new)
		r.wait(2 * time.Hour)
		r.signs(r.old, "while it is in no file")
		r.says("the key from before is in no file of keys to publish")
		r.publishes("all the time", r.old, r.new)
		r.publish(r.new, r.old)
		r.wait(3 * time.Second)
		r.signs(r.new, "once it is in one")
	})
}

// kube-apiserver takes no signature of a key that is excluded from discovery,
// even if it is published as well.
func TestKeyThatSignsIsNeverExcluded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRotation(t, time.Hour)
		other := tokentest.Key(tokentest.P521)
		r.publish(r.new)
		r.legacy(other, r.old)
		r.sign(r.new)
		r.wait(3 * time.Second)
		r.signs(r.old, "while it is in no file to publish")
		p := r.keys.Publish()
		if len(p.Legacy) != 1 || p.Legacy[0].ID != idOf(t, other) {
			t.Errorf("excluded are %+v", p.Legacy)
		}
		r.publishes("then", r.old, r.new)
	})
}

func TestWaitBeginsAnewForAKeyThatWasTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRotation(t, time.Hour)
		r.sign(r.new)
		r.wait(3 * time.Second)
		r.publishes("at once", r.old, r.new)
		r.wait(30 * time.Minute)
		r.sign(r.old)
		r.wait(3 * time.Second)
		r.publishes("when it was taken back", r.old)
		r.sign(r.new)
		r.wait(3 * time.Second)
		r.publishes("again", r.old, r.new)
		r.wait(59 * time.Minute)
		r.signs(r.old, "an hour after the first time")
		r.wait(time.Minute)
		r.signs(r.new, "an hour after the second time")
	})
}

func TestNothingToWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRotation(t, 0)
		r.sign(r.new)
		r.wait(3 * time.Second)
		r.signs(r.new, "without a time to publish it first")
	})
}

func TestFilesThatAreBrokenLaterChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRotation(t, 0)
		put(t, filepath.Join(r.dir, "sa.key"), []byte("half a k"))
		began := time.Now()
		r.wait(10 * time.Second)
		r.signs(r.old, "with a broken file")
		r.publishes("with a broken file", r.old)
		if r.keys.Publish().AsOf.After(began) {
			t.Error("the keys are told to be newer than what could be read")
		}
		if !strings.Contains(r.log.String(), "changed keys were not taken up") {
			t.Errorf("the log says\n%s", &r.log)
		}
	})
}

func TestStartWithAKeyThatIsInNoFileToPublishIsPointedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRotation(t, time.Hour)
		if r.log.Len() > 0 {
			t.Errorf("the good one says %s", &r.log)
		}
		r.publish(r.new)
		_, err := jwtsigner.OpenKeys(jwtsigner.KeysConfig{
			Files: jwtsigner.Files{Signing: filepath.Join(r.dir, "sa.key"), Published: []string{filepath.Join(r.dir, "keys.pem")}},
			Log:   slog.New(slog.NewTextHandler(&r.log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		r.says("the signing key is in no file of keys to publish")
	})
}
