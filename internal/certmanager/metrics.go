package certmanager

import (
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubepki/kubepki/internal/workload"
)

// Metrics are the figures of the loops. They are safe for concurrent use; nil counts
// nothing.
type Metrics struct{ issuances, rulings *prometheus.CounterVec }

// NewMetrics registers the figures.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{issuances: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "kubepki", Name: "workload_issuances_total", Help: "Requests that were signed by this process, and issuances of Certificates that failed, by kind of issuer and result.",
	}, []string{"issuer_kind", "result"})}
	m.rulings = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "kubepki", Name: "workload_rulings_total", Help: "Decisions on requests by the workload policy, by outcome (approve, deny, wait) and reason.",
	}, []string{"outcome", "reason"})
	r.MustRegister(m.issuances, m.rulings)
	return m
}

func (m *Metrics) ruled(outcome, reason string) {
	if m != nil {
		m.rulings.WithLabelValues(outcome, reason).Inc()
	}
}

func (m *Metrics) issued(ref cmmeta.IssuerReference) { m.count(ref, "issued") }

func (m *Metrics) failed(ref cmmeta.IssuerReference) { m.count(ref, "failed") }

func (m *Metrics) count(ref cmmeta.IssuerReference, result string) {
	if m != nil {
		m.issuances.WithLabelValues(workload.IssuerOf(ref).Kind, result).Inc()
	}
}

// Collector makes the figures of Certificates when they are asked for, with the names
// that cert-manager gives them: nothing is kept for each. current may return nil.
func Collector(current func() *Controller) prometheus.Collector { return collector{current} }

type collector struct{ current func() *Controller }

type certificateDescs struct{ ready, notAfter, notBefore, expiration, renewal *prometheus.Desc }

func descs() certificateDescs {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("certmanager_certificate_"+name, help, append([]string{"name", "namespace"}, append(labels, "issuer_name", "issuer_kind", "issuer_group")...), nil)
	}
	return certificateDescs{
		ready:      desc("ready_status", "The ready status of the certificate.", "condition"),
		notAfter:   desc("not_after_timestamp_seconds", "The timestamp after which the certificate is invalid, expressed as a Unix Epoch Time."),
		notBefore:  desc("not_before_timestamp_seconds", "The timestamp before which the certificate is invalid, expressed as a Unix Epoch Time."),
		expiration: desc("expiration_timestamp_seconds", "The timestamp after which the certificate expires, expressed in Unix Epoch Time."),
		renewal:    desc("renewal_timestamp_seconds", "The timestamp after which the certificate should be renewed, expressed in Unix Epoch Time."),
	}
}

func (collector) Describe(all chan<- *prometheus.Desc) {
	d := descs()
	for _, one := range []*prometheus.Desc{d.ready, d.notAfter, d.notBefore, d.expiration, d.renewal} {
		all <- one
	}
	describeRollovers(all)
}

func (q collector) Collect(all chan<- prometheus.Metric) {
	c := q.current()
	if c == nil {
		return
	}
	c.rollovers.collect(all)
	d := descs()
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		all <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for key, k := range c.certificates.each() {
		o, ref := k.value, k.value.Spec.IssuerRef
		is := cmmeta.ConditionUnknown
		if ready := workload.Condition(&o.Status, cmapi.CertificateConditionReady); ready != nil {
			is = ready.Status
		}
		for _, status := range []cmmeta.ConditionStatus{cmmeta.ConditionTrue, cmmeta.ConditionFalse, cmmeta.ConditionUnknown} {
			value := 0.0
			if status == is {
				value = 1
			}
			gauge(d.ready, value, key.Name, key.Namespace, string(status), ref.Name, ref.Kind, ref.Group)
		}
		for desc, at := range map[*prometheus.Desc]*metav1.Time{
			d.notAfter: o.Status.NotAfter, d.expiration: o.Status.NotAfter, d.notBefore: o.Status.NotBefore, d.renewal: o.Status.RenewalTime,
		} {
			value := 0.0
			if at != nil {
				value = float64(at.Unix())
			}
			gauge(desc, value, key.Name, key.Namespace, ref.Name, ref.Kind, ref.Group)
		}
	}
}
