package jwtsigner

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

// Metrics are the figures of a [Server].
type Metrics struct {
	sign  *prometheus.HistogramVec
	fetch prometheus.Counter
}

// NewMetrics registers the figures; nil registers them nowhere.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		sign: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "kubepki", Name: "sa_sign_seconds", Help: "Calls for a signature, by the code of gRPC that they ended with.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 18), // up to 13 seconds
		}, []string{"code"}),
		fetch: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "kubepki", Name: "sa_fetch_keys_total", Help: "Calls for the keys that verify.",
		}),
	}
	if r != nil {
		r.MustRegister(m.sign, m.fetch)
	}
	return m
}

func (m *Metrics) signed(code codes.Code, took time.Duration) {
	m.sign.WithLabelValues(code.String()).Observe(took.Seconds())
}

func (m *Metrics) fetched() { m.fetch.Inc() }

// KeyMetrics are figures of the keys as they are when somebody looks.
func KeyMetrics(k *Keys) prometheus.Collector { return keyCollector{k} }

type keyCollector struct{ keys *Keys }

func keyDesc() *prometheus.Desc {
	return prometheus.NewDesc("kubepki_sa_key", "Always 1: the keys that verify, by id and use: signing, waiting to sign, published, legacy.", []string{"key", "use"}, nil)
}

func asOfDesc() *prometheus.Desc {
	return prometheus.NewDesc("kubepki_sa_keys_read_timestamp_seconds", "When the files of the keys were found to hold those that are in use, in seconds of Unix time.", nil, nil)
}

func (c keyCollector) Describe(all chan<- *prometheus.Desc) {
	all <- keyDesc()
	all <- asOfDesc()
}

func (c keyCollector) Collect(all chan<- prometheus.Metric) {
	p := c.keys.Look()
	uses := make(map[string]string) // two keys may have one id
	for _, k := range p.Legacy {
		uses[k.ID] = "legacy"
	}
	for _, k := range p.Keys[1:] {
		uses[k.ID] = "published"
	}
	if p.Waiting != "" {
		uses[p.Waiting] = "waiting"
	}
	uses[p.Keys[0].ID] = "signing"
	for id, use := range uses {
		all <- prometheus.MustNewConstMetric(keyDesc(), prometheus.GaugeValue, 1, id, use)
	}
	all <- prometheus.MustNewConstMetric(asOfDesc(), prometheus.GaugeValue, float64(p.AsOf.Unix()))
}
