package agent

import (
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/brief"
	"github.com/kubepki/kubepki/internal/testpki"
)

func names(p *Paths) (all []string) {
	p.Each(func(c brief.Certificate) bool {
		f := c.Facts.Value()
		all = append(all, filepath.Base(c.Place.Path)+" "+f.Subject.Value().CN)
		return true
	})
	return all
}

func TestAnyFileWithCertificatesIsRead(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	d := disk{t, t.TempDir()}
	crt, key := string(c.Read("cp1", "pki/apiserver.crt")), string(c.Read("cp1", "pki/apiserver.key"))
	block, _ := pem.Decode([]byte(crt))
	d.write("pair.pem", key+crt)
	d.write("chain.crt", crt+string(c.Read("cp1", "pki/ca.crt")))
	d.write("binary.cer", string(block.Bytes))
	d.write("admin.conf", string(c.Read("cp1", "admin.conf")))
	d.write("words.crt", "these are words")
	d.write("key.pem", key)
	d.write("cut.crt", crt[:len(crt)/2])
	d.write("readme.txt", "not asked for")
	d.must(os.Mkdir(d.at("folder.crt"), 0o755))
	p, err := NewPaths([]string{d.dir, d.at("missing.crt"), d.at("none-*.crt")})
	if err != nil {
		t.Fatal(err)
	}
	p.Look(t.Context())
	want := []string{"admin.conf kubernetes", "admin.conf kubernetes-admin", "binary.cer kube-apiserver", "chain.crt kube-apiserver", "chain.crt kubernetes", "pair.pem kube-apiserver"}
	if got := names(p); !slices.Equal(got, want) {
		t.Errorf("read %v\nwant %v", got, want)
	}
	var faults []string
	for _, f := range p.Findings(testpki.At, 0) {
		faults = append(faults, filepath.Base(f.Path)+" "+f.ID)
		if strings.Contains(f.Cause, "PRIVATE") {
			t.Error(f.Cause)
		}
	}
	want = []string{"cut.crt cert-malformed", "folder.crt file-unreadable", "key.pem cert-malformed", "missing.crt file-missing", "words.crt cert-malformed"}
	if !slices.Equal(faults, want) {
		t.Errorf("faults %v\nwant %v", faults, want)
	}
}

func TestAFileIsReadAgainWhenItIsAnotherOne(t *testing.T) {
	synctest.Test(t, readAgainWhenAnother) // whose time is far from that of the disk: all is old
}

func readAgainWhenAnother(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	d := disk{t, t.TempDir()}
	old := time.Now().Add(-time.Hour)
	for i := range 5 {
		name := fmt.Sprintf("%d.crt", i)
		d.write(name, string(c.Read("cp1", "pki/apiserver.crt")))
		d.must(os.Chtimes(d.at(name), old, old))
	}
	p, err := NewPaths([]string{filepath.Join(d.dir, "*.crt")})
	if err != nil {
		t.Fatal(err)
	}
	files := func() map[string]*pathFile { p.Look(t.Context()); return p.files }
	before := files()
	if again := files(); !sameMap(before, again) {
		t.Error("read again although nothing changed")
	}
	d.write("3.crt", string(c.Read("cp1", "pki/front-proxy-client.crt")))
	d.must(os.Chtimes(d.at("3.crt"), old, old)) // of the old time
	d.must(os.Remove(d.at("4.crt")))
	d.write("5.crt", string(c.Read("cp1", "pki/ca.crt")))
	after := files()
	for name, changed := range map[string]bool{"0.crt": false, "3.crt": true} {
		if (before[d.at(name)] != after[d.at(name)]) != changed {
			t.Errorf("%s read again: %v", name, !changed)
		}
	}
	want := []string{"0.crt kube-apiserver", "1.crt kube-apiserver", "2.crt kube-apiserver", "3.crt front-proxy-client", "5.crt kubernetes"}
	if got := names(p); !slices.Equal(got, want) {
		t.Errorf("read %v", got)
	}
}

func sameMap(a, b map[string]*pathFile) bool {
	for name := range a {
		if a[name] != b[name] {
			return false
		}
	}
	return len(a) == len(b)
}

func TestOfAFileAloneItsAgeIsJudged(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	p, err := NewPaths([]string{c.Path("cp1", "pki/apiserver.crt")})
	if err != nil {
		t.Fatal(err)
	}
	p.Look(t.Context())
	ends := testpki.Made.Add(365 * 24 * time.Hour)
	for want, at := range map[string]time.Time{
		"": testpki.At, "cert-not-yet-valid": testpki.Made.AddDate(0, -1, 0), "cert-expiring": ends.AddDate(0, 0, -29), "cert-expired": ends.AddDate(0, 0, 1),
	} {
		got := ""
		for _, f := range p.Findings(at, 0) {
			got += f.ID
		}
		if got != want {
			t.Errorf("at %s: %q, want %q", at, got, want)
		}
	}
	if got := p.Findings(ends.AddDate(0, 0, -60), 90*24*time.Hour); len(got) != 1 {
		t.Errorf("with a window of ninety days: %v", got)
	}
}

func TestPatternsThatAreNoneAreRefused(t *testing.T) {
	for _, pattern := range []string{"", "relative/*.crt", "/srv/[a"} {
		if _, err := NewPaths([]string{pattern}); err == nil {
			t.Errorf("%q is taken", pattern)
		}
	}
}
