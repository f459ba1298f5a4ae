package layout

import (
	"bytes"
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAJournalThatNamesStrangeFilesRemovesNothing(t *testing.T) {
	root := t.TempDir()
	write(t, root, "etc/passwd", "root\n", 0o600)
	write(t, root, "etc/.kubepki-x.tmp", "x", 0o600)
	lines := `{"version":1}
{"file":"etc/passwd","temp":"etc/passwd","mode":384,"sha256":"` + hashOf([]byte("root\n")) + `"}
{"file":"etc/shadow","temp":"../outside/.kubepki-x.tmp","mode":384}
`
	text := append([]byte(lines), encodeRecord(stateRecord(stateUndone, []byte(lines)))...)
	write(t, root, journalName, string(text), 0o600)
	tx := beginAt(t, root)
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	after := snapshot(t, root)
	if _, ok := after["etc/passwd"]; !ok {
		t.Error("etc/passwd is gone")
	}
	if _, ok := after[journalName]; ok {
		t.Error("the journal stands")
	}
}

func FuzzJournal(f *testing.F) {
	head := encodeRecord(record{Version: journalVersion})
	entry := append(head, encodeRecord(record{File: "a/b", Temp: "a/.kubepki-b-1.tmp", Mode: 0o600, SHA256: "00"})...)
	f.Add(append(entry, encodeRecord(stateRecord(stateCommit, entry))...))
	f.Add([]byte("{\"version\":1}\n{\"folder\":\"../x\"}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		records, state := parseJournal(text)
		again := encodeRecord(record{Version: journalVersion})
		for _, r := range records {
			if r.File != "" && (!validEntry(r) || !fs.ValidPath(r.File)) || r.File == "" && !fs.ValidPath(r.Folder) {
				t.Fatalf("accepted %+v", r)
			}
			again = append(again, encodeRecord(r)...)
		}
		if state != "" {
			again = append(again, encodeRecord(stateRecord(state, again))...)
		}
		records2, state2 := parseJournal(again)
		if diff := cmp.Diff(records, records2); diff != "" || state != state2 {
			t.Fatalf("read back differently: %s %q %q", diff, state, state2)
		}
	})
}

func TestACommitCountsOnlyWithTheSumOfAllBeforeIt(t *testing.T) {
	before := append(encodeRecord(record{Version: journalVersion}),
		encodeRecord(record{File: "ca.crt", Temp: ".kubepki-ca.crt-0.tmp", Mode: 0o644, SHA256: hashOf([]byte("x"))})...)
	commit := encodeRecord(stateRecord(stateCommit, before))
	for name, c := range map[string]struct {
		text      []byte
		committed bool
	}{
		"whole":                      {append(bytes.Clone(before), commit...), true},
		"another file in the record": {append(bytes.Replace(before, []byte("ca.crt"), []byte("cb.crt"), 1), commit...), false},
		"torn":                       {append(bytes.Clone(before), commit[:len(commit)-1]...), false},
	} {
		root := t.TempDir()
		write(t, root, ".kubepki-ca.crt-0.tmp", "x", 0o600)
		write(t, root, journalName, string(c.text), 0o600)
		tx := beginAt(t, root)
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		got := snapshot(t, root)
		if _, ok := got["ca.crt"]; ok != c.committed || len(got) != 1+tx.Recovered().Finished {
			t.Errorf("%s: %v", name, got)
		}
	}
}
