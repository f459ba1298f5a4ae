package saserver

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/token"
)

// Metrics are the figures of the server. They are safe for concurrent use.
type Metrics struct {
	reviews *prometheus.CounterVec
	took    prometheus.Histogram
	reloads *prometheus.CounterVec
}

// NewMetrics registers the figures. It asks the sources when somebody reads
// them.
func NewMetrics(r prometheus.Registerer, keys token.KeySource, pair mtls.Source) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "kubepki", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, value func() float64) prometheus.GaugeFunc {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "kubepki", Name: name, Help: help}, value)
	}
	m := &Metrics{
		reviews: counter("token_reviews_total", "Reviews of tokens, by result (accepted, refused, failed, rejected) and the id of the first reason.", "result", "reason"),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "kubepki", Name: "token_review_seconds", Help: "Time that one review takes.",
			Buckets: prometheus.ExponentialBuckets(0.00001, 2, 16), // from 10 microseconds to a third of a second
		}),
		reloads: counter("reloads_total", "Changed files that were read, by what they hold (keys, serving) and result (taken-up, refused).", "what", "result"),
	}
	for _, what := range []string{"keys", "serving"} { // so that the first failure shows as an increase
		m.reloads.WithLabelValues(what, "refused")
		m.reloads.WithLabelValues(what, "taken-up")
	}
	r.MustRegister(m.reviews, m.took, m.reloads,
		gauge("token_keys", "Public keys that verify tokens and are published.", func() float64 { return countKeys(keys) }),
		gauge("serving_certificate_not_after_seconds", "When the certificate of the server ends, in seconds of Unix time.", func() float64 { return ends(pair) }))
	return m
}

// Reloaded counts files that have changed: keys, or what the server shows and
// trusts (serving). err tells why they were not taken up.
func (m *Metrics) Reloaded(what string, err error) {
	result := "taken-up"
	if err != nil {
		result = "refused"
	}
	m.reloads.WithLabelValues(what, result).Inc()
}

func (m *Metrics) reviewed(result, reason string) { m.reviews.WithLabelValues(result, reason).Inc() }

func countKeys(keys token.KeySource) float64 {
	set, err := keys.Keys(context.Background(), "")
	if err != nil {
		return 0
	}
	return float64(len(set.All()))
}

func ends(pair mtls.Source) float64 {
	now, err := pair.Snapshot()
	if err != nil || now.Certificate == nil {
		return 0
	}
	return float64(now.Certificate.Leaf.NotAfter.Unix())
}
