package controller

import (
	"crypto/x509"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubepki/kubepki/internal/podcert"
)

// Metrics are the figures of the loops. They are safe for concurrent use.
type Metrics struct {
	decisions *prometheus.CounterVec
	pods      *prometheus.CounterVec
	issued    *prometheus.CounterVec
	waited    *prometheus.HistogramVec
	worked    *prometheus.HistogramVec
	signing   *prometheus.HistogramVec
	access    *prometheus.CounterVec
	errors    *prometheus.CounterVec
	cleaned   *prometheus.CounterVec
	authority *prometheus.GaugeVec
	leader    prometheus.Gauge
	policy    *prometheus.GaugeVec
	policyAt  *prometheus.GaugeVec
}

// NewMetrics registers the figures.
func NewMetrics(r prometheus.Registerer) *Metrics {
	// From a millisecond to nine minutes.
	buckets := prometheus.ExponentialBuckets(0.001, 2, 20)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "kubepki", Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "kubepki", Name: name, Help: help, Buckets: buckets}, labels)
	}
	m := &Metrics{
		decisions: counter("csr_decisions_total", "Decisions on requests, by signer, verdict and the id of the first reason.", "signer", "verdict", "reason"),
		pods:      counter("pod_decisions_total", "Decisions on requests for pods, by verdict and reason.", "verdict", "reason"),
		issued:    counter("csr_issued_total", "Certificates issued, by signer.", "signer"),
		waited:    histogram("csr_creation_to_issue_seconds", "From the creation of a request, which is known to the second, to its certificate.", "signer"),
		worked:    histogram("csr_seen_to_issue_seconds", "From when a request was first seen by this process to its certificate.", "signer"),
		signing:   histogram("sign_seconds", "Time that one signature takes, by signer.", "signer"),
		access:    counter("access_reviews_total", "Questions about the rights of requesters: hit, answered from memory; miss, by the API server.", "result"),
		errors:    counter("csr_errors_total", "What could not be done and is tried again, by step.", "step"),
		cleaned:   counter("csr_cleaned_total", "Requests that were removed, by the state that they were in.", "state"),
		authority: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "kubepki", Name: "authority_not_after_seconds", Help: "When the authority that signs ends, in seconds of Unix time, by signer."}, []string{"signer"}),
		leader:    prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "kubepki", Name: "leader", Help: "1 where this process is the leader."}),
		policy:    prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "kubepki", Name: "policy_last_reload_successful", Help: "1 where the policy of the file holds; 0 where the file has one that cannot be read, and the one before holds."}, []string{"policy"}),
		policyAt:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "kubepki", Name: "policy_last_reload_success_timestamp_seconds", Help: "When the policy that holds was read."}, []string{"policy"}),
	}
	r.MustRegister(m.decisions, m.pods, m.issued, m.waited, m.worked, m.signing, m.access, m.errors, m.cleaned, m.authority, m.leader, m.policy, m.policyAt)
	return m
}

// Leading tells whether this process works, where nobody is elected.
func (m *Metrics) Leading(yes bool) {
	m.leader.Set(0)
	if yes {
		m.leader.Set(1)
	}
}

// PolicyRead notes that a policy was read, or could not be; kind is signing or workload.
func (m *Metrics) PolicyRead(kind string, holds bool) {
	if !holds {
		m.policy.WithLabelValues(kind).Set(0)
		return
	}
	m.policy.WithLabelValues(kind).Set(1)
	m.policyAt.WithLabelValues(kind).SetToCurrentTime()
}

// PodDecided counts a decision on a request for a pod.
func (m *Metrics) PodDecided(r podcert.Review) {
	m.pods.WithLabelValues(string(r.Verdict), r.ID).Inc()
}

// Authority notes when the authority that signs for a signer ends.
func (m *Metrics) Authority(signerName string, c *x509.Certificate) {
	m.authority.WithLabelValues(signerName).Set(float64(c.NotAfter.Unix()))
}

// QueueMetrics are figures of the loop that works now; current may return nil.
func QueueMetrics(current func() *CSR) prometheus.Collector { return queueCollector{current} }

type queueCollector struct{ current func() *CSR }

func queueDesc() *prometheus.Desc {
	return prometheus.NewDesc("kubepki_csr_queue", "Requests that are known, and those on which something is to be done, by place.", []string{"place"}, nil)
}

func (q queueCollector) Describe(all chan<- *prometheus.Desc) { all <- queueDesc() }

func (q queueCollector) Collect(all chan<- prometheus.Metric) {
	loop := q.current()
	if loop == nil {
		return
	}
	d := loop.ledger.depths()
	for place, n := range map[string]int{"known": d.known, "fresh": d.fresh, "backlog": d.backlog, "undecided": d.undecided, "failing": d.failing} {
		all <- prometheus.MustNewConstMetric(queueDesc(), prometheus.GaugeValue, float64(n), place)
	}
}

func since(t time.Time) float64 { return time.Since(t).Seconds() }
