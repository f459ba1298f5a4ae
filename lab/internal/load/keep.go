package load

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// grace is for a request to say what went wrong, once its deadline has passed.
	grace = time.Second
	// keptFailures are told by the report one by one; more are only counted.
	keptFailures = 10_000
	sayEvery     = time.Second // how often progress is told
)

// keeper keeps streams going.
type keeper struct {
	options  Options
	accounts []*account
	began    time.Time
	stop     context.CancelFunc

	mu       sync.Mutex
	failures []Failure
	omitted  int
}

// keep keeps the streams going until the context ends, the time is over, or, with
// FailFast, a request has failed. It returns when the last request has ended.
func keep(ctx context.Context, streams []*Stream, o Options) *Report {
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	k := &keeper{options: o, began: time.Now()}
	if o.For > 0 {
		limited, cancel := context.WithTimeout(ctx, o.For)
		defer cancel()
		ctx = limited
	}
	ctx, k.stop = context.WithCancel(ctx)
	defer k.stop()
	for _, s := range streams {
		k.accounts = append(k.accounts, newAccount(s, k.began))
	}
	var running, saying sync.WaitGroup
	for i, a := range k.accounts {
		every := k.every(a.stream)
		// Streams of one rate do not all start at the same moments.
		after := every * time.Duration(i) / time.Duration(len(streams))
		running.Go(func() { k.run(ctx, a, every, after) })
	}
	saying.Go(func() { k.say(ctx) })
	running.Wait()
	k.stop()
	saying.Wait()
	return k.report()
}

// every is the stream's time between two requests at the rate that is asked for.
func (k *keeper) every(s *Stream) time.Duration {
	if k.options.Rate > 0 {
		return time.Duration(float64(s.Every) / k.options.Rate)
	}
	return s.Every
}

// run makes the requests of one stream.
func (k *keeper) run(ctx context.Context, a *account, every, after time.Duration) {
	if a.stream.Close != nil {
		defer a.stream.Close()
	}
	defer func() { a.end(time.Now()) }()
	next := time.NewTimer(after)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		if ctx.Err() != nil {
			return // both were true
		}
		next.Reset(every)
		k.request(ctx, a)
	}
}

// request makes one request. The end of the run does not cut it off: who is cut
// off cannot be told from who would have failed.
func (k *keeper) request(ctx context.Context, a *account) {
	began := time.Now()
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.options.Timeout)
	defer cancel()
	done := make(chan struct{})
	var err error // once done
	go func() {
		err = a.stream.Do(limited)
		close(done)
	}()
	overdue := time.NewTimer(k.options.Timeout + grace)
	defer overdue.Stop()
	select {
	case <-done:
		k.count(a, began, err)
	case <-overdue.C:
		k.count(a, began, fmt.Errorf("no answer after %s", k.options.Timeout))
		select {
		case <-done: // before the next one, but it counts no more
		case <-ctx.Done():
		}
	}
}

// count takes the end of a request.
func (k *keeper) count(a *account, began time.Time, err error) {
	now := time.Now()
	a.count(now.Sub(began), err != nil, now)
	if err == nil {
		return
	}
	f := Failure{Time: now, Stream: a.stream.Name, Link: a.stream.Link, Seconds: now.Sub(began).Seconds(), Error: oneLine(err)}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.failures) < keptFailures {
		k.failures = append(k.failures, f)
	} else {
		k.omitted++
	}
	if k.options.OnFailure != nil {
		k.options.OnFailure(f)
	}
	if k.options.FailFast {
		k.stop()
	}
}

// say tells of the progress until the context ends.
func (k *keeper) say(ctx context.Context) {
	if k.options.OnProgress == nil {
		return
	}
	tick := time.NewTicker(sayEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p := Progress{Elapsed: time.Since(k.began)}
		for _, a := range k.accounts {
			requests, failures := a.sum()
			p.Requests, p.Failures = p.Requests+requests, p.Failures+failures
		}
		k.options.OnProgress(p)
	}
}

func (k *keeper) report() *Report {
	ended := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	r := &Report{
		APIVersion: "kubepki.dev/v1alpha1", Kind: "LabLoad", Started: k.began, Ended: ended,
		Streams: []StreamReport{}, NotHere: []NotHere{}, Failures: append([]Failure{}, k.failures...), FailuresOmitted: k.omitted,
	}
	for _, a := range k.accounts {
		s := a.report()
		r.Streams = append(r.Streams, s)
		r.Requests, r.Failed = r.Requests+s.Requests, r.Failed+s.Failures
	}
	return r
}
