package agent

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/check"
)

func TestAnAgentKeepsItsNewestBackupsAndAllOfPeople(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, dueAt)
		o := n.options()
		nodes, result, err := o.Look(t.Context(), n.clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		items, err := plan(nodes, result.Findings, []string{"cp1:/etc/kubernetes/pki/front-proxy-client.crt"}, n.clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		byHand, err := apply.Make(t.Context(), nodes, items, result, n.clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := byHand.Write(nodes); err != nil {
			t.Fatal(err)
		}
		o.Renewal.Keep, o.Interval = 2, 10*24*time.Hour
		o.Renewal.Plan = withCertifier(&unwilling{authority: n.Authority("cp1", "front-proxy-ca")})
		runFor(t, unwatched(o), 5*365*24*time.Hour)
		kept := backupsOf(t, n)
		if len(kept) != 3 || kept[0].Name != filepath.Base(byHand.Backup) || kept[0].Manifest.By != "" || kept[1].Manifest.By != apply.ByAgent || kept[2].Manifest.By != apply.ByAgent {
			t.Fatalf("kept: %+v", kept)
		}
		if made := n.decisions(Renewed); len(made) < 4 {
			t.Errorf("made anew: %v", made)
		}
		nodes, err = apply.ReadNode("cp1", n.root())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := apply.Undo(nodes, apply.Latest, false, check.Run(nodes.Graph, check.Options{At: n.clock.Now()}), n.clock.Now()); err != nil {
			t.Errorf("the newest is not to be brought back: %v", err)
		}
	})
}

func backupsOf(t *testing.T, n *node) []apply.Backup {
	t.Helper()
	nodes, err := apply.ReadNode("cp1", n.root())
	if err != nil {
		t.Fatal(err)
	}
	kept, err := apply.Backups(nodes)
	if err != nil {
		t.Fatal(err)
	}
	return kept
}
