package apply

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestLast(t *testing.T) {
	const (
		older, newer = "20260101T000000.000Z", "20260201T000000.000Z"
		head         = `{"apiVersion":"kubepki.dev/v1alpha1","kind":"RenewalBackup",%s"files":[`
	)
	file := func(path, is string) string { return fmt.Sprintf(`{"path":%q,"is":%q}`, path, is) }
	manifest := func(by, files string) string { return fmt.Sprintf(head, by) + files + `]}` }
	a, b := hashOf([]byte("a")), hashOf([]byte("b"))
	link := fmt.Sprintf(`{"path":"/etc/kubelet-client-current.pem","is":%q,"link":"a"}`, a)
	for name, c := range map[string]struct {
		manifests map[string]string
		want      []string
	}{
		"what stands as it was written":         {map[string]string{newer: manifest("", file("/etc/a", a)+","+file("/etc/b", b))}, []string{"/etc/a", "/etc/b"}},
		"what somebody has changed since":       {map[string]string{newer: manifest("", file("/etc/a", b)+","+file("/etc/b", b))}, []string{"/etc/b"}},
		"what is gone, and what was removed":    {map[string]string{newer: manifest("", file("/etc/c", a)+","+file("/etc/d", "")+","+file("/etc/b", b))}, []string{"/etc/b"}},
		"the newest backup alone":               {map[string]string{older: manifest("", file("/etc/a", a)), newer: manifest("", file("/etc/b", b))}, []string{"/etc/b"}},
		"the agent's own is passed over":        {map[string]string{older: manifest("", file("/etc/a", a)), newer: manifest(`"by":"agent",`, file("/etc/b", b))}, []string{"/etc/a"}},
		"a torn one is too":                     {map[string]string{older: manifest("", file("/etc/a", a)), newer: "{"}, []string{"/etc/a"}},
		"a link that leads where it was led":    {map[string]string{newer: manifest("", link)}, []string{"/etc/kubelet-client-current.pem"}},
		"a file where a link is said to be":     {map[string]string{newer: manifest("", fmt.Sprintf(`{"path":"/etc/a","is":%q,"link":"b"}`, a))}, nil},
		"nothing is kept, and nothing is known": {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now().Add(-time.Second) // ctime is of the kernel's last tick
			root := t.TempDir()
			if c.manifests != nil {
				root = backupsIn(t, 0o700, c.manifests)
			}
			etc := filepath.Join(root, "etc")
			if err := os.MkdirAll(etc, 0o700); err != nil {
				t.Fatal(err)
			}
			for _, n := range []string{"a", "b"} {
				// Written long ago under another name, and renamed just now.
				from := filepath.Join(etc, n+".new")
				if err := os.WriteFile(from, []byte(n), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chtimes(from, time.Time{}, began.Add(-time.Hour)); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(from, filepath.Join(etc, n)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink("a", filepath.Join(etc, "kubelet-client-current.pem")); err != nil {
				t.Fatal(err)
			}
			places, at, err := Last(New(map[string]string{"": root}, nil, nil), "")
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range places {
				got = append(got, p.Path)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if len(got) > 0 != at.After(began) {
				t.Errorf("they came to stand there at %s; it is %s", at, began)
			}
		})
	}
}
