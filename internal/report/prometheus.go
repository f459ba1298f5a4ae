package report

import (
	"cmp"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/trust"
)

// Metrics prints verifications in Prometheus' text format, for node_exporter's
// textfile collector or a Pushgateway. Certificates have the names and labels of
// x509-certificate-exporter (enix/x509-certificate-exporter, internal/collector.go
// and internal/exporter.go of v3; pkg/registry/labels.go of v4), so that its
// dashboards and alerts read them; links and findings have names of our own.
type Metrics struct {
	w       io.Writer
	samples map[string]map[string]sample // by name, then by labels
}

type sample struct {
	labels prometheus.Labels
	value  float64
}

// help says what each metric is; those that are not here do not exist.
var help = map[string]string{
	"x509_cert_not_before":             "Indicates the certificate's not before timestamp",
	"x509_cert_not_after":              "Indicates the certificate's not after timestamp",
	"x509_cert_expired":                "Indicates if the certificate is expired",
	"x509_cert_expires_in_seconds":     "Indicates the remaining time before the certificate's not after timestamp",
	"x509_cert_valid_since_seconds":    "Indicates the elapsed time since the certificate's not before timestamp",
	"x509_read_errors":                 "Indicates the number of read failure(s)",
	"kubepki_link_ok":                  "1 when a half of a link was judged and works, 0 when it is broken; absent when it was not seen.",
	"kubepki_link_seen":                "1 when a half of a link could be judged, 0 when a part of it was not in what was given.",
	"kubepki_findings":                 "Number of findings.",
	"kubepki_healthy":                  "1 when no finding is an error.",
	"kubepki_verify_timestamp_seconds": "Time as of which the cluster was judged, since the epoch.",
}

// MetricHelp is what a metric of `verify -o prometheus` is; "": there is none of this
// name.
func MetricHelp(name string) string { return help[name] }

// NewMetrics prints nothing yet. Each series of a cluster that has a name, as
// several clusters have, has it as label cluster.
func NewMetrics(w io.Writer) *Metrics {
	return &Metrics{w: w, samples: map[string]map[string]sample{}}
}

// Add adds a cluster: what was found, and the graph in which.
func (m *Metrics) Add(v *Verification, g *trust.Graph) {
	cluster := v.Name
	errors := 0
	for _, p := range placesOf(g) {
		at := g.Materials[p]
		switch at.State {
		case trust.Unreadable, trust.Denied, trust.Malformed:
			errors++
		}
		for _, c := range at.Certificates {
			m.certificate(v, p, c, cluster)
		}
	}
	m.set("x509_read_errors", float64(errors), "cluster", cluster)
	for i := range v.Links {
		for _, h := range v.Links[i].Halves {
			m.half(&v.Links[i], h, cluster)
		}
	}
	m.findings(v, cluster)
	m.set("kubepki_healthy", truth(v.Healthy), "cluster", cluster)
	m.set("kubepki_verify_timestamp_seconds", float64(v.At.Unix()), "cluster", cluster)
}

func (m *Metrics) certificate(v *Verification, p trust.Place, c *x509.Certificate, cluster string) {
	kind, key := Embedded(p.Field)
	labels := []string{
		"cluster", cluster, "node", p.Node, "filename", path.Base(p.Path), "filepath", p.Path, "embedded_kind", kind, "embedded_key", key,
		"serial_number", c.SerialNumber.String(),
	}
	labels = append(labels, nameLabels("issuer", c.Issuer)...)
	labels = append(labels, nameLabels("subject", c.Subject)...)
	m.set("x509_cert_not_before", float64(c.NotBefore.Unix()), labels...)
	m.set("x509_cert_not_after", float64(c.NotAfter.Unix()), labels...)
	m.set("x509_cert_expired", truth(v.At.After(c.NotAfter)), labels...)
	m.set("x509_cert_expires_in_seconds", c.NotAfter.Sub(v.At).Seconds(), labels...)
	m.set("x509_cert_valid_since_seconds", v.At.Sub(c.NotBefore).Seconds(), labels...)
}

// field of a kubeconfig that has a certificate in it.
var field = regexp.MustCompile(`^(cluster|user)s\[(.*)\]\.`)

// Embedded tells what of a kubeconfig a certificate is in, by the field of its place:
// a cluster or a user, and its name; "" for what is in no kubeconfig.
func Embedded(f string) (kind, key string) {
	if f == "" {
		return "", ""
	}
	if found := field.FindStringSubmatch(f); found != nil {
		return found[1], found[2]
	}
	return "", ""
}

func nameLabels(prefix string, n pkix.Name) []string {
	first := func(values []string) string {
		if len(values) == 0 {
			return ""
		}
		return values[0]
	}
	return []string{
		prefix + "_C", first(n.Country), prefix + "_ST", first(n.Province), prefix + "_L", first(n.Locality), prefix + "_O", first(n.Organization),
		prefix + "_OU", first(n.OrganizationalUnit), prefix + "_CN", n.CommonName,
	}
}

func (m *Metrics) half(l *VerifiedLink, h VerifiedHalf, cluster string) {
	labels := []string{"cluster", cluster, "link", strconv.Itoa(l.Number), "caller", l.Caller, "callee", l.Callee, "side", h.Side}
	m.set("kubepki_link_seen", truth(h.State != check.Unseen), labels...)
	if h.State != check.Unseen {
		m.set("kubepki_link_ok", truth(h.State == check.OK), labels...)
	}
}

// findings counts what was found, and says of each kind that was not that there
// is none, so that an alert has something to compare with.
func (m *Metrics) findings(v *Verification, cluster string) {
	type kind struct {
		id       string
		severity check.Severity
	}
	counts := map[kind]int{}
	for _, r := range check.Rules() {
		counts[kind{r.ID, r.Severity}] = 0
	}
	for _, f := range v.Findings {
		counts[kind{f.ID, f.Severity}]++
	}
	for k, n := range counts {
		m.set("kubepki_findings", float64(n), "cluster", cluster, "id", k.id, "severity", string(k.severity))
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// maxLabel is how many characters of a foreign text a label has.
const maxLabel = 256

// Label makes a foreign text fit for the value of a label.
func Label(text string) string {
	runes := []rune(Plain(strings.ToValidUTF8(text, "?")))
	if len(runes) > maxLabel {
		runes = append(runes[:maxLabel-1], '…')
	}
	return string(runes)
}

// set sets one series. Labels without a value are left out, as Prometheus takes
// them for the same. Where two things have the same labels, the smaller value
// stands: the certificate that ends first, the half that is broken.
func (m *Metrics) set(name string, value float64, labels ...string) {
	s := sample{prometheus.Labels{}, value}
	for i := 0; i+1 < len(labels); i += 2 {
		if text := Label(labels[i+1]); text != "" {
			s.labels[labels[i]] = text
		}
	}
	key := fmt.Sprint(s.labels) // fmt sorts the keys of maps
	if m.samples[name] == nil {
		m.samples[name] = map[string]sample{}
	}
	if before, ok := m.samples[name][key]; ok && before.value < value {
		return
	}
	m.samples[name][key] = s
}

// Describe makes Metrics a collector whose labels are known when it collects.
func (m *Metrics) Describe(chan<- *prometheus.Desc) {}

// Collect is for Prometheus' registry, which checks what it is given.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	for name, all := range m.samples {
		for _, s := range all {
			names := slices.Sorted(maps.Keys(s.labels))
			values := make([]string, len(names))
			for i, n := range names {
				values[i] = s.labels[n]
			}
			to <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help[name], names, nil), prometheus.GaugeValue, s.value, values...)
		}
	}
}

// Close prints what was added.
func (m *Metrics) Close() error {
	registry := prometheus.NewRegistry()
	if err := registry.Register(m); err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	families, err := registry.Gather()
	for _, f := range families {
		if _, printErr := expfmt.MetricFamilyToText(m.w, f); printErr != nil {
			return cmp.Or(err, printErr)
		}
	}
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	return nil
}
