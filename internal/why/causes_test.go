package why_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestEachCauseIsListedAndTried: in docs/cert.md, and in a test that wants it.
func TestEachCauseIsListedAndTried(t *testing.T) {
	read := func(files ...string) string {
		var all strings.Builder
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(data)
		}
		return all.String()
	}
	doc := read("../../docs/cert.md")
	tests := read("why_test.go", "../../cmd/kubepki/testdata/script/cert_why.txtar", "../../cmd/kubepki/testdata/script/cert_why_around.txtar")
	causes := regexp.MustCompile(`(Cause\w+) += "([a-z-]+)"`).FindAllStringSubmatch(read("answer.go", "ingress.go", "pod.go", "alone.go"), -1)
	if len(causes) < 35 {
		t.Fatalf("only %d causes were found", len(causes))
	}
	for _, c := range causes {
		if !strings.Contains(doc, "`"+c[2]+"`") {
			t.Errorf("docs/cert.md does not list %s", c[2])
		}
		if !strings.Contains(tests, "why."+c[1]+",") && !strings.Contains(tests, c[2]) {
			t.Errorf("no test wants %s", c[1])
		}
	}
}
