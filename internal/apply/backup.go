package apply

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
)

// BackupsDir is the folder of a node, mode 0700, that keeps what was replaced: one
// folder for each renewal, with the whole path of each file below it and a manifest.
const BackupsDir = catalog.KubernetesDir + "/kubepki-backup"

const (
	manifestFile = "manifest.json"
	manifestKind = "RenewalBackup"
	apiVersion   = "kubepki.dev/v1alpha1"
	backupLayout = "20060102T150405.000Z"
)

// Manifest says what a renewal, or an undo of one, did to a node. Hashes are SHA-256
// of whole files.
type Manifest struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Time       time.Time      `json:"time"`
	Undoes     string         `json:"undoes,omitempty"` // the name of the backup that was brought back
	By         string         `json:"by,omitempty"`     // [ByAgent]; empty: a person
	Items      []string       `json:"items"`            // ids of what was made anew
	Files      []ManifestFile `json:"files"`
}

// ManifestFile is one file of a [Manifest].
type ManifestFile struct {
	Path    string `json:"path"`           // absolute, as on the node
	Was     string `json:"was,omitempty"`  // hash of what is kept; empty: it was not there
	Is      string `json:"is,omitempty"`   // hash of what was written; empty: it was removed
	Mode    string `json:"mode,omitempty"` // octal, of what is kept
	Private bool   `json:"private,omitempty"`
	// Link and WasLink are of a symbolic link that was led elsewhere.
	Link    string `json:"link,omitempty"`
	WasLink string `json:"wasLink,omitempty"`
}

// Backup is one folder of kept files.
type Backup struct {
	Node, Name string
	Manifest   *Manifest // nil where it has none: of an older kubepki, or torn
	Reason     string    // why it has none
}

// IsBackupName tells whether a text is a time as the folders of backups are called.
func IsBackupName(s string) bool {
	_, err := time.Parse(backupLayout, s)
	return err == nil
}

// backupFolder is where what is replaced at a time is kept.
func backupFolder(at time.Time) string {
	return path.Join(BackupsDir, at.UTC().Format(backupLayout))
}

// manifest says what the files of one node become.
func (r *Renewal) manifest(node string, files []*File) ([]byte, error) {
	m := Manifest{APIVersion: apiVersion, Kind: manifestKind, Time: r.At.UTC(), Undoes: r.Undoes, By: r.By, Items: []string{}, Files: []ManifestFile{}}
	for _, i := range r.Items {
		if i.Node == node {
			m.Items = append(m.Items, i.ID())
		}
	}
	for _, f := range files {
		e := ManifestFile{Path: f.Place.Path, Was: hashOf(f.Old), Is: hashOf(f.Data), Private: f.Private, Link: f.Link, WasLink: f.OldLink}
		if f.Old != nil {
			e.Mode = fmt.Sprintf("%04o", f.Mode.Perm())
		}
		if f.Link == "" && !f.current {
			e.WasLink = "" // what the link leads to was replaced
		}
		m.Files = append(m.Files, e)
	}
	data, err := json.MarshalIndent(m, "", "  ")
	return append(data, '\n'), err
}

// hashOf is empty for a file that is not there.
func hashOf(data []byte) string {
	if data == nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Backups lists what is kept on the nodes, the oldest first. A node without any has
// none of the list.
func Backups(n *Nodes) ([]Backup, error) {
	var all []Backup
	for node, dir := range n.Dirs {
		names, err := backupNames(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			b := Backup{Node: node, Name: name}
			if b.Manifest, err = readManifest(dir, name); err != nil {
				b.Reason = err.Error()
			}
			all = append(all, b)
		}
	}
	slices.SortFunc(all, func(a, b Backup) int {
		if a.Name != b.Name {
			return strings.Compare(a.Name, b.Name)
		}
		return strings.Compare(a.Node, b.Node)
	})
	return all, nil
}

// backupNames are the folders of a node's backups. It refuses a folder into which others
// may write: what they put there would be brought back.
func backupNames(dir string) ([]string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, layout.Cause(err))
	}
	defer root.Close()
	name := strings.TrimPrefix(BackupsDir, "/")
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, name), layout.Cause(err))
	}
	defer f.Close()
	if err := trusted(f); err != nil {
		return nil, advise(fmt.Errorf("%s: %w", filepath.Join(dir, name), err), "see what is in it, and chmod 700 it")
	}
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, name), layout.Cause(err))
	}
	var names []string
	for _, e := range entries {
		if IsBackupName(e.Name()) && e.IsDir() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// trustedFolder tells why what the folder of a name holds cannot be trusted. One that
// may not be looked at is for those to refuse who read it.
func trustedFolder(root *os.Root, name string) error {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return layout.Cause(err)
	}
	defer f.Close()
	return trusted(f)
}

// trusted tells why what a folder holds cannot be trusted.
func trusted(f *os.File) error {
	info, err := f.Stat()
	switch {
	case err != nil:
		return layout.Cause(err)
	case !info.IsDir():
		return errors.New("is no folder")
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("others may write into it (mode %04o)", info.Mode().Perm())
	}
	return nil
}

// readManifest reads and checks the manifest of a backup.
func readManifest(dir, name string) (*Manifest, error) {
	content, err := layout.ReadFile(dir, path.Join(BackupsDir, name, manifestFile))
	if err != nil {
		return nil, err
	}
	var m Manifest
	if err := json.Unmarshal(content.Data, &m); err != nil {
		return nil, fmt.Errorf("%s of %s does not parse: %w", manifestFile, name, err)
	}
	if m.APIVersion != apiVersion || m.Kind != manifestKind {
		return nil, fmt.Errorf("%s of %s is a %s of %s, which is not known here", manifestFile, name, m.Kind, m.APIVersion)
	}
	for _, f := range m.Files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path {
			return nil, fmt.Errorf("%s of %s names %q, which is no absolute path", manifestFile, name, f.Path)
		}
	}
	return &m, nil
}

// closeBackups takes from others what they may do with a folder of backups that is
// there already. It tells whether it had to.
func closeBackups(dir string) (closed bool, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false, fmt.Errorf("%s: %w", dir, layout.Cause(err))
	}
	defer root.Close()
	name := strings.TrimPrefix(BackupsDir, "/")
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("%s: %w", filepath.Join(dir, name), layout.Cause(err))
	case !info.IsDir():
		return false, advise(fmt.Errorf("%s: is no folder: nothing would be kept", filepath.Join(dir, name)), "move it away")
	case info.Mode().Perm()&0o077 == 0:
		return false, nil
	}
	if err := root.Chmod(name, 0o700); err != nil {
		return false, fmt.Errorf("%s: %w", filepath.Join(dir, name), layout.Cause(err))
	}
	return true, nil
}
