package explain_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/explain"
	"github.com/kubepki/kubepki/internal/explain/saidtext"
)

// wrapping are texts that say nothing themselves: all they have is what they wrap.
var wrapping = []string{"wordword", "x509: word", "word: word"}

// The catalogue knows each error text of the Go that this is built with.
func TestEachTextOfTheStandardLibraryIsKnown(t *testing.T) {
	said := 0
	for _, pkg := range []string{"x509", "tls"} {
		texts, err := saidtext.Texts(filepath.Join(runtime.GOROOT(), "src/crypto", pkg, "*.go")) //nolint:staticcheck // the sources of this very Go
		if err != nil {
			t.Fatal(err)
		}
		said += len(texts)
		for _, text := range texts {
			// The middle of a text that is put together; the next test makes them whole.
			if slices.Contains(wrapping, text) || strings.HasPrefix(text, " ") || strings.HasPrefix(text, ", ") {
				continue
			}
			if pkg == "tls" && (strings.HasPrefix(text, "first record") || strings.HasPrefix(text, "unsupported SSLv2")) {
				text = "tls: " + text // of a RecordHeaderError
			}
			// A text that goes on: some message goes on from it.
			if strings.HasSuffix(text, " ") {
				if !slices.ContainsFunc(explain.Messages(), func(m string) bool { return strings.HasPrefix(m, strings.TrimSpace(text)) }) {
					t.Errorf("crypto/%s: no message begins with %q", pkg, text)
				}
				continue
			}
			if explain.Line(text, "") == nil {
				t.Errorf("crypto/%s: %q is not in internal/explain/messages", pkg, text)
			}
		}
	}
	if said < 400 {
		t.Errorf("only %d texts were found", said)
	}
}

func TestEachAlertIsKnownFromBothSides(t *testing.T) {
	file := filepath.Join(runtime.GOROOT(), "src/crypto/tls/alert.go") //nolint:staticcheck // the sources of this very Go
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	alerts := 0
	ast.Inspect(parsed, func(n ast.Node) bool {
		pair, ok := n.(*ast.KeyValueExpr)
		if !ok {
			return true
		}
		text, err := strconv.Unquote(pair.Value.(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		alerts++
		for _, line := range []string{"remote error: tls: " + text, "local error: tls: " + text} {
			e := explain.Line(line, "kube-apiserver")
			if e == nil || !strings.HasSuffix(line, e.Message) || strings.HasPrefix(line, "remote") != strings.HasPrefix(e.Message, "remote") {
				t.Errorf("%q: %+v", line, e)
			}
		}
		return true
	})
	if alerts < 30 {
		t.Errorf("only %d alerts were found", alerts)
	}
}

// A text that no rule of the catalogue is about stays unknown, so that the test
// above can fail.
func TestWhatIsNotInTheCatalogueIsNotExplained(t *testing.T) {
	for _, text := range []string{"", "x509: something new of Go 1.99", "tls: a text that nobody wrote", "I1130 16:51:53.1 1 server.go:1] \"Starting controllers\"", "GET /healthz 200", "\x00\xff"} {
		if e := explain.Line(text, ""); e != nil {
			t.Errorf("%q is explained by %q", text, e.Message)
		}
	}
}

// Each class leads to findings that have pages.
func TestClassesNameFindingsThatExist(t *testing.T) {
	for class, ids := range explain.Classes() {
		for _, id := range ids {
			if _, err := explain.Find(id); err != nil {
				t.Errorf("%s: %v", class, err)
			}
		}
	}
}
