package join

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// lookEvery is how often an agent looks at the files: somebody else may have
// renewed the credential, brought a bootstrap kubeconfig, or the clock may have
// been set. It costs no call.
const lookEvery = time.Minute

// retries are the pauses of an agent after failures: from two seconds to five
// minutes, as client-go's certificate manager begins, with some chance so that
// nodes which failed together do not come back together.
func retries() wait.Backoff {
	return wait.Backoff{Duration: 2 * time.Second, Factor: 2, Jitter: 0.2, Steps: 30, Cap: 5 * time.Minute}
}

// agent is a loop over these steps, which tests replace.
type agent struct {
	log *slog.Logger
	// look returns the leaf that is there and valid, or why there is none.
	look func() (*x509.Certificate, error)
	// canJoin tells whether there is something to join with.
	canJoin      func() bool
	join, rotate func(context.Context) (*Result, error)
	advice       func(error) error // what to say when nothing is left to ask with
}

// Run keeps a client's credential valid until the context ends: it joins where
// there is none and there is something to join with, also when the credential
// has expired, and rotates when it is due. It never gives up: a failure is
// logged and tried again, after five minutes at most. It returns nil when the
// context is cancelled, and an error only when the root cannot be opened.
func Run(ctx context.Context, o Options, log *slog.Logger) error {
	c, err := open(o)
	if err != nil {
		return err
	}
	defer c.close()
	o.AnyIdentity = true // whoever the node is, it stays
	o.Say = func(line string) { log.Info(line) }
	a := &agent{
		log: log,
		look: func() (*x509.Certificate, error) {
			have, err := c.present(time.Now())
			if err != nil {
				return nil, err
			}
			return have.leaf(), nil
		},
		canJoin: func() bool { return o.Bootstrap != nil || c.disk.exists(o.BootstrapKubeconfig) },
		join:    func(ctx context.Context) (*Result, error) { return Join(ctx, o) },
		rotate:  func(ctx context.Context) (*Result, error) { return Rotate(ctx, o, false) },
		advice:  c.expired,
	}
	a.run(ctx)
	return nil
}

func (a *agent) run(ctx context.Context) {
	backoff, told := retries(), ""
	for ctx.Err() == nil {
		next, state, err := a.step(ctx)
		switch {
		case ctx.Err() != nil:
			// What was going on was interrupted: the next run goes on with it.
		case err != nil:
			next = min(backoff.Step(), 5*time.Minute)
			a.failed(err, next)
			told = ""
		default:
			backoff = retries()
			if state != "" && state != told { // what was just done has its own line
				a.log.Info(state)
				told = state
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(next):
		}
	}
	a.log.Info("stopped")
}

// step does what is due, and returns when to look again and what there is.
func (a *agent) step(ctx context.Context) (next time.Duration, state string, err error) {
	leaf, err := a.look()
	switch {
	case err != nil && !a.canJoin():
		return 0, "", a.advice(err)
	case err != nil:
		a.log.Info("joining", "because", err.Error())
		return a.act(ctx, a.join)
	case !time.Now().Before(Due(leaf)):
		a.log.Info("rotating", "user", leaf.Subject.CommonName, "notAfter", leaf.NotAfter)
		return a.act(ctx, a.rotate)
	}
	return min(lookEvery, time.Until(Due(leaf))), "the credential of " + leaf.Subject.CommonName + " is valid until " + date(leaf.NotAfter) +
		" and is rotated at " + date(Due(leaf)), nil
}

func (a *agent) act(ctx context.Context, do func(context.Context) (*Result, error)) (time.Duration, string, error) {
	r, err := do(ctx)
	if err != nil {
		return 0, "", err
	}
	a.log.Info(string(r.Outcome), "user", r.Identity.CommonName, "notAfter", r.Leaf.NotAfter, "request", r.Request)
	return time.Second, "", nil // and no quicker, whatever a signer issues
}

func (a *agent) failed(err error, next time.Duration) {
	attributes := []any{"again", next.Round(time.Second)}
	if leaf, lookErr := a.look(); lookErr == nil {
		attributes = append(attributes, "validFor", time.Until(leaf.NotAfter).Round(time.Second))
	}
	var hint interface{ Hint() string }
	if errors.As(err, &hint) && hint.Hint() != "" {
		attributes = append(attributes, "hint", hint.Hint())
	}
	a.log.Error(err.Error(), attributes...)
}
