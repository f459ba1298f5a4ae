package restart

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const manifestPath = "/etc/kubernetes/manifests/etcd.yaml"

// nodeWith makes a node's root with files.
func nodeWith(t *testing.T, files map[string]string) (string, *os.Root) {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "etc/kubernetes/manifests"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		at := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o700), os.WriteFile(at, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return dir, root
}

// tree is every file below a root, with its content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(file)
		all[strings.TrimPrefix(file, dir)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAManifestGoesAsideAndComesBack(t *testing.T) {
	dir, root := nodeWith(t, map[string]string{manifestPath: "etcd", "/etc/kubernetes/manifests/other.yaml": "other"})
	before, err := os.Stat(filepath.Join(dir, manifestPath))
	if err != nil {
		t.Fatal(err)
	}
	if err := aside(root, manifestPath); err != nil {
		t.Fatal(err)
	}
	// At this moment the program may be killed.
	if got := tree(t, dir); got[manifestPath] != "" || got[AsideFolder+manifestPath] != "etcd" || len(got) != 2 {
		t.Errorf("%v", got)
	}
	if left, err := Left(dir); err != nil || !slices.Equal(left, []string{manifestPath}) {
		t.Error(left, err)
	}
	if err := aside(root, manifestPath); err == nil {
		t.Error("what is away was moved")
	}
	info, err := os.Stat(filepath.Join(dir, AsideFolder))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info.Mode(), err)
	}
	brought, err := Recover(dir)
	if err != nil || !slices.Equal(brought, []string{manifestPath}) {
		t.Error(brought, err)
	}
	after, err := os.Stat(filepath.Join(dir, manifestPath))
	if err != nil || !os.SameFile(before, after) || after.Mode() != before.Mode() || !after.ModTime().Equal(before.ModTime()) {
		t.Error("it is not the file that it was")
	}
	if _, err := os.Stat(filepath.Join(dir, AsideFolder)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the folder stays")
	}
	if brought, err := Recover(dir); err != nil || brought != nil {
		t.Error("nothing was to be done", brought, err)
	}
}

func TestWhatStandsInThePlaceOfAManifest(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  map[string]string
		two   bool
	}{
		"the same was written meanwhile":    {map[string]string{manifestPath: "a", AsideFolder + manifestPath: "a"}, map[string]string{manifestPath: "a"}, false},
		"another was written meanwhile":     {map[string]string{manifestPath: "new", AsideFolder + manifestPath: "old"}, map[string]string{manifestPath: "new", AsideFolder + manifestPath: "old"}, true},
		"its folder was taken away as well": {map[string]string{AsideFolder + "/etc/gone/etcd.yaml": "a"}, map[string]string{AsideFolder + "/etc/gone/etcd.yaml": "a"}, false},
		"one that can be and one that cannot": {map[string]string{manifestPath: "new", AsideFolder + manifestPath: "old", AsideFolder + "/etc/kubernetes/manifests/b.yaml": "b"},
			map[string]string{manifestPath: "new", AsideFolder + manifestPath: "old", "/etc/kubernetes/manifests/b.yaml": "b"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := nodeWith(t, c.files)
			_, err := Recover(dir)
			var two *TwoManifestsError
			if errors.As(err, &two) != c.two {
				t.Error(err)
			}
			if c.two && !strings.Contains(two.Hint(), "diff "+manifestPath) {
				t.Error(two.Hint())
			}
			got := tree(t, dir)
			for at, text := range c.want {
				if got[at] != text {
					t.Errorf("%s holds %q", at, got[at])
				}
			}
			if len(got) != len(c.want) {
				t.Errorf("%v", got)
			}
		})
	}
}

func TestWhatIsNoPlainFileIsNotMoved(t *testing.T) {
	dir, root := nodeWith(t, map[string]string{"/elsewhere": "etcd"})
	if err := os.Symlink("/elsewhere", filepath.Join(dir, manifestPath)); err != nil {
		t.Fatal(err)
	}
	if err := aside(root, manifestPath); err == nil || !strings.Contains(err.Error(), "no plain file") {
		t.Error(err)
	}
	if err := aside(root, "/etc/kubernetes/manifests"); err == nil {
		t.Error("a folder was moved")
	}
	if err := aside(root, "/etc/kubernetes/manifests/none.yaml"); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Error(err)
	}
}

func TestOneRestartOfANodeAtATime(t *testing.T) {
	dir, _ := nodeWith(t, nil)
	unlock, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); err == nil || !strings.Contains(err.Error(), "under way") {
		t.Error(err)
	}
	unlock()
	again, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again()
	other := t.TempDir() // of a layout without /etc/kubernetes
	if err := os.Mkdir(filepath.Join(other, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	bare, err := Lock(other)
	if err != nil {
		t.Fatal(err)
	}
	bare()
	if _, err := Lock(t.TempDir()); err == nil {
		t.Error("a folder without /etc is locked as a node")
	}
}
