package catalog_test

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
)

var update = flag.Bool("update", false, "write the tables of docs/reload.md anew")

// figures are what lab/reload_test.go has measured of one version.
type figures struct {
	Kubernetes, Etcd, Date string
	WaitedSeconds          float64
	Rows                   []figure
}

type figure struct {
	Component    string
	Settings     []string
	As           string // what else than the row was looked at
	Seconds      *float64
	AfterRestart *bool
	Link         bool // a symbolic link was switched, of which no notification comes
}

func readFigures(t *testing.T) []figures {
	t.Helper()
	files, err := filepath.Glob("testdata/reload-*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no figures: %v", err)
	}
	var all []figures
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var f figures
		if err := json.Unmarshal(data, &f); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, f)
	}
	return all
}

func (f *figures) versionOf(component string) string {
	if component == catalog.Etcd {
		return f.Etcd
	}
	return f.Kubernetes
}

func (f *figures) row(component, setting string) *figure {
	i := slices.IndexFunc(f.Rows, func(r figure) bool {
		return (r.Component == component || component == "") && slices.Contains(r.Settings, setting) && r.As == "" && !r.Link
	})
	if i < 0 {
		return nil
	}
	return &f.Rows[i]
}

// The last long run of each version saw what the matrix says.
func TestReloadsAreWhatWasMeasured(t *testing.T) {
	for _, f := range readFigures(t) {
		for _, r := range f.Rows {
			for _, setting := range r.Settings {
				want, known := catalog.Reload(r.Component, setting, f.versionOf(r.Component))
				name := fmt.Sprintf("%s %s, %s", f.versionOf(r.Component), r.Component, setting)
				switch {
				case !known:
					t.Errorf("%s was measured and is not in the matrix", name)
				case r.Link:
					if !want.Notified && r.As == "" || r.Seconds != nil {
						t.Errorf("%s: a link that was switched: %+v; the matrix says notified %t", name, r, want.Notified)
					}
				case (r.Seconds == nil) != (want.Manner == catalog.AtRestart):
					t.Errorf("%s: %+v; the matrix says %s", name, r, want.Manner)
				case r.AfterRestart == nil || !*r.AfterRestart:
					t.Errorf("%s: nobody saw that the change was one", name)
				case want.Manner == catalog.ByItself && *r.Seconds > (want.Within+20*time.Second).Seconds():
					t.Errorf("%s: %.0f s; the matrix says %s", name, *r.Seconds, want.Within)
				}
			}
		}
	}
}

// sameCode maps settings that are not measured by themselves to the one that
// runs the same code.
var sameCode = map[string]string{
	"kubeconfig": "client-certificate-data", "authentication-kubeconfig": "client-certificate-data",
	"authorization-kubeconfig": "client-certificate-data", "ca.crt": "certificate-authority",
}

// notMeasured says why a setting has no figure, neither of its own nor of the
// same code.
var notMeasured = map[string]string{
	"rotate-certificates":        "TestRealKubelets, newest version only",
	"rotate-server-certificates": "TestRealKubelets, newest version only",
}

// seen tells what was seen of a row: its own figure, or, in brackets, that of
// the same code in another place.
func (f *figures) seen(r catalog.ReloadRow) string {
	if want, known := catalog.Reload(r.Component, r.Setting, f.versionOf(r.Component)); !known || want != r.Takeup {
		return "–" // the row is of another version
	}
	if own := f.row(r.Component, r.Setting); own != nil {
		return own.String()
	}
	setting := cmp.Or(sameCode[r.Setting], r.Setting)
	switch {
	case r.Setting == "token" && r.Component == catalog.Pod:
		setting = "tokenFile"
	case r.Setting == "token":
		setting = "client-certificate-data"
	case strings.HasPrefix(setting, "cluster-signing-"):
		setting = "cluster-signing-cert-file"
	}
	for _, component := range []string{r.Component, ""} {
		if other := f.row(component, setting); other != nil {
			return fmt.Sprintf("(%s)", other)
		}
	}
	return notMeasured[r.Setting]
}

func (r *figure) String() string {
	if r.Seconds == nil {
		return "restart"
	}
	if *r.Seconds < 1 {
		return "< 1 s" // no more is meant by it than at once
	}
	return fmt.Sprintf("%.0f s", *r.Seconds)
}

// page renders the tables between the marks of docs/reload.md.
func page(all []figures) string {
	var b strings.Builder
	for _, f := range all {
		fmt.Fprintf(&b, "- Kubernetes %s with etcd %s: measured on %s. What was not taken up within %.0f s counts as needing a restart.\n",
			f.Kubernetes, f.Etcd, f.Date, f.WaitedSeconds)
	}
	component := ""
	for _, r := range catalog.Reloads() {
		if r.Component != component {
			component = r.Component
			fmt.Fprintf(&b, "\n### %s\n\n| setting | versions | taken up | live connections |", component)
			for _, f := range all {
				fmt.Fprintf(&b, " %s |", f.versionOf(component))
			}
			b.WriteString(" source |\n|---|---|---|---|" + strings.Repeat("---|", len(all)+1) + "\n")
		}
		versions := "from " + r.From
		if r.To != "" {
			versions += ", before " + r.To
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |", r.Setting, versions, taken(r.Takeup), cmp.Or(string(r.Live), "–"))
		for _, f := range all {
			fmt.Fprintf(&b, " %s |", f.seen(r))
		}
		fmt.Fprintf(&b, " %s |\n", r.Source)
	}
	return b.String()
}

func taken(t catalog.Takeup) string {
	switch t.Manner {
	case catalog.AtHandshake:
		return "at each new connection"
	case catalog.ByItself:
		if t.Notified {
			return "by itself, when notified"
		}
		return fmt.Sprintf("by itself, within %d min", int(t.Within.Minutes()))
	case catalog.WrittenByItself:
		return "the component writes it"
	}
	return "**only by a restart**"
}

const (
	pageFile  = "../../docs/reload.md"
	pageBegin = "<!-- measured: begin -->\n"
	pageEnd   = "<!-- measured: end -->\n"
)

func TestReloadPageIsWhatTheMatrixSays(t *testing.T) {
	data, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), pageBegin)
	_, after, ok2 := strings.Cut(rest, pageEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no marks", pageFile)
	}
	want := before + pageBegin + page(readFigures(t)) + pageEnd + after
	if want == string(data) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the matrix and its figures say: run go test ./internal/catalog -run ReloadPage -update", pageFile)
	}
	if err := os.WriteFile(pageFile, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Whatever has no figure is named with its reason.
func TestReloadsWithoutAFigureAreNamed(t *testing.T) {
	for _, f := range readFigures(t) {
		for _, r := range catalog.Reloads() {
			if f.seen(r) == "" {
				t.Errorf("%s: nothing was seen of %s %s", f.Kubernetes, r.Component, r.Setting)
			}
		}
	}
}
