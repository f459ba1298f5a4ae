package layout

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kubepki/kubepki/internal/trust"
)

func TestReadFileFollowsLinksBelowTheRootOnly(t *testing.T) {
	root := t.TempDir()
	write(t, root, "data/real.crt", "inside", 0o640)
	write(t, root, "etc/passwd", "root's own", 0o644)
	os.MkdirAll(filepath.Join(root, "etc/pki"), 0o755)
	for name, target := range map[string]string{
		"etc/absolute.crt":    "/data/real.crt",
		"etc/relative.crt":    "../data/real.crt",
		"etc/climbing.crt":    "../../../../../../../../etc/passwd",
		"etc/folder":          "/data",
		"etc/two.crt":         "folder/../data/../etc/relative.crt",
		"etc/pki/current.pem": "/etc/absolute.crt",
	} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for p, want := range map[string]struct{ data, target string }{
		"/data/real.crt":           {"inside", ""},
		"/data/../data/./real.crt": {"inside", ""},
		"/../../data/real.crt":     {"inside", ""},
		"/etc/absolute.crt":        {"inside", "/data/real.crt"},
		"/etc/relative.crt":        {"inside", "/data/real.crt"},
		"/etc/climbing.crt":        {"root's own", "/etc/passwd"},
		"/etc/folder/real.crt":     {"inside", "/data/real.crt"},
		"/etc/two.crt":             {"inside", "/data/real.crt"},
		"/etc/pki/current.pem":     {"inside", "/data/real.crt"},
	} {
		c, err := ReadFile(root, p)
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		if string(c.Data) != want.data || c.Target != want.target {
			t.Errorf("%s: got %q at %q, want %q at %q", p, c.Data, c.Target, want.data, want.target)
		}
		if want.data == "inside" && c.Mode != 0o640 || c.UID != os.Geteuid() {
			t.Errorf("%s: mode %v, owner %d", p, c.Mode, c.UID)
		}
	}
}

func TestReadFileRefusesWhatIsNoFileOfACluster(t *testing.T) {
	root := t.TempDir()
	os.Mkdir(filepath.Join(root, "folder"), 0o755)
	write(t, root, "file", "x", 0o600)
	big, err := os.Create(filepath.Join(root, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	if err := big.Truncate(100 << 20); err != nil {
		t.Fatal(err)
	}
	big.Close()
	if err := syscall.Mkfifo(filepath.Join(root, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Symlink("b", filepath.Join(root, "a"))
	os.Symlink("a", filepath.Join(root, "b"))
	os.Symlink("/gone/file", filepath.Join(root, "dangling"))
	os.Symlink("missing/../file", filepath.Join(root, "strange"))
	for p, want := range map[string]struct {
		state  trust.State
		reason string
	}{
		"/folder":     {trust.Unreadable, "is a folder"},
		"/":           {trust.Unreadable, "is a folder"},
		"/sparse":     {trust.Unreadable, "is larger than 1 MiB, which no file of a cluster's credentials is"},
		"/fifo":       {trust.Unreadable, "is a FIFO, not a file"},
		"/a":          {trust.Unreadable, "loop"},
		"/a/x":        {trust.Unreadable, "loop"},
		"/dangling":   {trust.Missing, "leads to /gone/file, which does not exist"},
		"/strange":    {trust.Missing, "does not exist"},
		"/absent":     {trust.Missing, "does not exist"},
		"/absent/sub": {trust.Missing, "does not exist"},
		"/file/sub":   {trust.Missing, "no folder"},
		"file":        {trust.Unreadable, "is not an absolute path"},
	} {
		c, err := ReadFile(root, p)
		var e *ReadError
		if !errors.As(err, &e) || e.State != want.state || !strings.Contains(e.Reason, want.reason) {
			t.Errorf("%s: got %v, want %s: %s", p, err, want.state, want.reason)
		}
		if c.Data != nil {
			t.Errorf("%s: %d bytes were returned", p, len(c.Data))
		}
	}
}

func TestReadFileTakesAMebibyteAndNoMore(t *testing.T) {
	root := t.TempDir()
	write(t, root, "fits", strings.Repeat("x", MaxFile), 0o600)
	write(t, root, "not", strings.Repeat("x", MaxFile+1), 0o600)
	if c, err := ReadFile(root, "/fits"); err != nil || len(c.Data) != MaxFile {
		t.Errorf("%d bytes: %v", len(c.Data), err)
	}
	if _, err := ReadFile(root, "/not"); err == nil {
		t.Error("one byte more was read")
	}
}

func TestReadFileFollowsFortyLinks(t *testing.T) {
	root := t.TempDir()
	write(t, root, "0", "x", 0o600)
	for i := 1; i <= 41; i++ {
		os.Symlink(fmt.Sprint(i-1), filepath.Join(root, fmt.Sprint(i)))
	}
	if _, err := ReadFile(root, "/40"); err != nil {
		t.Errorf("40 links: %v", err)
	}
	if _, err := ReadFile(root, "/41"); err == nil {
		t.Error("41 links were followed")
	}
}

func TestReadFileOfADevice(t *testing.T) {
	var e *ReadError
	if _, err := ReadFile("/", "/dev/null"); !errors.As(err, &e) || e.Reason != "is a device, not a file" {
		t.Errorf("/dev/null: %v", err)
	}
}

func TestFilesWithoutPermissionAreDeniedOnce(t *testing.T) {
	root := filepath.Join(openTempDir(t), "root")
	write(t, root, "etc/kubernetes/pki/apiserver.key", "x", 0o000)
	write(t, root, "etc/kubernetes/pki/sa.key", "x", 0o000)
	write(t, root, "etc/kubernetes/admin.conf", "x", 0o000)
	write(t, root, "etc/kubernetes/closed/file", "x", 0o644)
	if err := os.Chmod(filepath.Join(root, "etc/kubernetes/closed"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(root, "etc/kubernetes/closed"), 0o755) })
	unprivileged(t, "denied", root)
}

func readDenied(root string) error {
	c, err := ReadFile(root, "/etc/kubernetes/pki/sa.key")
	var e *ReadError
	if !errors.As(err, &e) || e.State != trust.Denied || !errors.Is(err, fs.ErrPermission) || c.UID < 0 {
		return fmt.Errorf("sa.key: %+v, %v", c, err)
	}
	if _, err := ReadFile(root, "/etc/kubernetes/closed/file"); !errors.As(err, &e) || e.State != trust.Denied {
		return fmt.Errorf("in a closed folder: %v", err)
	}
	n, _, err := Read(root, Options{Name: "cp1"})
	if err != nil {
		return err
	}
	var denied []trust.NotSeen
	for _, s := range n.NotSeen {
		if s.Denied {
			denied = append(denied, s)
		}
	}
	want := trust.NotSeen{
		Place: trust.Place{Node: "cp1", Path: "/etc/kubernetes"}, Denied: true,
		Reason: "needs to read 3 files of this node, for which the permission is missing: run with sudo",
	}
	if len(denied) != 1 || denied[0] != want {
		return fmt.Errorf("not seen: %+v", denied)
	}
	for _, m := range n.Materials {
		if strings.HasSuffix(m.Place.Path, "sa.key") && m.State != trust.Denied {
			return fmt.Errorf("%s is %s", m.Place, m.State)
		}
	}
	return nil
}
