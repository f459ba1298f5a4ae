package layout

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"
)

// A transaction's journal is a text of JSON lines:
//
//	{"version":3}
//	{"folder":"etc/kubernetes/pki"}             before the folder is made
//	{"file":…,"temp":…,"mode":…,"sha256":…}     before the temporary is made
//	{"state":"commit","sum":…}                  when all temporaries are durable
//
// A file that is replaced has a "backup" too, a temporary with the old content,
// and the hash of that ("replaces"). Of a symbolic link ("link") the hashes are of
// what it leads to. A file that is removed ("gone") has no temporary: it gets the
// backup's name. Version 1 knew no file that is replaced, version 2 no link and none
// that is removed.
//
// Without the last line the next transaction removes what the lines name. With
// it, it finishes the renames. A transaction that fails after it overwrites
// "commit" with "undone", which has as many bytes and so needs no room on a
// full disk, before it takes back what it renamed.
const (
	journalName    = ".kubepki-journal"
	journalVersion = 3
	maxJournal     = 16 << 20
	stateCommit    = "commit"
	stateUndone    = "undone"
	tempPrefix     = ".kubepki-"
	tempSuffix     = ".tmp"
)

// journalFolders are the folders that may hold the journal, tried in order: a
// root that is mounted read-only often has a writable /etc.
var journalFolders = []string{".", "etc/kubernetes", "etc"}

// record is one line of a journal. Names are relative to the root. It holds
// nothing secret: a hash of a file that has a private key in it tells nothing
// about the key.
type record struct {
	Version int    `json:"version,omitempty"`
	Folder  string `json:"folder,omitempty"`
	File    string `json:"file,omitempty"`
	Temp    string `json:"temp,omitempty"`
	Mode    uint32 `json:"mode,omitempty"`
	Private bool   `json:"private,omitempty"`
	SHA256  string `json:"sha256,omitempty"`
	// Backup and Replaces are of a file that is replaced.
	Backup   string `json:"backup,omitempty"`
	Replaces string `json:"replaces,omitempty"`
	Link     bool   `json:"link,omitempty"` // a symbolic link
	Gone     bool   `json:"gone,omitempty"` // a file that is removed
	State    string `json:"state,omitempty"`
	Sum      string `json:"sum,omitempty"` // of all bytes before this line
}

// journal is the open journal of a transaction.
type journal struct {
	ops     fileOps
	name    string
	text    []byte // what the file holds
	stateAt int64  // offset of the line with the state
}

// createJournal makes the journal in the first folder that can be written.
func createJournal(ops fileOps) (*journal, error) {
	var first error
	for _, folder := range journalFolders {
		j := &journal{ops: ops, name: path.Join(folder, journalName)}
		if at, err := resolve(ops, "/"+folder); err != nil || at.links > 0 || len(at.absent) > 0 {
			continue
		}
		j.text = encodeRecord(record{Version: journalVersion})
		err := ops.Create(j.name, j.text)
		if err == nil {
			return j, nil
		}
		err = fmt.Errorf("%s: %w", j.name, Cause(err))
		if !errors.Is(err, fs.ErrExist) {
			err = errors.Join(err, removeIfThere(ops, j.name))
		}
		if first == nil {
			first = err
		}
		if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
			break
		}
	}
	return nil, first
}

func (j *journal) add(r record) error {
	line := encodeRecord(r)
	if err := j.ops.Append(j.name, line); err != nil {
		return Cause(err)
	}
	j.text = append(j.text, line...)
	return nil
}

// commit makes the journal durable as one whose renames must be finished.
func (j *journal) commit() error {
	at := int64(len(j.text))
	if err := j.add(stateRecord(stateCommit, j.text)); err != nil {
		return err // a torn line commits nothing
	}
	j.stateAt = at
	if err := j.ops.Sync(j.name); err != nil {
		return Cause(err)
	}
	return Cause(j.ops.Sync(path.Dir(j.name)))
}

// undone marks a committed journal as one whose renames must be taken back.
func (j *journal) undone() error {
	if j.stateAt == 0 {
		return nil
	}
	line := encodeRecord(stateRecord(stateUndone, j.text[:j.stateAt]))
	if err := j.ops.WriteAt(j.name, line, j.stateAt); err != nil {
		return Cause(err)
	}
	return Cause(j.ops.Sync(j.name))
}

func stateRecord(state string, before []byte) record {
	return record{State: state, Sum: hashOf(before)}
}

// encodeRecord cannot fail: a record holds nothing but text and numbers.
func encodeRecord(r record) []byte {
	line, _ := json.Marshal(r)
	return append(line, '\n')
}

func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// parseJournal reads the lines of a journal up to the first that is torn or
// strange, and the state, which is empty, [stateCommit] or [stateUndone].
func parseJournal(text []byte) (records []record, state string) {
	for offset := 0; offset < len(text); {
		end := bytes.IndexByte(text[offset:], '\n')
		if end < 0 {
			break
		}
		var r record
		if err := json.Unmarshal(text[offset:offset+end], &r); err != nil {
			break
		}
		switch {
		case r.State == stateCommit || r.State == stateUndone:
			if r.Sum == hashOf(text[:offset]) {
				return records, r.State
			}
			return records, ""
		case r.File != "" && validEntry(r), r.Folder != "" && validName(r.Folder):
			records = append(records, r)
		case r.Version < 1 || r.Version > journalVersion:
			return records, ""
		}
		offset += end + 1
	}
	return records, ""
}

// validEntry tells whether a record is one that this package writes: nothing
// else may make it remove or rename files.
func validEntry(r record) bool {
	beside := func(name string) bool {
		return validName(name) && path.Dir(r.File) == path.Dir(name) && isTemporary(path.Base(name))
	}
	replaced := beside(r.Backup) && r.Backup != r.Temp && r.Replaces != ""
	switch {
	case !validName(r.File):
		return false
	case r.Gone:
		return replaced && r.Temp == ""
	}
	return beside(r.Temp) && (replaced || r.Backup == "" && r.Replaces == "")
}

func validName(name string) bool { return fs.ValidPath(name) && name != "." }

func isTemporary(base string) bool {
	return strings.HasPrefix(base, tempPrefix) && strings.HasSuffix(base, tempSuffix)
}

func removeIfThere(ops fileOps, name string) error {
	err := ops.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing %s: %w", name, Cause(err))
	}
	return nil
}
