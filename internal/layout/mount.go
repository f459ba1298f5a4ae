package layout

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// The files of a service account's volume, by which clients in a pod find
// their credential (k8s.io/client-go/rest/config.go, InClusterConfig).
const (
	MountToken     = "token"
	MountCA        = "ca.crt"
	MountNamespace = "namespace"
)

// Mount is what a service account's volume holds.
type Mount struct {
	Token     string
	CA        []byte // PEM: whom to trust for the API server
	Namespace string
}

// The names that the kubelet's AtomicWriter gives to what it makes
// (k8s.io/kubernetes/pkg/volume/util/atomic_writer.go).
const (
	mountData    = "..data"
	mountNext    = "..data_tmp"
	mountFolders = "..2006_01_02_15_04_05."
)

var isMountFolder = regexp.MustCompile(`^\.\.\d{4}(_\d\d){5}\.\d+$`).MatchString

// mountFiles is the order in which files are written.
var mountFiles = []string{MountToken, MountCA, MountNamespace}

// WriteMount makes a folder what /var/run/secrets/kubernetes.io/serviceaccount
// is in a pod, or replaces what an earlier run or a kubelet wrote there: the
// files stand in a folder of their own, ..data is a link to that, and token,
// ca.crt and namespace are links through ..data. One rename of ..data replaces
// all of them, so that whoever goes by ..data never reads files of two runs. The
// token has mode 0600, the others 0644.
//
// The folder is made, with mode 0755, when it does not exist. It is locked
// against other runs: when one is under way the error is a [*BusyError]. What
// else is in it is left alone; where one of the names is taken by something else
// the error wraps [fs.ErrExist], and nothing is changed.
//
// content is asked for what to write once nothing stands in the way any more, as
// a token that nobody gets is better not made; the folder is locked meanwhile.
// Where it fails nothing is changed.
//
// After an error, and killed at any moment, the old files are all there or the
// new ones are, and the next run removes what is left over. All is made durable
// before it is shown. What of earlier runs cannot be removed, tokens perhaps, is
// no error: kept says why.
func WriteMount(dir string, content func() (Mount, error)) (kept []error, err error) {
	return writeMount(dir, content, time.Now(), func(dir *os.Root) fileOps { return diskOps{dir} })
}

func writeMount(dir string, content func() (Mount, error), now time.Time, on func(*os.Root) fileOps) (kept []error, err error) {
	made, err := makeRoot(dir)
	if err != nil {
		return nil, err
	}
	root, lock, err := openLocked(dir)
	if err == nil {
		defer root.Close()
		defer lock.Close()
		w := &mountWriter{dir: dir, ops: on(root), content: content, now: now}
		err = w.write()
		kept = w.kept
	}
	if err != nil {
		for _, m := range slices.Backward(made) {
			os.Remove(m) // where nothing stands in it
		}
	}
	return kept, err
}

// mountWriter is one run.
type mountWriter struct {
	dir     string // as given
	ops     fileOps
	content func() (Mount, error)
	now     time.Time
	made    []string // what an error takes back, in order
	kept    []error  // why folders of earlier runs are still there
}

func (w *mountWriter) write() error {
	old, links, err := w.look()
	if err != nil {
		return err
	}
	if err := w.tidy(old); err != nil {
		return err
	}
	if err := w.stage(links); err != nil {
		for _, name := range slices.Backward(w.made) {
			err = errors.Join(err, w.remove(name))
		}
		return err
	}
	// Not before: after a loss of power ..data could lead to the old folder.
	if err := w.ops.Sync("."); err != nil {
		return w.failed("writing", mountData, err)
	}
	if old != "" {
		w.removeFolder(old)
	}
	return nil
}

// look returns the folder that ..data leads to, empty where there is none, and
// the links that are missing. It refuses what no run of this program or of a
// kubelet makes.
func (w *mountWriter) look() (old string, missing []string, err error) {
	old, err = w.link(mountData, isMountFolder)
	if err != nil {
		return "", nil, err
	}
	if _, err := w.link(mountNext, isMountFolder); err != nil {
		return "", nil, err
	}
	for _, name := range mountFiles {
		want := path.Join(mountData, name)
		got, err := w.link(name, func(to string) bool { return to == want })
		if err != nil {
			return "", nil, err
		}
		if got == "" {
			missing = append(missing, name)
		}
	}
	return old, missing, nil
}

// link returns where a link leads, empty when it is not there.
func (w *mountWriter) link(name string, good func(to string) bool) (string, error) {
	info, err := w.ops.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", w.failed("looking at", name, err)
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		to, err := w.ops.Readlink(name)
		if err != nil {
			return "", w.failed("looking at", name, err)
		}
		if good(to) {
			return to, nil
		}
	}
	return "", fmt.Errorf("%s is in the way: it is no link of a service account's volume: %w", w.host(name), fs.ErrExist)
}

// tidy removes what an interrupted run left: all but the current folder.
func (w *mountWriter) tidy(current string) error {
	entries, err := w.ops.ReadDir(".")
	if err != nil {
		return w.failed("reading", ".", err)
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == mountNext:
			if err := w.remove(name); err != nil {
				return err
			}
		case e.IsDir() && isMountFolder(name) && name != current:
			w.removeFolder(name)
		}
	}
	return nil
}

// removeFolder removes the files of a run, and their folder if nothing else is
// in it. That it cannot must not stop a renewal, or every later one would stop
// there too, until the token has expired.
func (w *mountWriter) removeFolder(name string) {
	for _, file := range mountFiles {
		file = path.Join(name, file)
		if info, err := w.ops.Lstat(file); err == nil && info.IsDir() {
			continue // no run made it, and it would go if it were empty
		}
		if err := w.remove(file); err != nil {
			w.kept = append(w.kept, err)
			return
		}
	}
	if err := w.remove(name); err != nil && !isNotEmpty(err) {
		w.kept = append(w.kept, err)
	}
}

func (w *mountWriter) remove(name string) error {
	if err := w.ops.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return w.failed("removing", name, err)
	}
	return nil
}

// stage writes the new folder and, as its last operation, shows it.
func (w *mountWriter) stage(links []string) error {
	folder := w.now.UTC().Format(mountFolders) + fmt.Sprint(rand.Uint32())
	if err := w.fill(folder); err != nil {
		return err
	}
	// They lead nowhere as long as there is no ..data, so that the first run
	// too shows all files at once.
	for _, name := range links {
		if err := w.makeLink(path.Join(mountData, name), name); err != nil {
			return err
		}
	}
	if err := w.makeLink(folder, mountNext); err != nil {
		return err
	}
	if err := w.ops.Sync("."); err != nil {
		return w.failed("writing", ".", err)
	}
	return w.failed("writing", mountData, w.ops.Rename(mountNext, mountData))
}

// fill makes the folder with its files.
func (w *mountWriter) fill(folder string) error {
	if err := w.ops.Mkdir(folder, 0o755); err != nil {
		return w.failed("making", folder, err)
	}
	w.made = append(w.made, folder)
	if err := w.ops.Chmod(folder, 0o755); err != nil { // whatever the umask
		return w.failed("making", folder, err)
	}
	m, err := w.content()
	if err != nil {
		return err
	}
	for _, file := range mountFiles {
		name := path.Join(folder, file)
		w.made = append(w.made, name)
		if err := w.ops.Create(name, m.file(file)); err != nil {
			return w.failed("writing", name, err)
		}
		if file != MountToken {
			if err := w.ops.Chmod(name, 0o644); err != nil {
				return w.failed("writing", name, err)
			}
		}
		if err := w.ops.Sync(name); err != nil {
			return w.failed("writing", name, err)
		}
	}
	return w.failed("writing", folder, w.ops.Sync(folder))
}

func (w *mountWriter) makeLink(to, name string) error {
	if err := w.ops.Symlink(to, name); err != nil {
		return w.failed("making", name, err)
	}
	w.made = append(w.made, name)
	return nil
}

func (m *Mount) file(name string) []byte {
	switch name {
	case MountToken:
		return []byte(m.Token)
	case MountCA:
		return m.CA
	}
	return []byte(m.Namespace)
}

// failed names the file as the caller of the program knows it.
func (w *mountWriter) failed(doing, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", doing, w.host(name), Cause(err))
}

func (w *mountWriter) host(name string) string { return filepath.Join(w.dir, filepath.FromSlash(name)) }
