package load

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Latencies are kept in microseconds, with three digits, in constant space.
const (
	longestLatency = 10 * time.Minute
	latencyDigits  = 3
)

// account is what has become of one stream's requests. It is safe for concurrent
// use.
type account struct {
	stream *Stream

	mu       sync.Mutex
	requests int
	failures int
	latency  *hdrhistogram.Histogram // of requests that succeeded
	good     time.Time               // the end of the last one, or the beginning of the run
	gap      time.Duration
}

func newAccount(s *Stream, began time.Time) *account {
	return &account{stream: s, good: began, latency: hdrhistogram.New(1, longestLatency.Microseconds(), latencyDigits)}
}

// count adds a request that ended now.
func (a *account) count(took time.Duration, failed bool, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests++
	if failed {
		a.failures++
		return
	}
	// A request's deadline is far below the histogram's end.
	_ = a.latency.RecordValue(max(1, took.Microseconds()))
	a.gap = max(a.gap, now.Sub(a.good))
	a.good = now
}

// end takes it that no more requests are made.
func (a *account) end(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gap = max(a.gap, now.Sub(a.good))
}

// report is the account at the end.
func (a *account) report() StreamReport {
	a.mu.Lock()
	defer a.mu.Unlock()
	seconds := func(quantile float64) float64 { return float64(a.latency.ValueAtQuantile(quantile)) / 1e6 }
	return StreamReport{
		Name: a.stream.Name, Link: a.stream.Link, Requests: a.requests, Failures: a.failures,
		P50Seconds: seconds(50), P99Seconds: seconds(99),
		LongestGapSeconds: a.gap.Seconds(),
	}
}

func (a *account) sum() (requests, failures int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requests, a.failures
}
