package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"golang.org/x/sync/errgroup"

	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/report"
)

// awaiting is how the commands wait for Certificates.
type awaiting struct {
	api     *kube.Certs
	s       streams
	timeout time.Duration
	mu      sync.Mutex // of lines on stderr
}

// all waits until each is ready and no longer being issued, a few at a time. What has
// failed or took too long is told of each.
func (w *awaiting) all(ctx context.Context, list []cmapi.Certificate) error {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	errs := make([]error, len(list))
	var work errgroup.Group
	work.SetLimit(20)
	for i := range list {
		work.Go(func() error { errs[i] = w.one(ctx, &list[i]); return nil })
	}
	_ = work.Wait() // the errors are in errs
	return errors.Join(errs...)
}

func (w *awaiting) one(ctx context.Context, o *cmapi.Certificate) error {
	id := o.Namespace + "/" + o.Name
	said, revision := "", certRevision(o)
	var failure error
	err := w.api.AwaitCertificate(ctx, o.Namespace, o.Name, o.UID, func(now *cmapi.Certificate) bool {
		state := kube.SettledOf(now)
		switch {
		case state.Ready && !state.Issuing:
			w.say("%s: ready, revision %d, ends %s\n", id, certRevision(now), certEnd(now))
			return true
		case !state.Issuing && state.Failed != "" && failedSince(o, now):
			failure = advise(fmt.Errorf("%s: %s", id, report.Plain(state.Failed)), "kubepki cert why %s -n %s", o.Name, o.Namespace)
			return true
		}
		if r := workloadRow(now); r.Message != said && r.Message != "" {
			said = r.Message
			w.say("%s: %s\n", id, report.Plain(said))
		}
		return false
	})
	if failure != nil {
		return failure
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return advise(fmt.Errorf("%s: not ready within %s (revision %d)", id, w.timeout, revision), "kubepki cert why %s -n %s tells what it waits for", o.Name, o.Namespace)
	}
	return err
}

func certRevision(o *cmapi.Certificate) int {
	if o.Status.Revision == nil {
		return 0
	}
	return *o.Status.Revision
}

func certEnd(o *cmapi.Certificate) string {
	if o.Status.NotAfter == nil {
		return "at a time that is not known"
	}
	return o.Status.NotAfter.UTC().Format(time.RFC3339)
}

// failedSince tells whether a failure is a new one.
func failedSince(before, now *cmapi.Certificate) bool {
	last := now.Status.LastFailureTime
	return last != nil && (before.Status.LastFailureTime == nil || last.After(before.Status.LastFailureTime.Time))
}

// say prints a line whole, whoever else prints.
func (w *awaiting) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(w.s.err, format, args...)
}
