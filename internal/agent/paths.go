package agent

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kubepki/kubepki/internal/brief"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/resident"
	"github.com/kubepki/kubepki/internal/trust"
)

// MaxPaths is how many files are watched beside those of the nodes; what is more is
// left out, and said.
const MaxPaths = 100_000

// Paths are files beside those of the nodes, each with certificates: PEM, DER or a
// kubeconfig. Of each only what [brief.Certificate] has is kept, and a file is read
// again when it is another one, or another size or time. It is a [Holder]: Look may
// run while others ask.
type Paths struct {
	patterns []string

	mu     sync.Mutex
	files  map[string]*pathFile
	order  []string
	dirs   []string         // what is worth watching
	stamps map[string]stamp // of those, when the names were looked for
	left   int
	errors map[string]uint64
}

// pathFile is one file as it was read last.
type pathFile struct {
	seen  stamp
	certs []brief.Certificate
	code  string // why there are none: a word as of [Fault]; "": there are
	why   string // the same for people
}

// NewPaths takes patterns as [filepath.Match] has them; what ends in a folder stands
// for all files in it whose names end in .crt, .pem, .cer or .conf. An error names
// a pattern that is none.
func NewPaths(patterns []string) (*Paths, error) {
	for _, p := range patterns {
		if _, err := filepath.Match(p, ""); err != nil || !filepath.IsAbs(p) {
			return nil, fmt.Errorf("%q is no absolute path and no pattern of such: use /etc/ssl/private or '/srv/*/tls.crt'", p)
		}
	}
	return &Paths{patterns: patterns, files: map[string]*pathFile{}, errors: map[string]uint64{}}, nil
}

var certificateEndings = []string{".crt", ".pem", ".cer", ".conf"}

// names are the files that the patterns mean now, sorted, each once. What a pattern
// without wildcards names is among them also where it is missing.
func (p *Paths) names() []string {
	var all []string
	for _, pattern := range p.patterns {
		matches, _ := filepath.Glob(pattern) // that it is well formed is known
		if len(matches) == 0 && !strings.ContainsAny(pattern, wildcards) {
			matches = []string{pattern}
		}
		for _, m := range matches {
			info, err := os.Stat(m)
			if err != nil || !info.IsDir() {
				all = append(all, m)
				continue
			}
			entries, _ := os.ReadDir(m) // what could be read of it
			for _, e := range entries {
				if slices.Contains(certificateEndings, filepath.Ext(e.Name())) {
					all = append(all, filepath.Join(m, e.Name()))
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Look reads what has changed, and returns the folders that are worth watching.
func (p *Paths) Look(ctx context.Context) []string {
	p.mu.Lock()
	old, names, left, dirs, stamps := p.files, p.order, p.left, p.dirs, p.stamps
	p.mu.Unlock()
	if !p.sameNames(stamps) {
		if names, left = p.names(), 0; len(names) > MaxPaths {
			names, left = names[:MaxPaths], len(names)-MaxPaths
		}
		// Before the files are read: what comes later is seen at the next look.
		dirs = p.folders(names)
		stamps = stampsOf(dirs)
	}
	files := p.read(ctx, names, old)
	if ctx.Err() != nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, f := range files {
		if f != old[name] && f.code != "" {
			p.errors[f.code]++
		}
	}
	p.files, p.order, p.left, p.dirs, p.stamps = files, names, left, dirs, stamps
	return dirs
}

// sameNames tells that the patterns mean what they meant: no folder has changed in
// which a file could have come or gone. Of a pattern with a wildcard before its last
// part not all of these are known.
func (p *Paths) sameNames(stamps map[string]stamp) bool {
	for _, pattern := range p.patterns {
		if strings.ContainsAny(filepath.Dir(pattern), wildcards) {
			return false
		}
	}
	for dir, then := range stamps {
		if now, err := stampOf(dir, time.Now()); err != nil || now != then || !then.settled {
			return false
		}
	}
	return stamps != nil
}

// read returns what the files hold: the very map that is known, where nothing is new.
func (p *Paths) read(ctx context.Context, names []string, old map[string]*pathFile) map[string]*pathFile {
	fresh := map[string]*pathFile{}
	for _, name := range names {
		f := p.file(name, old[name])
		if f == old[name] {
			continue
		}
		fresh[name] = f
		if len(fresh)%64 == 0 {
			resident.Pause()
		}
		if len(fresh)%512 == 0 {
			runtime.GC() // what was parsed is let go of before it piles up
		}
		if ctx.Err() != nil {
			return old
		}
	}
	if len(fresh) == 0 && len(names) == len(old) {
		return old
	}
	files := make(map[string]*pathFile, len(names))
	for _, name := range names {
		if files[name] = fresh[name]; files[name] == nil {
			files[name] = old[name]
		}
	}
	return files
}

// wildcards are the characters by which a pattern is one.
const wildcards = `*?[\`

// folders are those to watch: where the files are, where they are led to, and where
// the patterns begin.
func (p *Paths) folders(names []string) []string {
	var all []string
	last := ""
	for _, name := range names {
		if dir := filepath.Dir(name); dir != last { // they are sorted
			all, last = append(all, folders("/", name)...), dir
		}
	}
	for _, pattern := range p.patterns {
		fixed := pattern
		for strings.ContainsAny(fixed, wildcards) {
			fixed = filepath.Dir(fixed)
		}
		all = append(all, folders("/", filepath.Join(fixed, "file"))...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// file returns what a path holds: what is known, where that is what stands there.
func (p *Paths) file(name string, known *pathFile) *pathFile {
	now, err := stampOf(name, time.Now())
	if err != nil {
		return failed(known, err)
	}
	if known != nil && known.seen == now && now.settled {
		return known
	}
	certs, err := readCertificates(name)
	if err != nil {
		f := failed(known, err)
		f.seen = now
		return f
	}
	return &pathFile{seen: now, certs: certs}
}

// failed keeps the same value while the same is wrong, so that it counts once.
func failed(known *pathFile, err error) *pathFile {
	f := &pathFile{code: "read_failed", why: err.Error()}
	var unread *layout.ReadError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.code, f.why = "not_found", "there is no such file"
	case errors.Is(err, fs.ErrPermission):
		f.code, f.why = "permission_denied", "it may not be read"
	case errors.As(err, &unread):
		f.why = unread.Reason
	case errors.Is(err, errNoCertificate):
		f.code = "bad_pem"
	}
	if known != nil && known.code == f.code && known.why == f.why {
		return known
	}
	return f
}

var errNoCertificate = errors.New("no certificate that parses is in it")

// readCertificates returns what is kept of the certificates of a file.
func readCertificates(name string) ([]brief.Certificate, error) {
	content, err := layout.ReadFile("/", name)
	if err != nil {
		return nil, err
	}
	at := trust.Place{Path: name}
	if bytes.Contains(content.Data, []byte("-----BEGIN "+trust.CertificateType+"-----")) {
		certs, err := ofText(content.Data)
		return briefs(at, certs), err
	}
	if c, err := x509.ParseCertificate(content.Data); err == nil {
		return briefs(at, []*x509.Certificate{c}), nil
	}
	// The keys of a kubeconfig are not kept.
	_, materials, _ := layout.ParseKubeconfig(at, content.Data)
	var all []brief.Certificate
	for _, m := range materials {
		all = append(all, briefs(m.Place, m.Certificates)...)
	}
	if len(all) == 0 {
		return nil, errNoCertificate
	}
	return all, nil
}

// ofText are the certificates of a PEM text; a key beside them is passed over.
func ofText(data []byte) ([]*x509.Certificate, error) {
	blocks, err := trust.Blocks(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoCertificate, err)
	}
	var all []*x509.Certificate
	for _, b := range blocks {
		if b.Type != trust.CertificateType {
			continue
		}
		c, err := x509.ParseCertificate(b.DER)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", errNoCertificate, b.Line, err)
		}
		all = append(all, c)
	}
	return all, nil
}

func briefs(at trust.Place, certs []*x509.Certificate) []brief.Certificate {
	all := make([]brief.Certificate, 0, len(certs))
	for i, c := range certs {
		all = append(all, brief.New(at, i, c))
	}
	return all
}

// Each calls yield with each certificate, in the order of the paths.
func (p *Paths) Each(yield func(brief.Certificate) bool) {
	p.mu.Lock()
	files, order := p.files, p.order // neither is changed afterwards
	p.mu.Unlock()
	for _, name := range order {
		for _, c := range files[name].certs {
			if !yield(c) {
				return
			}
		}
	}
}

// Sources tells how reading went.
func (p *Paths) Sources() []Source {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Source{Kind: "file", Name: "paths", Read: p.order != nil, Up: p.order != nil, Bundles: len(p.order), Errors: map[string]uint64{}, Left: p.left}
	for code, n := range p.errors {
		s.Errors[code] = n
	}
	for _, name := range p.order {
		if f := p.files[name]; f.code != "" {
			s.Faults = append(s.Faults, Fault{trust.Place{Path: name}, f.code})
		}
	}
	return []Source{s}
}

// Findings judges what can be judged of a file alone: whether it can be read, and
// whether now is within the life of each certificate. The window is that of
// [check.Options].
func (p *Paths) Findings(at time.Time, window time.Duration) []check.Finding {
	p.mu.Lock()
	files, order := p.files, p.order
	p.mu.Unlock()
	var all []check.Finding
	for _, name := range order {
		f := files[name]
		if f.code != "" {
			all = append(all, pathFinding(codeFindings[f.code], check.Error, name, "", filepath.Base(name)+": "+f.why))
		}
		for _, c := range f.certs {
			facts := c.Facts.Value()
			if id, severity, cause := aged(&facts, at, window); id != "" {
				all = append(all, pathFinding(id, severity, name, c.Place.Field, cause))
			}
		}
	}
	return all
}

var codeFindings = map[string]string{
	"not_found": "file-missing", "permission_denied": "file-unreadable", "read_failed": "file-unreadable", "bad_pem": "cert-malformed",
}

func pathFinding(id string, severity check.Severity, path, field, cause string) check.Finding {
	return check.Finding{ID: id, Severity: severity, Links: []int{}, Path: path, Paths: []string{path}, Field: field, Cause: cause, Consequences: []check.Consequence{}}
}

// aged tells what time says of a certificate; "" where it is well within its life.
func aged(f *brief.Facts, at time.Time, window time.Duration) (id string, severity check.Severity, cause string) {
	if window == 0 {
		window = time.Duration(min(30*24*60*60, (f.Until-f.From)/10)) * time.Second
	}
	who := func() string { return fmt.Sprintf("certificate %q", f.Subject.Value().CN) }
	switch left := f.NotAfter().Sub(at); {
	case left < 0:
		return "cert-expired", check.Error, fmt.Sprintf("%s expired at %s", who(), f.NotAfter().Format(time.RFC3339))
	case at.Before(f.NotBefore()):
		return "cert-not-yet-valid", check.Error, fmt.Sprintf("%s is not valid before %s", who(), f.NotBefore().Format(time.RFC3339))
	case left < window:
		return "cert-expiring", check.Warning, fmt.Sprintf("%s expires at %s", who(), f.NotAfter().Format(time.RFC3339))
	}
	return "", "", ""
}
