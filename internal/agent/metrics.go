package agent

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/report"
)

// MetricsOptions are the options of [NewMetrics].
type MetricsOptions struct {
	Version  string // of kubepki
	Revision string // of its source; "": not known
	// MaxCertificates is how many certificates have series; 0: [DefaultMaxCertificates].
	MaxCertificates int
	// NoRelative leaves out x509_cert_expires_in_seconds and
	// x509_cert_valid_since_seconds, which change at each scrape and can be had from
	// the others.
	NoRelative bool
}

// Metrics serves what a [Board] knows to Prometheus. It is safe for concurrent use.
type Metrics struct {
	board    *Board
	o        MetricsOptions
	registry *prometheus.Registry
	scrapes  chan struct{} // as many as are answered at once
}

// scrapesAtOnce is how many scrapes are answered at the same time.
const scrapesAtOnce = 2

// NewMetrics returns the figures of a board, and of this process.
func NewMetrics(b *Board, o MetricsOptions) *Metrics {
	if o.MaxCertificates == 0 {
		o.MaxCertificates = DefaultMaxCertificates
	}
	m := &Metrics{board: b, o: o, registry: prometheus.NewRegistry(), scrapes: make(chan struct{}, scrapesAtOnce)}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// ServeHTTP answers a scrape in the text format, compressed for who takes that.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case m.scrapes <- struct{}{}:
		defer func() { <-m.scrapes }()
	default:
		http.Error(w, "other scrapes are being answered; try again", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	w.Header().Set("Vary", "Accept-Encoding")
	var to io.Writer = w
	if takesGzip(r.Header.Get("Accept-Encoding")) {
		w.Header().Set("Content-Encoding", "gzip")
		z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // the level is one
		defer func() { _ = z.Close() }()               // whoever asked may be gone
		to = z
	}
	if r.Method != http.MethodHead {
		_ = m.Write(to) // whoever asked may be gone; what was begun cannot be taken back
	}
}

// takesGzip reads an Accept-Encoding (RFC 9110 section 12.5.3).
func takesGzip(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		name, weight, _ := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
			continue
		}
		q, isWeight := strings.CutPrefix(strings.ReplaceAll(weight, " ", ""), "q=")
		value, err := strconv.ParseFloat(q, 64)
		return !isWeight || err == nil && value > 0
	}
	return false
}

// Write writes all metrics in Prometheus' text format.
func (m *Metrics) Write(w io.Writer) error {
	s := m.board.Snapshot()
	left, err := writeCertificates(w, &s, m.o.MaxCertificates, !m.o.NoRelative)
	if err != nil {
		return err
	}
	own := prometheus.NewRegistry()
	own.MustRegister(&figures{m: m, s: &s, left: left})
	families, err := prometheus.Gatherers{own, m.registry}.Gather()
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(w, f); err != nil {
			return err
		}
	}
	return nil
}

// figures is all that is not of single certificates, at the moment of a scrape.
type figures struct {
	m    *Metrics
	s    *Snapshot
	left int
	to   chan<- prometheus.Metric
}

// Describe says nothing, so that the labels are checked as they come.
func (f *figures) Describe(chan<- *prometheus.Desc) {}

// Collect is for the registry, which checks what it is given.
func (f *figures) Collect(to chan<- prometheus.Metric) {
	f.to = to
	f.builds()
	f.sources()
	f.verification()
	f.decisions()
	f.gauge("kubepki_agent_start_timestamp_seconds", "When the agent started, in seconds of Unix time.", float64(f.s.Started.Unix()))
	f.gauge("kubepki_agent_progress_timestamp_seconds", "When the agent's loop went round last, in seconds of Unix time.", float64(f.s.Progress.Unix()))
	f.gauge("kubepki_certificates_left_out", "Certificates that have no series, for there are too many.", float64(f.left))
}

func (f *figures) gauge(name, help string, value float64, labels ...string) {
	f.metric(prometheus.GaugeValue, name, help, value, labels)
}

func (f *figures) counter(name, help string, value float64, labels ...string) {
	f.metric(prometheus.CounterValue, name, help, value, labels)
}

// metric sends one series; labels are names and values by turns.
func (f *figures) metric(t prometheus.ValueType, name, help string, value float64, labels []string) {
	var names, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, report.Label(labels[i+1]))
	}
	f.to <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), t, value, values...)
}

func (f *figures) builds() {
	f.gauge("kubepki_build_info", "1, with what this kubepki is as labels.", 1, "version", f.m.o.Version, "revision", f.m.o.Revision, "goversion", runtime.Version())
	f.gauge("x509_exporter_build_info", "1, with what this kubepki is as labels, for dashboards of x509-certificate-exporter.", 1,
		"version", f.m.o.Version, "built", "", "git_commit", f.m.o.Revision, "go_runtime", runtime.Version(), "go_os", runtime.GOOS, "go_arch", runtime.GOARCH)
}

// sources are the figures of x509-certificate-exporter on where certificates are
// from: of its version 4, and x509_read_errors of its version 3.
func (f *figures) sources() {
	faults := 0
	for _, s := range f.s.Sources() {
		faults += len(s.Faults)
		f.gauge("x509_source_up", "1 when what certificates are from was read and is followed, 0 when it could not be.", float64(oneIf(s.Up)), "source_kind", s.Kind, "source_name", s.Name)
		f.gauge("x509_source_bundles", "Files or objects that hold certificates.", float64(s.Bundles), "source_kind", s.Kind, "source_name", s.Name)
		f.left += s.Left
		for reason, n := range s.Errors {
			const help = "What went wrong in reading, by reason."
			f.counter("x509_source_errors_total", help, float64(n), "source_kind", s.Kind, "source_name", s.Name, "reason", reason)
			if s.Kind != fileKind {
				f.counter("x509_kube_transport_errors_total", help, float64(n), "source_name", s.Name, "resource", s.Kind, "reason", reason)
			}
		}
		if s.Kind != fileKind {
			f.counter("x509_kube_watch_resyncs_total", "How often all objects were read anew, after a watch that could not go on.", float64(s.Resyncs), "source_name", s.Name, "resource", s.Kind)
		}
	}
	f.gauge("x509_read_errors", report.MetricHelp("x509_read_errors"), float64(faults))
}

// maxLinks bounds the series of links.
const maxLinks = 5000

func (f *figures) verification() {
	f.gauge("kubepki_verify_failing", "1 when the files could not be looked at, and what is shown is older.", float64(oneIf(f.s.Failure != nil)))
	v := f.s.Verified
	if v == nil {
		return
	}
	for _, name := range []string{"kubepki_healthy", "kubepki_verify_timestamp_seconds"} {
		value := float64(v.At.Unix())
		if name == "kubepki_healthy" {
			value = float64(oneIf(v.Healthy))
		}
		f.gauge(name, report.MetricHelp(name), value)
	}
	f.gauge("kubepki_verify_duration_seconds", "How long it took to read and judge everything, the last time.", v.Took.Seconds())
	f.gauge("kubepki_files", "Files that are watched.", float64(v.Files))
	f.links(v)
	f.findings(v)
}

// links has each half by the labels of `verify -o prometheus`. Halves that have the
// same labels are one series, and it is broken where one of them is.
func (f *figures) links(v *Verified) {
	type half struct{ link, caller, callee, side string }
	states := map[half]check.State{}
	for i := range v.Links {
		l := &v.Links[i]
		for _, h := range l.Halves {
			id := half{strconv.Itoa(l.Number), report.Label(l.Caller), report.Label(l.Callee), h.Side}
			before, known := states[id]
			if known && worse(before) >= worse(h.State) || !known && len(states) == maxLinks {
				continue
			}
			states[id] = h.State
		}
	}
	for h, state := range states {
		labels := []string{"link", h.link, "caller", h.caller, "callee", h.callee, "side", h.side}
		f.gauge("kubepki_link_seen", report.MetricHelp("kubepki_link_seen"), float64(oneIf(state != check.Unseen)), labels...)
		if state != check.Unseen {
			f.gauge("kubepki_link_ok", report.MetricHelp("kubepki_link_ok"), float64(oneIf(state == check.OK)), labels...)
		}
	}
}

// worse orders the states of a half.
func worse(s check.State) int {
	return slices.Index([]check.State{check.OK, check.Unseen, check.Broken}, s)
}

// findings counts them by kind, also those of which there are none.
func (f *figures) findings(v *Verified) {
	type kind struct {
		id       string
		severity check.Severity
	}
	counts := map[kind]int{}
	for _, r := range check.Rules() {
		counts[kind{r.ID, r.Severity}] = 0
	}
	for i := range v.Findings {
		counts[kind{v.Findings[i].ID, v.Findings[i].Severity}]++
	}
	for k, n := range counts {
		f.gauge("kubepki_findings", report.MetricHelp("kubepki_findings"), float64(n), "id", k.id, "severity", string(k.severity))
	}
}

// maxDue bounds the series of credentials that will be made anew.
const maxDue = 1000

// decisions has each action from the start on, so that increase() sees the first of
// its kind.
func (f *figures) decisions() {
	totals := map[Action]uint64{Renewed: 0, Refused: 0, Failed: 0, Restarted: 0, Stuck: 0}
	for c, n := range f.s.Counts {
		totals[c.Action] += n
		f.counter("kubepki_decision_reasons_total", "What the agent did or refused to do, by action and reason.", float64(n), "action", string(c.Action), "reason", c.Reason)
	}
	for a, n := range totals {
		f.counter("kubepki_decisions_total", "What the agent did or refused to do, by action.", float64(n), "action", string(a))
	}
	seen := map[string]bool{}
	for _, d := range f.s.Due {
		if id := report.Label(d.ID); !seen[id] && len(seen) < maxDue {
			seen[id] = true
			f.gauge("kubepki_renewal_due_timestamp_seconds", "When the agent will make a credential anew, in seconds of Unix time.", float64(d.At.Unix()), "credential", id)
		}
	}
	if len(f.s.Due) > 0 {
		f.gauge("kubepki_next_renewal_timestamp_seconds", "When the agent will make the next credential anew, in seconds of Unix time.", float64(f.s.Due[0].At.Unix()))
	}
}
