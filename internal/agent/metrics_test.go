package agent_test

import (
	"bytes"
	"compress/gzip"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/kubepki/kubepki/internal/agent"
	"github.com/kubepki/kubepki/internal/brief"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

func TestMain(m *testing.M) {
	defer testpki.Clean()
	m.Run()
}

var now = testpki.At

// board is one that has read the files of a cluster.
func board(t *testing.T, kind testpki.Kind, breakIt func(*testpki.Cluster)) (*agent.Board, *trust.Graph, *check.Result) {
	t.Helper()
	c := testpki.New(t, kind)
	if breakIt != nil {
		breakIt(c)
	}
	g, r := c.Judge(check.Options{At: now})
	b := agent.NewBoard(func() time.Time { return now })
	b.Verified(agent.NewVerified(g, r, now, 1500*time.Millisecond))
	return b, g, r
}

// certificate is one of a name, that ends some time from now.
func certificate(subject, issuer pkix.Name, serial int64, left time.Duration) *x509.Certificate {
	return &x509.Certificate{Raw: fmt.Append(nil, subject, issuer, serial), Subject: subject, Issuer: issuer, SerialNumber: big.NewInt(serial), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(left)}
}

// holder holds certificates of objects.
type holder struct {
	certificates []brief.Certificate
	sources      []agent.Source
}

func (h *holder) Each(yield func(brief.Certificate) bool) {
	for _, c := range h.certificates {
		if !yield(c) {
			return
		}
	}
}

func (h *holder) Sources() []agent.Source { return h.sources }

func scrape(t *testing.T, b *agent.Board, o agent.MetricsOptions) (string, map[string]*dto.MetricFamily) {
	t.Helper()
	var out bytes.Buffer
	if err := agent.NewMetrics(b, o).Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.String(), parse(t, out.String())
}

// parse reads metrics as Prometheus does, which takes no series twice.
func parse(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%.2000s", err, text)
	}
	for name, f := range families {
		seen := map[string]bool{}
		for _, m := range f.GetMetric() {
			id := labels(m)
			if seen[id] {
				t.Errorf("%s{%s} is there twice", name, id)
			}
			seen[id] = true
		}
	}
	return families
}

func labels(m *dto.Metric) string {
	var all []string
	for _, l := range m.GetLabel() {
		all = append(all, l.GetName()+"="+l.GetValue())
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// series are the labels and values of a family.
func series(f *dto.MetricFamily) map[string]float64 {
	all := map[string]float64{}
	for _, m := range f.GetMetric() {
		all[labels(m)] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	return all
}

func TestTheFilesHaveTheSeriesOfVerify(t *testing.T) {
	b, g, r := board(t, testpki.HA, func(c *testpki.Cluster) {
		c.Write("cp2", "/etc/kubernetes/pki/apiserver.crt", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	})
	text, got := scrape(t, b, agent.MetricsOptions{Version: "v1.2.3"})
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	// Names that are x509-certificate-exporter's are as they are.
	problems = slices.DeleteFunc(problems, func(p promlint.Problem) bool {
		return strings.HasPrefix(p.Metric, "go_") || strings.HasPrefix(p.Metric, "process_")
	})
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
	var out bytes.Buffer
	m := report.NewMetrics(&out)
	v := report.NewVerification(g, r, now)
	m.Add(&v, g)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	want := parse(t, out.String())
	if len(want) < 10 || len(want["x509_cert_not_after"].GetMetric()) < 50 {
		t.Fatalf("verify has %d metrics", len(want))
	}
	for name, f := range want {
		if diff := cmp.Diff(series(f), withoutDiscriminators(series(got[name]))); diff != "" {
			t.Errorf("%s: verify -o prometheus and the agent differ:\n%s", name, diff)
		}
	}
	if s := series(got["x509_cert_error"]); s["filename=apiserver.crt filepath=/etc/kubernetes/pki/apiserver.crt node=cp2"] != 1 {
		t.Error("the malformed certificate is no error")
	}
	if got["kubepki_verify_duration_seconds"].GetMetric()[0].GetGauge().GetValue() != 1.5 {
		t.Error("the duration")
	}
}

// withoutDiscriminators has one series for certificates that are alike, as verify has.
func withoutDiscriminators(all map[string]float64) map[string]float64 {
	out := map[string]float64{}
	for id, v := range all {
		var kept []string
		for _, l := range strings.Split(id, " ") {
			if !strings.HasPrefix(l, "discriminator=") {
				kept = append(kept, l)
			}
		}
		id = strings.Join(kept, " ")
		if before, ok := out[id]; !ok || v < before {
			out[id] = v
		}
	}
	return out
}

func TestForeignNamesAreLabels(t *testing.T) {
	b := agent.NewBoard(func() time.Time { return now })
	hostile := pkix.Name{CommonName: "a\"b\\c\nd\x00e\x1b[31m\u202ef\xff", Organization: []string{strings.Repeat("ä", 1<<16)}, Province: []string{"Bern"}}
	place := trust.Place{Node: "cp\"1", Path: "/etc/x\n\"y/tls.crt", Field: "users[o'b]\"x].client-certificate-data"}
	c := certificate(hostile, pkix.Name{}, 1, time.Hour)
	c.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 20000)
	b.Verified(&agent.Verified{Certificates: []brief.Certificate{brief.New(place, 0, c)}})
	text, got := scrape(t, b, agent.MetricsOptions{})
	f := got["x509_cert_not_after"]
	if len(f.GetMetric()) != 1 || len(text) > 64<<10 {
		t.Fatalf("%d series in %d bytes", len(f.GetMetric()), len(text))
	}
	values := map[string]string{}
	for _, l := range f.GetMetric()[0].GetLabel() {
		values[l.GetName()] = l.GetValue()
		if n := len([]rune(l.GetValue())); n > 256 {
			t.Errorf("%s has %d characters", l.GetName(), n)
		}
	}
	want := map[string]string{"subject_CN": `a"b\c?d?e?[31m?f?`, "node": `cp"1`, "filepath": `/etc/x?"y/tls.crt`, "embedded_kind": "user", "embedded_key": `o'b]"x`, "subject_ST": "Bern"}
	for name, value := range want {
		if values[name] != value {
			t.Errorf("%s is %q, not %q", name, values[name], value)
		}
	}
	if _, there := values["issuer_CN"]; there {
		t.Error("a label without a value")
	}
}

func TestObjectsHaveTheLabelsOfTheirKind(t *testing.T) {
	at := func(path, field string) trust.Place {
		return trust.Place{Node: trust.ClusterNode, Path: path, Field: field}
	}
	b := agent.NewBoard(func() time.Time { return now })
	c := certificate(pkix.Name{CommonName: "x"}, pkix.Name{}, 1, time.Hour)
	h := &holder{}
	for _, p := range []trust.Place{
		at("secret/shop/front", "data[tls.crt]"), at("configmap/kube-system/kube-root-ca.crt", "data[ca.crt]"), at("apiservice/v1.metrics.k8s.io", "spec.caBundle"),
		at("mutatingwebhookconfiguration/m", "webhooks[w.example.org].clientConfig.caBundle"), at("customresourcedefinition/a.example.org", "spec.conversion.webhook.clientConfig.caBundle"),
	} {
		h.certificates = append(h.certificates, brief.New(p, 0, c))
	}
	b.Include(h)
	_, got := scrape(t, b, agent.MetricsOptions{})
	var all []string
	for id := range series(got["x509_cert_not_after"]) {
		all = append(all, id)
	}
	slices.Sort(all)
	want := []string{
		"cabundle_entry=w.example.org cabundle_resource_kind=MutatingWebhookConfiguration cabundle_resource_name=m serial_number=1 subject_CN=x",
		"cabundle_resource_kind=APIService cabundle_resource_name=v1.metrics.k8s.io serial_number=1 subject_CN=x",
		"cabundle_resource_kind=CustomResourceDefinition cabundle_resource_name=a.example.org serial_number=1 subject_CN=x",
		"configmap_key=ca.crt configmap_name=kube-root-ca.crt configmap_namespace=kube-system serial_number=1 subject_CN=x",
		"secret_key=tls.crt secret_name=front secret_namespace=shop serial_number=1 subject_CN=x",
	}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Error(diff)
	}
}

func TestCertificatesThatAreAlikeAreToldApart(t *testing.T) {
	b := agent.NewBoard(func() time.Time { return now })
	p := trust.Place{Path: "/ca.crt"}
	one, other := certificate(pkix.Name{CommonName: "ca"}, pkix.Name{}, 1, time.Hour), certificate(pkix.Name{CommonName: "ca"}, pkix.Name{}, 1, 2*time.Hour)
	apart := certificate(pkix.Name{CommonName: "ca"}, pkix.Name{}, 2, time.Hour)
	b.Verified(&agent.Verified{Certificates: []brief.Certificate{brief.New(p, 0, one), brief.New(p, 1, other), brief.New(p, 2, one), brief.New(p, 3, apart)}})
	b.Include(&holder{certificates: []brief.Certificate{brief.New(p, 0, one)}}) // the same file, which was named twice
	_, got := scrape(t, b, agent.MetricsOptions{})
	n := 0
	for id := range series(got["x509_cert_not_after"]) {
		n += strings.Count(id, "discriminator=")
	}
	if all := len(got["x509_cert_not_after"].GetMetric()); all != 4 || n != 3 {
		t.Errorf("%d series, %d of them with a discriminator", all, n)
	}
	again := series(got["x509_cert_not_after"])
	_, got = scrape(t, b, agent.MetricsOptions{NoRelative: true})
	if diff := cmp.Diff(again, series(got["x509_cert_not_after"])); diff != "" {
		t.Errorf("the next scrape has other series:\n%s", diff)
	}
	if got["x509_cert_expires_in_seconds"] != nil || got["x509_cert_valid_since_seconds"] != nil {
		t.Error("what was to be left out is there")
	}
}

// many are certificates of Secrets, as an issuer makes them.
func many(n int) *holder {
	h := &holder{}
	for i := range n {
		p := trust.Place{Node: trust.ClusterNode, Path: fmt.Sprintf("secret/namespace-%d/certificate-of-service-%d", i%100, i), Field: "data[tls.crt]"}
		h.certificates = append(h.certificates, brief.New(p, 0, certificate(pkix.Name{CommonName: fmt.Sprintf("service-%d.example.org", i), Organization: []string{"Example"}}, pkix.Name{CommonName: "issuer"}, int64(i+1)<<40, time.Duration(i)*time.Hour)))
	}
	return h
}

func TestAScrapeOfTenThousandCertificatesIsCheap(t *testing.T) {
	b := agent.NewBoard(func() time.Time { return now })
	b.Include(many(10_000))
	m := agent.NewMetrics(b, agent.MetricsOptions{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := m.Write(io.Discard); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	used := (after.TotalAlloc - before.TotalAlloc) >> 10
	t.Logf("%d KiB are allocated for 60,000 series", used)
	if used > 4<<10 {
		t.Errorf("%d KiB are allocated for one scrape", used)
	}
}

func BenchmarkScrape(b *testing.B) {
	board := agent.NewBoard(nil)
	board.Include(many(10_000))
	m := agent.NewMetrics(board, agent.MetricsOptions{})
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Write(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func TestMoreThanHaveSeriesIsCounted(t *testing.T) {
	b := agent.NewBoard(func() time.Time { return now })
	h := many(10)
	h.sources = []agent.Source{{Kind: "kube-secret", Name: "secrets", Left: 5}}
	b.Include(h)
	_, got := scrape(t, b, agent.MetricsOptions{MaxCertificates: 7})
	if n := len(got["x509_cert_not_after"].GetMetric()); n != 7 || series(got["kubepki_certificates_left_out"])[""] != 8 {
		t.Errorf("%d series, %v left out", n, series(got["kubepki_certificates_left_out"]))
	}
}

func TestDecisionsAndSourcesAreCounted(t *testing.T) {
	b := agent.NewBoard(func() time.Time { return now })
	_, got := scrape(t, b, agent.MetricsOptions{})
	if all := series(got["kubepki_decisions_total"]); len(all) != 5 || all["action=failed"] != 0 {
		t.Errorf("before the first: %v", all)
	}
	for i := range 300 {
		b.Decided(agent.Decision{Action: agent.Failed, ID: "cp1/apiserver", Reason: fmt.Sprintf("reason-%d", i), Text: "no"})
	}
	b.Decided(agent.Decision{Action: agent.Renewed, ID: "cp1/apiserver", Reason: "due"})
	b.Schedule([]agent.Due{{ID: "b", At: now.Add(2 * time.Hour)}, {ID: "a", At: now.Add(time.Hour)}})
	b.Include(&holder{sources: []agent.Source{{Kind: "kube-secret", Name: "secrets", Bundles: 3, Up: true, Resyncs: 2, Errors: map[string]uint64{"http_403": 4}}}})
	b.Unread(errors.New("no"))
	_, got = scrape(t, b, agent.MetricsOptions{})
	wants := map[string]map[string]float64{
		"kubepki_decisions_total":                {"action=failed": 300, "action=renewed": 1, "action=refused": 0, "action=restarted": 0, "action=stuck": 0},
		"kubepki_next_renewal_timestamp_seconds": {"": float64(now.Add(time.Hour).Unix())},
		"kubepki_renewal_due_timestamp_seconds":  {"credential=a": float64(now.Add(time.Hour).Unix()), "credential=b": float64(now.Add(2 * time.Hour).Unix())},
		"x509_source_up":                         {"source_kind=kube-secret source_name=secrets": 1, "source_kind=file source_name=nodes": 0},
		"x509_source_bundles":                    {"source_kind=kube-secret source_name=secrets": 3, "source_kind=file source_name=nodes": 0},
		"x509_kube_watch_resyncs_total":          {"resource=kube-secret source_name=secrets": 2},
		"x509_kube_transport_errors_total":       {"reason=http_403 resource=kube-secret source_name=secrets": 4},
		"kubepki_verify_failing":                 {"": 1},
	}
	for name, want := range wants {
		if diff := cmp.Diff(want, series(got[name])); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	if n := len(got["kubepki_decision_reasons_total"].GetMetric()); n > 66 {
		t.Errorf("%d reasons have series", n)
	}
}

func TestScrapesAreCompressedForThoseWhoTakeIt(t *testing.T) {
	b, _, _ := board(t, testpki.Single, nil)
	h := agent.Handler(b, agent.NewMetrics(b, agent.MetricsOptions{}))
	for accept, want := range map[string]bool{"": false, "gzip": true, "deflate, gzip;q=0.5": true, "gzip;q=0": false, "gzip; q=0.0": false, "identity": false, "br, GZIP": true} {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Header.Set("Accept-Encoding", accept)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var body io.Reader = w.Body
		if got := w.Header().Get("Content-Encoding") == "gzip"; got != want {
			t.Errorf("%q: compressed is %t", accept, got)
			continue
		}
		if want {
			z, err := gzip.NewReader(body)
			if err != nil {
				t.Fatalf("%q: %v", accept, err)
			}
			body = z
		}
		text, err := io.ReadAll(body)
		if err != nil || parse(t, string(text))["kubepki_healthy"] == nil {
			t.Errorf("%q: %v", accept, err)
		}
	}
}
