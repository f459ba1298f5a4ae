package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/saserver"
	"github.com/kubepki/kubepki/token"
)

// issuerDocuments is what sa serve --out has written, in machine output.
type issuerDocuments struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Issuer     string           `json:"issuer"`
	Documents  []issuerDocument `json:"documents"`
	Keys       []publishedKey   `json:"keys"`
	// Removed are the ids of keys that were published before.
	Removed []string `json:"removed"`
}

// issuerDocument is a file, and what the web host must send with it.
type issuerDocument struct {
	Path         string `json:"path"`
	URL          string `json:"url"`
	ContentType  string `json:"contentType"`
	CacheControl string `json:"cacheControl"`
	Written      bool   `json:"written"` // false: it was so before
}

type publishedKey struct {
	ID        string `json:"kid"`
	Algorithm string `json:"alg"`
	New       bool   `json:"new"` // it was not published before
}

// write writes the documents as files.
func (o *saServeOptions) write(ctx context.Context, s streams) error {
	source, err := o.tokens.open(nil)
	if err != nil {
		return err
	}
	set, err := source.Keys(ctx, "")
	if err != nil {
		return err
	}
	keys, discovery, err := o.publication().Documents(set)
	if err != nil {
		return advise(err, "others discover an issuer at an https URL: give the one of --service-account-issuer first, and --jwks-uri where the keys are elsewhere")
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	root, err := os.OpenRoot(o.out)
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	defer root.Close()
	d := &issuerDocuments{APIVersion: report.APIVersion, Kind: "IssuerDocuments", Issuer: o.tokens.issuers[0], Documents: []issuerDocument{}, Removed: []string{}}
	before, err := present(root, keys.Path)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(o.out, keys.Path), err)
	}
	d.compare(set, before)
	for _, one := range []saserver.Document{keys, discovery} {
		written, err := replace(root, one.Path, one.Data)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(o.out, one.Path), err)
		}
		d.Documents = append(d.Documents, issuerDocument{filepath.Join(o.out, one.Path), one.URL, one.MediaType, saserver.CacheControl, written})
	}
	return d.print(s, o.output, len(before) > 0)
}

func (o *saServeOptions) publication() saserver.Publication {
	return saserver.Publication{Issuer: o.tokens.issuers[0], JWKSURI: o.jwks}
}

// present returns what a file holds, nothing where there is none.
func present(root *os.Root, urlPath string) ([]byte, error) {
	name := strings.TrimPrefix(urlPath, "/")
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, withoutPath(err)
	case !info.Mode().IsRegular():
		return nil, errors.New("not a regular file: it is not replaced")
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close()
	const most = 1 << 20 // what is larger is none of our documents
	return io.ReadAll(io.LimitReader(f, most))
}

// replace writes a whole file, with the mode of the one before or 0644 under the
// umask, or leaves one that holds the same.
func replace(root *os.Root, urlPath string, data []byte) (written bool, err error) {
	name := strings.TrimPrefix(urlPath, "/")
	before, err := present(root, urlPath)
	if err != nil || bytes.Equal(before, data) {
		return false, err
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return false, withoutPath(err)
	}
	folder, err := root.OpenRoot(path.Dir(name)) // so that the temporary file is on the same file system
	if err != nil {
		return false, withoutPath(err)
	}
	defer folder.Close()
	err = renameio.WriteFile(path.Base(name), data, 0o644, renameio.WithRoot(folder))
	return err == nil, withoutPath(err)
}

// withoutPath is an error without the path in it, which is relative to a root.
func withoutPath(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}

// compare notes which keys are new, and which are gone.
func (d *issuerDocuments) compare(set *token.KeySet, before []byte) {
	gone := map[string]bool{}
	old, _ := token.ParseKeys(before) // what is no set of keys held none
	for _, k := range old {
		gone[k.ID] = true
	}
	for _, k := range set.All() {
		d.Keys = append(d.Keys, publishedKey{k.ID, k.Algorithm(), !gone[k.ID]})
		delete(gone, k.ID)
	}
	for _, k := range old {
		if gone[k.ID] {
			d.Removed = append(d.Removed, k.ID)
		}
	}
}

func (d *issuerDocuments) print(s streams, format string, again bool) error {
	fmt.Fprintf(s.err, "the web host must send each file with its Content-Type, and Cache-Control: %s\n", saserver.CacheControl)
	for _, k := range d.Keys {
		if again && k.New {
			fmt.Fprintf(s.err, "key %s is new: sign with it no sooner than %d s after the web host has it\n", k.ID, token.MaxAge)
		}
	}
	for _, id := range d.Removed {
		fmt.Fprintf(s.err, "key %s is not published any more: tokens that it signed will be refused\n", report.Plain(id))
	}
	if format != "table" {
		return report.Document(s.out, format, d)
	}
	var rows [][]string
	for _, one := range d.Documents {
		action := "unchanged"
		if one.Written {
			action = "written"
		}
		rows = append(rows, []string{one.Path, action, one.ContentType, one.URL})
	}
	return report.Table(s.out, []string{"FILE", "ACTION", "CONTENT-TYPE", "URL"}, rows)
}
