package csr_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/csr"
)

var update = flag.Bool("update", false, "write the table of docs/csr-policy.md anew")

func TestTheTableOfReasonsIsThatOfTheCode(t *testing.T) {
	const file, head = "../../docs/csr-policy.md", "| id | verdict | when |\n|---|---|---|\n"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, table, found := strings.Cut(string(page), head)
	if !found {
		t.Fatalf("%s has no table of reasons", file)
	}
	var want strings.Builder
	for _, m := range csr.Meanings() {
		var verdicts []string
		for _, v := range m.Verdicts {
			verdicts = append(verdicts, string(v))
		}
		fmt.Fprintf(&want, "| `%s` | %s | %s |\n", m.ID, strings.Join(verdicts, ", "), m.Text)
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+head+want.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want.String(), table); diff != "" {
		t.Errorf("run go test ./internal/csr -run TableOfReasons -update\n%s", diff)
	}
}
