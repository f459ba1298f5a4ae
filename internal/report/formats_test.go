package report_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

func TestMain(m *testing.M) {
	code := m.Run()
	testpki.Clean()
	os.Exit(code)
}

// judged is a cluster in which cp2's etcd has no certificate and an unreadable
// bundle, and whose links and findings have hostile names.
func judged(t *testing.T) (report.Verification, *trust.Graph) {
	t.Helper()
	c := testpki.New(t, testpki.HA)
	c.Remove("cp2", "pki/etcd/server.crt")
	c.Write("cp3", "pki/front-proxy-ca.crt", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	g, r := c.Judge(check.Options{})
	v := report.NewVerification(g, r, testpki.At)
	v.Findings = append(v.Findings, check.Finding{ID: "not-seen", Severity: check.Info, Cause: "a\x00b\u202e<script>\"']]>&\xff" + strings.Repeat("x", 20000), Fix: "<fix>"})
	return v, g
}

func TestSARIFIsWhatTheStandardWants(t *testing.T) {
	v, _ := judged(t)
	for _, several := range []bool{false, true} {
		var b bytes.Buffer
		s := report.NewSARIF(&b, "v1.2.3")
		s.Add(&v)
		if several {
			v.Name = "other"
			s.Add(&v)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := sarifValid(t, b.Bytes()); err != nil {
			t.Fatal(err)
		}
		sarifContent(t, b.Bytes(), &v, several)
	}
}

// sarifValid asks the schema of OASIS, errata 01 of SARIF 2.1.0
// (https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json).
func sarifValid(t *testing.T, document []byte) error {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile("testdata/sarif-schema-2.1.0.json")
	if err != nil {
		t.Fatal(err)
	}
	read, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(read)
}

func sarifContent(t *testing.T, document []byte, v *report.Verification, several bool) {
	t.Helper()
	var read struct {
		Runs []struct {
			Tool struct {
				Driver struct {
					Version string
					Rules   []struct{ ID, HelpURI string }
				}
			}
			OriginalURIBaseIDs map[string]any `json:"originalUriBaseIds"`
			Results            []struct {
				RuleID, Level       string
				RuleIndex           int
				PartialFingerprints map[string]string
				Locations           []struct {
					PhysicalLocation struct {
						ArtifactLocation struct{ URI, URIBaseID string }
					}
				}
			}
		}
	}
	if err := json.Unmarshal(document, &read); err != nil {
		t.Fatal(err)
	}
	if want := map[bool]int{false: 1, true: 2}[several]; len(read.Runs) != want {
		t.Fatalf("%d runs, want %d", len(read.Runs), want)
	}
	run := read.Runs[0]
	if len(run.Results) != len(v.Findings) || run.Tool.Driver.Version != "v1.2.3" {
		t.Fatalf("%d results of %s for %d findings", len(run.Results), run.Tool.Driver.Version, len(v.Findings))
	}
	for i, r := range run.Results {
		f, rule := v.Findings[i], run.Tool.Driver.Rules[r.RuleIndex]
		if r.RuleID != f.ID || rule.ID != f.ID || r.Level != map[check.Severity]string{check.Error: "error", check.Warning: "warning", check.Info: "note"}[f.Severity] {
			t.Errorf("result %d is %s %s, want %s %s", i, r.RuleID, r.Level, f.ID, f.Severity)
		}
		if !strings.HasSuffix(rule.HelpURI, "/docs/findings.md#"+f.ID) || len(r.PartialFingerprints["kubepki/v1"]) != 32 {
			t.Errorf("result %d: help %s, fingerprint %q", i, rule.HelpURI, r.PartialFingerprints)
		}
		if f.Path == "" {
			continue
		}
		at := r.Locations[0].PhysicalLocation.ArtifactLocation
		if "/"+at.URI != f.Path || at.URIBaseID != "ROOT-"+f.Node || run.OriginalURIBaseIDs[at.URIBaseID] == nil {
			t.Errorf("result %d is at %s of %s, want %s of %s", i, at.URI, at.URIBaseID, f.Path, f.Node)
		}
	}
}

// The schema finds what is wrong with a document.
func TestTheSchemaOfSARIFIsAsked(t *testing.T) {
	for document, want := range map[string]bool{
		`{"version":"2.1.0","runs":[{"tool":{"driver":{"name":"kubepki"}},"results":[{"ruleId":"x"}]}]}`:                         false,
		`{"version":"2.1.0","runs":[{"tool":{"driver":{"name":"kubepki"}},"results":[{"message":{"text":"x"},"level":"bad"}]}]}`: false,
		`{"version":"2.1.0","runs":[{"tool":{"driver":{"name":"kubepki"}},"results":[{"message":{"text":"x"}}]}]}`:               true,
	} {
		if err := sarifValid(t, []byte(document)); (err == nil) != want {
			t.Errorf("%s: %v", document, err)
		}
	}
}

func TestFingerprintsAreOfTheFaultAlone(t *testing.T) {
	print := func(f check.Finding) string {
		var b bytes.Buffer
		s := report.NewSARIF(&b, "")
		s.Add(&report.Verification{Findings: []check.Finding{f}})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		var read struct {
			Runs []struct {
				Results []struct{ PartialFingerprints map[string]string }
			}
		}
		if err := json.Unmarshal(b.Bytes(), &read); err != nil {
			t.Fatal(err)
		}
		return read.Runs[0].Results[0].PartialFingerprints["kubepki/v1"]
	}
	f := check.Finding{ID: "cert-expired", Node: "cp1", Path: "/a", Cause: "ended 3d ago"}
	same, other := f, f
	same.Cause, same.Links = "ended 4d ago", []int{4}
	other.Node = "cp2"
	if print(f) != print(same) || print(f) == print(other) {
		t.Errorf("%s, the next day %s, on another node %s", print(f), print(same), print(other))
	}
}

func TestJUnitHasATestForEachHalfAndFinding(t *testing.T) {
	v, _ := judged(t)
	var b bytes.Buffer
	j := report.NewJUnit(&b, check.Error)
	j.Add(&v)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	var read struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Suites   []struct {
			Tests    int `xml:"tests,attr"`
			Failures int `xml:"failures,attr"`
			Skipped  int `xml:"skipped,attr"`
			Cases    []struct {
				Class   string    `xml:"classname,attr"`
				Name    string    `xml:"name,attr"`
				Skipped *struct{} `xml:"skipped"`
				Failure *struct {
					Message string `xml:"message,attr"`
					Type    string `xml:"type,attr"`
					Text    string `xml:",chardata"`
				} `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(b.Bytes(), &read); err != nil {
		t.Fatal(err)
	}
	failed, skipped, want := 0, 0, map[string]int{}
	for _, c := range read.Suites[0].Cases {
		if c.Failure != nil {
			failed++
		}
		if c.Skipped != nil {
			skipped++
		}
		if c.Failure != nil && strings.HasPrefix(c.Class, "kubepki.link.") {
			want[c.Failure.Type]++
			if !strings.Contains(c.Failure.Text, "cause: ") || !strings.Contains(c.Failure.Text, "where: cp") {
				t.Errorf("%s fails without a cause: %q", c.Name, c.Failure.Text)
			}
		}
	}
	broken, unseen, errors := 0, 0, 0
	for _, l := range v.Links {
		for _, h := range l.Halves {
			broken += map[check.State]int{check.Broken: 1}[h.State]
			unseen += map[check.State]int{check.Unseen: 1}[h.State]
		}
	}
	for _, f := range v.Findings {
		errors += map[check.Severity]int{check.Error: 1}[f.Severity]
	}
	suite := read.Suites[0]
	if failed != broken+errors || skipped != unseen || suite.Failures != failed || read.Failures != failed || suite.Skipped != skipped || suite.Tests != len(suite.Cases) || read.Tests != suite.Tests || broken == 0 {
		t.Errorf("%d failed of %d broken and %d errors, %d skipped of %d unseen: %+v", failed, broken, errors, skipped, unseen, suite.Tests)
	}
	if want["file-missing"] == 0 || want["broken"] > 0 {
		t.Errorf("links fail for %v", want)
	}
	if strings.Contains(b.String(), "\u202e") {
		t.Error("what turns the direction of writing is in it")
	}
}

func TestJUnitFailsAsVerifyDoes(t *testing.T) {
	v := report.Verification{Findings: []check.Finding{{ID: "cert-expiring", Severity: check.Warning}}}
	for failOn, want := range map[check.Severity]string{check.Error: `failures="0"`, check.Warning: `failures="1"`, check.Info: `failures="1"`} {
		var b bytes.Buffer
		j := report.NewJUnit(&b, failOn)
		j.Add(&v)
		if err := j.Close(); err != nil || !strings.Contains(b.String(), want) {
			t.Errorf("%s: no %s in %s, %v", failOn, want, b.String(), err)
		}
	}
}

func metrics(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func labelsOf(m *dto.Metric) string {
	var all []string
	for _, l := range m.Label {
		all = append(all, l.GetName()+"="+l.GetValue())
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// value is that of the one series that has all of some labels.
func value(t *testing.T, families map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	t.Helper()
	var found []float64
	for _, m := range families[name].GetMetric() {
		if !slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(strings.Split(labelsOf(m), " "), l) }) {
			found = append(found, m.GetGauge().GetValue())
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d series %s%v", len(found), name, labels)
	}
	return found[0]
}

func TestMetricsAreThoseThatDashboardsRead(t *testing.T) {
	v, g := judged(t)
	var b bytes.Buffer
	m := report.NewMetrics(&b)
	m.Add(&v, g)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.New(strings.NewReader(b.String())).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
	families := metrics(t, b.String())
	file := []string{"node=cp1", "filepath=/etc/kubernetes/pki/apiserver.crt", "filename=apiserver.crt", "subject_CN=kube-apiserver", "issuer_CN=kubernetes"}
	end := value(t, families, "x509_cert_not_after", file...)
	if at := float64(testpki.At.Unix()); end <= at || value(t, families, "x509_cert_expires_in_seconds", file...) != end-at ||
		value(t, families, "x509_cert_valid_since_seconds", file...) != at-value(t, families, "x509_cert_not_before", file...) || value(t, families, "x509_cert_expired", file...) != 0 ||
		value(t, families, "kubepki_verify_timestamp_seconds") != at {
		t.Errorf("apiserver.crt ends at %f", end)
	}
	value(t, families, "x509_cert_not_after", "node=cp1", "filepath=/etc/kubernetes/scheduler.conf", "embedded_kind=user", "embedded_key=system:kube-scheduler", "subject_CN=system:kube-scheduler")
	value(t, families, "x509_cert_not_after", "node=cp1", "filepath=/etc/kubernetes/scheduler.conf", "embedded_kind=cluster", "subject_CN=kubernetes")
	if n := value(t, families, "x509_read_errors"); n != 1 {
		t.Errorf("%g read errors, of one malformed file", n)
	}
	if value(t, families, "kubepki_healthy") != 0 || value(t, families, "kubepki_findings", "id=file-missing", "severity=error") != 1 || value(t, families, "kubepki_findings", "id=cert-expired", "severity=error") != 0 {
		t.Error("findings")
	}
	link := []string{"link=3", "caller=cp2/kube-apiserver", "callee=cp2/etcd", "side=server"}
	if value(t, families, "kubepki_link_ok", link...) != 0 || value(t, families, "kubepki_link_seen", link...) != 1 {
		t.Error("link 3 to cp2 is broken")
	}
	if value(t, families, "kubepki_link_ok", "link=3", "caller=cp1/kube-apiserver", "callee=cp1/etcd", "side=server") != 1 {
		t.Error("link 3 to cp1 works")
	}
	for _, m := range families["kubepki_link_ok"].GetMetric() {
		if strings.Contains(labelsOf(m), "link=11 ") && strings.Contains(labelsOf(m), "side=server") {
			t.Errorf("%s was not seen, and is said to be ok or not", labelsOf(m))
		}
	}
}

func TestMetricsOfSeveralClustersAreTold(t *testing.T) {
	v, g := judged(t)
	var b bytes.Buffer
	m := report.NewMetrics(&b)
	for i := range 2 {
		v.Name = fmt.Sprintf("c%d", i)
		m.Add(&v, g)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	families := metrics(t, b.String())
	value(t, families, "kubepki_healthy", "cluster=c0")
	value(t, families, "kubepki_healthy", "cluster=c1")
	if problems, err := promlint.New(strings.NewReader(b.String())).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
}

// Two certificates with the same labels are one series: that which ends first.
func TestMetricsSayNothingTwice(t *testing.T) {
	b := &graph{t: t, g: &trust.Graph{Materials: map[trust.Place]*trust.Material{}}}
	long := strings.Repeat("<\"\\\n", 5000)
	x := b.certificate(long, false, at.AddDate(1, 0, 0), nil).Certificate
	b.put("cp1", "/a.crt", present(x, x))
	var out bytes.Buffer
	m := report.NewMetrics(&out)
	m.Add(&report.Verification{At: at, Links: []report.VerifiedLink{
		{Number: 8, Caller: "a", Callee: "b", Halves: []report.VerifiedHalf{{Side: "client", State: check.OK}}},
		{Number: 8, Caller: "a", Callee: "b", Halves: []report.VerifiedHalf{{Side: "client", State: check.Broken}}},
	}}, b.g)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	families := metrics(t, out.String())
	value(t, families, "x509_cert_not_after", "filename=a.crt")
	if value(t, families, "kubepki_link_ok", "link=8") != 0 {
		t.Error("of two links with one name, one of which is broken, the good one is told")
	}
}
