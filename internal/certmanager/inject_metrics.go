package certmanager

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// InjectMetrics counts the caBundles that were written. It is safe for concurrent use; nil
// counts nothing.
type InjectMetrics struct{ writes *prometheus.CounterVec }

// NewInjectMetrics registers the figures. current is the injector of this term as the
// leader, and may return nil.
func NewInjectMetrics(r prometheus.Registerer, current func() *Injector) *InjectMetrics {
	m := &InjectMetrics{writes: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "kubepki", Name: "ca_injections_total", Help: "Objects into which this process has written caBundles, by kind.",
	}, []string{"kind"})}
	r.MustRegister(m.writes, injectCollector{current})
	return m
}

func (m *InjectMetrics) wrote(kind string) {
	if m != nil {
		m.writes.WithLabelValues(kind).Inc()
	}
}

// injectCollector tells of the objects whose bundles are left as they are.
type injectCollector struct{ current func() *Injector }

func (injectCollector) desc() *prometheus.Desc {
	return prometheus.NewDesc("kubepki_ca_injection_blocked", "1 for an object that wants a caBundle and gets none; the log has the reason.", []string{"resource", "name"}, nil)
}

func (c injectCollector) Describe(all chan<- *prometheus.Desc) { all <- c.desc() }

func (c injectCollector) Collect(all chan<- prometheus.Metric) {
	i := c.current()
	if i == nil {
		return
	}
	for key := range i.Blocked() {
		resource, name, _ := strings.Cut(key, "/")
		all <- prometheus.MustNewConstMetric(c.desc(), prometheus.GaugeValue, 1, resource, name)
	}
}
