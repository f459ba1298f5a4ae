package agent_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/agent"
	"github.com/kubepki/kubepki/internal/testpki"
)

const monitoring = "../../deploy/monitoring"

// everything has a series of each metric that there is.
func everything(t *testing.T) map[string]bool {
	t.Helper()
	b, _, _ := board(t, testpki.HA, nil)
	b.Schedule([]agent.Due{{ID: "cp1/apiserver", At: now.Add(time.Hour)}})
	b.Decided(agent.Decision{Action: agent.Failed, Reason: "not-signed"})
	b.Include(&holder{sources: []agent.Source{{Kind: "kube-secret", Name: "secrets", Errors: map[string]uint64{"http_403": 1}}}})
	_, families := scrape(t, b, agent.MetricsOptions{})
	names := map[string]bool{}
	for name := range families {
		names[name] = true
	}
	return names
}

// metricName is how metrics are named that an agent has, in an expression.
var metricName = regexp.MustCompile(`\b(?:x509|kubepki|process|go)_[a-z0-9_]+`)

// missing are the metrics of an expression that no agent has.
func missing(expr string, have map[string]bool) []string {
	return slices.DeleteFunc(metricName.FindAllString(expr, -1), func(name string) bool { return have[name] })
}

type rules struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr         string
			Labels, Annotations map[string]string
		}
	}
}

func readRules(t *testing.T) rules {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(monitoring, "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var r rules
	if err := yaml.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// promtool runs the tool of Prometheus.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not here to judge rules: make deps installs it")
	}
	if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	promtool(t, "check", "rules", filepath.Join(monitoring, "alerts.yaml"))
	promtool(t, "test", "rules", filepath.Join(monitoring, "alerts_test.yaml"))
}

func TestEachAlertIsOfMetricsThatThereAreAndIsTriedBothWays(t *testing.T) {
	have := everything(t)
	tests, err := os.ReadFile(filepath.Join(monitoring, "alerts_test.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var tried struct {
		Tests []struct {
			PromQL []struct {
				Expr    string `json:"expr"`
				Samples []any  `json:"exp_samples"`
			} `json:"promql_expr_test"`
		}
	}
	if err := yaml.Unmarshal(tests, &tried); err != nil {
		t.Fatal(err)
	}
	fires, rests := map[string]bool{}, map[string]bool{}
	name := regexp.MustCompile(`alertname="(\w+)"`)
	for _, one := range tried.Tests {
		for _, e := range one.PromQL {
			which := fires
			if len(e.Samples) == 0 {
				which = rests
			}
			which[name.FindStringSubmatch(e.Expr)[1]] = true
		}
	}
	count := 0
	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			count++
			if m := missing(r.Expr, have); len(m) > 0 {
				t.Errorf("%s: an agent has no %s", r.Alert, m)
			}
			if !fires[r.Alert] || !rests[r.Alert] {
				t.Errorf("%s: alerts_test.yaml tries it as one that fires: %t, that does not: %t", r.Alert, fires[r.Alert], rests[r.Alert])
			}
			if !strings.Contains("critical warning", r.Labels["severity"]) || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s: severity, summary or description is missing", r.Alert)
			}
		}
	}
	if count < 10 {
		t.Fatalf("%d alerts", count)
	}
}

// TestAlertsOfTheExporterHaveTheirMetrics: the expressions of the chart of
// x509-certificate-exporter (chart/templates/prometheusrule.yaml of v4, and of v3 the
// first one), but for those on key stores and revocation lists, of which an agent reads
// none, and on certificates that share their labels, of which it drops none.
func TestAlertsOfTheExporterHaveTheirMetrics(t *testing.T) {
	have := everything(t)
	for _, expr := range []string{
		"delta(x509_read_errors[15m]) > 0", "increase(x509_source_errors_total[15m]) > 0", "x509_source_up == 0", "increase(x509_kube_transport_errors_total[15m]) > 5", "x509_cert_error > 0",
		"(x509_cert_not_after - time()) < (28 * 86400)", "(x509_cert_not_after - time()) < (14 * 86400)", "(x509_cert_not_before - time()) > 0",
		"x509_cert_expired", "x509_cert_expires_in_seconds", "x509_cert_valid_since_seconds", "x509_exporter_build_info", "x509_source_bundles", "x509_kube_watch_resyncs_total",
	} {
		if m := missing(expr, have); len(m) > 0 || !metricName.MatchString(expr) {
			t.Errorf("%s: an agent has no %s", expr, m)
		}
	}
}

type dashboard struct {
	UID           string
	Title         string
	SchemaVersion int
	Panels        []panel
	Templating    struct {
		List []struct{ Name, Type, Definition string }
	}
	Annotations struct{ List []struct{ Expr string } }
}

type panel struct {
	ID          int
	Type, Title string
	GridPos     struct{ X, Y, W, H int }
	Datasource  map[string]string
	Targets     []struct {
		RefID, Expr string
		Datasource  map[string]string
	}
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(monitoring, "dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// variables of Grafana, as it would put them in.
var variables = strings.NewReplacer("$instance", ".*", "$__rate_interval", "5m", "$days", "30")

func TestTheDashboardAsksForWhatThereIs(t *testing.T) {
	have := everything(t)
	d := readDashboard(t)
	record := map[string]any{"name": "dashboard"}
	var all []map[string]string
	ask := func(where, expr string) {
		if m := missing(expr, have); len(m) > 0 {
			t.Errorf("%s: an agent has no %s", where, m)
		}
		plain := variables.Replace(expr)
		if strings.Contains(plain, "$") {
			t.Errorf("%s: a variable that the dashboard has not: %s", where, plain)
		}
		all = append(all, map[string]string{"record": fmt.Sprintf("panel:expression:%d", len(all)), "expr": plain})
	}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			ask(p.Title, target.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		ask("annotation", a.Expr)
	}
	for _, v := range d.Templating.List {
		if m := missing(v.Definition, have); len(m) > 0 {
			t.Errorf("variable %s: an agent has no %s", v.Name, m)
		}
	}
	if len(all) < 15 {
		t.Fatalf("%d expressions", len(all))
	}
	record["rules"] = all
	data, err := yaml.Marshal(map[string]any{"groups": []any{record}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", "--lint=none", file) // each parses
}

// TestTheDashboardIsOneThatGrafanaLoads: what its schema wants of each panel, and
// nothing over something else.
func TestTheDashboardIsOneThatGrafanaLoads(t *testing.T) {
	d := readDashboard(t)
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 36 {
		t.Errorf("uid %q, title %q, schema %d", d.UID, d.Title, d.SchemaVersion)
	}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 || p.Title == "" || !slices.Contains([]string{"row", "stat", "table", "timeseries"}, p.Type) {
			t.Errorf("panel %d %q of type %q", p.ID, p.Title, p.Type)
		}
		ids[p.ID] = true
		g := p.GridPos
		if g.X < 0 || g.W < 1 || g.H < 1 || g.X+g.W > 24 {
			t.Errorf("%s: %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" {
					t.Fatalf("%s stands over %s", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] || target.RefID == "" || target.Expr == "" || target.Datasource["uid"] != "${datasource}" {
				t.Errorf("%s: target %q", p.Title, target.RefID)
			}
			refs[target.RefID] = true
		}
		if (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("%s: %d targets", p.Title, len(p.Targets))
		}
	}
}

// TestTheDocumentNamesEachMetric: what is exposed stands in docs/monitoring.md, and
// nothing else of ours does.
func TestTheDocumentNamesEachMetric(t *testing.T) {
	data, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, name := range regexp.MustCompile("`((?:x509|kubepki)_[a-z0-9_]+)").FindAllStringSubmatch(string(data), -1) {
		named[name[1]] = true
	}
	have := everything(t)
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if ours := strings.HasPrefix(name, "kubepki_") || strings.HasPrefix(name, "x509_"); ours && !named[name] {
			t.Errorf("docs/monitoring.md does not name %s", name)
		}
	}
	for name := range named {
		if !have[name] && strings.HasPrefix(name, "kubepki_") {
			t.Errorf("docs/monitoring.md names %s, which is not there", name)
		}
	}
}
