package node_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/lab/internal/node"
)

// That a program does enter its node's root is seen by every test of package
// lab: its components read nothing else.
func TestEnterWithoutARootDoesNothing(t *testing.T) {
	t.Setenv(node.RootEnv, "")
	before, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Enter(); err != nil {
		t.Error(err)
	}
	if after, err := os.Getwd(); err != nil || after != before {
		t.Errorf("in %s, %v; want %s", after, err, before)
	}
}

func TestEnterNamesARootThatIsNotThere(t *testing.T) {
	root := filepath.Join(t.TempDir(), "gone")
	t.Setenv(node.RootEnv, root)
	if err := node.Enter(); err == nil || !strings.Contains(err.Error(), root) {
		t.Errorf("%v; want an error that names %s", err, root)
	}
}
