package agent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/kubepki/kubepki/internal/layout"
)

func TestALockOfAnAgentLeavesTransactionsAlone(t *testing.T) {
	for _, folder := range []string{"etc/kubernetes", "var/lib"} {
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Join(root, folder), 0o755); err != nil {
			t.Fatal(err)
		}
		var first, second locks
		if err := first.hold(root); err != nil {
			t.Fatalf("%s: %v", folder, err)
		}
		var locked *LockedError
		if err := second.hold(root); !errors.As(err, &locked) {
			t.Errorf("%s: another agent: %v", folder, err)
		}
		tx, err := layout.Begin(root)
		if err != nil {
			t.Fatalf("%s: a transaction beside the agent: %v", folder, err)
		}
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
		first.release()
		if err := second.hold(root); err != nil {
			t.Errorf("%s: after the first: %v", folder, err)
		}
		second.release()
	}
}
