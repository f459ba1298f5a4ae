package explain_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/explain"
)

var update = flag.Bool("update", false, "write docs/findings.md anew")

const findingsFile = "../../docs/findings.md"

// docs/findings.md is what the pages say: make findings writes it.
func TestFindingsPageIsOfThePages(t *testing.T) {
	want := findingsPage(t)
	if *update {
		if err := os.WriteFile(findingsFile, []byte(want), 0o644); err != nil { //nolint:gosec // documentation
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(findingsFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what internal/explain/findings says: run make findings", findingsFile)
	}
}

func findingsPage(t *testing.T) string {
	t.Helper()
	pages, err := explain.Pages()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("# Findings\n\nWhat `kubepki verify` finds. `kubepki explain ID` says the same in a terminal, `kubepki explain --error LINE` leads here from an error of a log\n" +
		"([explain.md](explain.md)). This page is written by `make findings` from `internal/explain/findings/`; the commands are run by a test on files with that fault.\n\n| id | severity | means |\n|---|---|---|\n")
	for _, p := range pages {
		fmt.Fprintf(&b, "| [%s](#%[1]s) | %s | %s |\n", p.ID, p.Severity, p.Summary)
	}
	for _, p := range pages {
		text, err := explain.Markdown(p.ID)
		if err != nil {
			t.Fatal(err)
		}
		text = strings.ReplaceAll(text, "\n## ", "\n### ")
		b.WriteString("\n#" + strings.TrimRight(text, "\n") + "\n")
	}
	return b.String()
}
