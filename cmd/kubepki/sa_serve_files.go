package main

import (
	"context"
	"fmt"

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
	ID        string `json:"keyID"`
	Algorithm string `json:"algorithm"`
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
		return adviseURLs(err)
	}
	for _, w := range o.unreachable() {
		fmt.Fprintf(s.err, "kubepki: warning: %s\n", report.Plain(w))
	}
	folder, err := openWebFolder(o.out)
	if err != nil {
		return err
	}
	defer folder.close()
	issuer := o.tokens.issuers[0]
	if err := folder.isOf(discovery.Path, issuer); err != nil {
		return err
	}
	before, _, err := folder.read(keys.Path)
	if err != nil {
		return err
	}
	d := &issuerDocuments{APIVersion: report.APIVersion, Kind: "IssuerDocuments", Issuer: issuer, Documents: []issuerDocument{}, Removed: []string{}}
	d.compare(set, before)
	for _, one := range []saserver.Document{keys, discovery} {
		written, err := folder.write(one.Path, one.Data)
		if err != nil {
			return err
		}
		d.Documents = append(d.Documents, issuerDocument{folder.host(one.Path), one.URL, one.MediaType, saserver.CacheControl, written})
	}
	return d.print(s, o.output, len(before) > 0)
}

func (o *saServeOptions) publication() saserver.Publication {
	return saserver.Publication{Issuer: o.tokens.issuers[0], JWKSURI: o.jwks}
}

// adviseURLs is for documents that cannot have the URLs that they should.
func adviseURLs(err error) error {
	return advise(usagef("--issuer, --jwks-uri: %w", err), "others discover an issuer at an https URL: give the one of --service-account-issuer first, and --jwks-uri where the keys are elsewhere")
}

// unreachable warns of URLs of the documents that others cannot reach.
func (o *saServeOptions) unreachable() (warnings []string) {
	if host := saserver.InsideHost(o.tokens.issuers[0]); host != "" {
		warnings = append(warnings, "the issuer is at "+host+", which nobody outside reaches: others cannot discover it."+
			" Give kube-apiserver an https URL that they reach as its first --service-account-issuer, and here as --issuer (docs/sa-serve.md, The issuer)")
	}
	if host := saserver.InsideHost(o.jwks); host != "" {
		warnings = append(warnings, "--jwks-uri is at "+host+", which nobody outside reaches: give the URL at which others find the keys")
	}
	return warnings
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
