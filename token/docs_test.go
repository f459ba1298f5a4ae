package token_test

import (
	"os"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/token"
)

func TestEveryReasonIsDocumented(t *testing.T) {
	docs, err := os.ReadFile("../docs/sa-verify.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range token.ReasonIDs() {
		if !strings.Contains(string(docs), "`"+string(id)+"`") {
			t.Errorf("docs/sa-verify.md does not say when a token is refused for %s", id)
		}
	}
}
