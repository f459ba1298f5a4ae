package graphviz_test

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/graphviz"
)

func TestLayoutIsGraphvizsOwn(t *testing.T) {
	got, err := graphviz.Layout(t.Context(), `digraph { a [shape=box, width=1, height=0.5]; a -> b -> c; a -> c }`, "json")
	if err != nil {
		t.Fatal(err)
	}
	var parsed struct {
		BB      string `json:"bb"`
		Objects []struct{ Name, Pos string }
		Edges   []struct{ Pos string }
	}
	if err := json.Unmarshal([]byte(got), &parsed); err != nil {
		t.Fatal(err)
	}
	if len(parsed.Objects) != 3 || len(parsed.Edges) != 3 || parsed.Objects[0].Name != "a" || !strings.HasPrefix(parsed.Edges[0].Pos, "e,") {
		t.Errorf("laid out: %+v", parsed)
	}
	again, err := graphviz.Layout(t.Context(), `digraph { a [shape=box, width=1, height=0.5]; a -> b -> c; a -> c }`, "json")
	if err != nil || again != got {
		t.Errorf("a second time it is another: %v", err)
	}
}

func TestWhatGraphvizRefusesIsAnError(t *testing.T) {
	if _, err := graphviz.Layout(t.Context(), `digraph { a -> `, "json"); err == nil || !strings.Contains(err.Error(), "syntax error") {
		t.Errorf("half a graph: %v", err)
	}
	if _, err := graphviz.Layout(t.Context(), `digraph { a }`, "no such format"); err == nil || !strings.Contains(err.Error(), "does not render") {
		t.Errorf("a format that it does not know: %v", err)
	}
}

func TestLayoutEndsWithItsContext(t *testing.T) {
	var dot strings.Builder
	dot.WriteString("digraph {")
	for i := range 60000 {
		dot.WriteString(" n" + strings.Repeat("x", i%200) + " -> n" + strings.Repeat("y", i%173) + ";")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := graphviz.Layout(ctx, dot.String()+"}", "json"); err == nil {
		t.Error("it goes on when nobody waits any more")
	}
}

// What is embedded is what NOTICE.md says, and no other program.
func TestTheProgramIsThatOfTheNotice(t *testing.T) {
	f, err := os.Open("graphviz.wasm.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, unzipped); err != nil {
		t.Fatal(err)
	}
	notice, err := os.ReadFile("NOTICE.md")
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); !strings.Contains(string(notice), "`"+got+"`") {
		t.Errorf("the program has the sum %s, of which NOTICE.md does not know", got)
	}
}
