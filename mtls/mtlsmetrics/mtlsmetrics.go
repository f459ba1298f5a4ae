// Package mtlsmetrics tells Prometheus how a source of package mtls fares.
//
//	prometheus.MustRegister(mtlsmetrics.New(source))
//
// Several sources of one program are told apart by a label:
//
//	labelled := prometheus.WrapRegistererWith(prometheus.Labels{"source": "clients"}, prometheus.DefaultRegisterer)
//	labelled.MustRegister(mtlsmetrics.New(source))
//
// Alarms that are worth having are a certificate that ends soon, and a change that
// was refused and is not mended. Soon is a part of its life, which may be an hour:
//
//	(mtls_certificate_not_after_timestamp_seconds - time()) /
//	  (mtls_certificate_not_after_timestamp_seconds - mtls_certificate_not_before_timestamp_seconds) < 0.15
//	mtls_refused == 1
//
// No metric holds a name of a certificate, a path, or anything that is secret.
package mtlsmetrics

import (
	"crypto/x509"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubepki/kubepki/mtls"
)

// Statused is a source that tells how it fares, as [mtls.FileSource],
// [mtls.KubeconfigSource], [mtls.Renewing] and the one of mtls/kubesource do.
type Statused interface {
	mtls.Source
	Status() mtls.Status
}

// collector is stateless: all that it tells it asks of the source.
type collector struct{ source mtls.Source }

// New returns a collector of what a source has now. What the source has not, such
// as a bundle, has no metric; one that is not [Statused] has none of changes. It
// asks the source, which may read its files, at each collection. It may be used by
// several goroutines.
func New(s mtls.Source) prometheus.Collector { return collector{s} }

func desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("mtls_"+name, help, nil, nil)
}

var (
	notAfter  = desc("certificate_not_after_timestamp_seconds", "When the certificate that is shown ends, in seconds of Unix time.")
	notBefore = desc("certificate_not_before_timestamp_seconds", "When the certificate that is shown begins, in seconds of Unix time.")
	anchors   = desc("bundle_anchors", "Number of authorities that the other side may be from.")
	earliest  = desc("bundle_earliest_not_after_timestamp_seconds", "When the first of these authorities ends, in seconds of Unix time.")
	taken     = desc("changes_taken_total", "Changes of the certificate or the bundle that were taken up.")
	refused   = desc("changes_refused_total", "Changes that were not taken up, each once as long as it is the same.")
	failing   = desc("refused", "1 while what is there is refused, so that what is used is older.")
	asOf      = desc("good_as_of_timestamp_seconds", "When what is used was last seen to be what is there, in seconds of Unix time.")
)

// Describe tells of all metrics (prometheus.Collector).
func (collector) Describe(all chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{notAfter, notBefore, anchors, earliest, taken, refused, failing, asOf} {
		all <- d
	}
}

// Collect tells what is so now (prometheus.Collector).
func (c collector) Collect(all chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) { all <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	if s, ok := c.source.(Statused); ok {
		status := s.Status()
		all <- prometheus.MustNewConstMetric(taken, prometheus.CounterValue, float64(status.Taken))
		all <- prometheus.MustNewConstMetric(refused, prometheus.CounterValue, float64(status.Refused))
		gauge(failing, one(status.Failing))
		if !status.AsOf.IsZero() {
			gauge(asOf, unix(status.AsOf))
		}
	}
	now, err := c.source.Snapshot()
	if err != nil || now == nil {
		return // there is nothing yet, which absent() sees
	}
	if now.Certificate != nil && now.Certificate.Leaf != nil {
		gauge(notAfter, unix(now.Certificate.Leaf.NotAfter))
		gauge(notBefore, unix(now.Certificate.Leaf.NotBefore))
	}
	if now.Bundle != nil {
		trusted := now.Bundle.Anchors()
		gauge(anchors, float64(len(trusted)))
		if len(trusted) > 0 { // not so of the zero value
			gauge(earliest, unix(first(trusted)))
		}
	}
}

// first is when the first of some certificates, at least one, ends.
func first(all []*x509.Certificate) time.Time {
	at := all[0].NotAfter
	for _, c := range all {
		if c.NotAfter.Before(at) {
			at = c.NotAfter
		}
	}
	return at
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// unix keeps fractions of seconds, which certificates have none of.
func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
