package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/token"
	"github.com/kubepki/kubepki/token/tokenhttp"
)

// saKeyFlags say which keys verify tokens.
type saKeyFlags struct {
	keys, roots []string
	ca          string
}

func (f *saKeyFlags) add(flags *pflag.FlagSet, otherwise string) {
	flags.StringArrayVar(&f.keys, "key", nil, "what verifies: a file of keys (PEM of public keys, private keys or certificates, or a JWKS), the https URL of a JWKS, or an issuer's discovery document as a file or https URL; repeatable")
	flags.StringArrayVar(&f.roots, "root", nil, "folder of a control plane that stands for its /, as [NAME=]DIR, whose kube-apiserver tells keys, issuers and audiences; repeatable"+otherwise)
	flags.StringVar(&f.ca, "certificate-authority", "", "file of the authorities that URLs are trusted by (default: those of the system)")
}

// given tells whether any keys were asked for.
func (f *saKeyFlags) given() bool { return len(f.keys)+len(f.roots) > 0 || f.ca != "" }

// saKeys are keys that verify tokens, and what is known of who makes these.
type saKeys struct {
	keys       []saKey
	servers    []*saServer   // that were read; none where keys alone were given
	discovered []*discovered // discovery documents that --key names
	graph      *trust.Graph  // of the servers' cluster; nil: of none
}

// discovered is what a discovery document says: the keys that it leads to are its
// issuer's.
type discovered struct {
	from, issuer string
	elsewhere    bool // it is a URL, and not that of its issuer
}

// saKey is a key, and where it was found: a file of a node, or what --key names.
type saKey struct {
	token.Key
	from trust.Place
	path string // on this machine; empty for a URL
}

// set returns the keys as they verify.
func (k *saKeys) set() (*token.KeySet, error) {
	var all []token.Key
	for _, one := range k.keys {
		all = append(all, one.Key)
	}
	return token.NewKeySet(all...)
}

// file returns where a key was found.
func (k *saKeys) file(key token.Key) string {
	for _, one := range k.keys {
		if one.ID == key.ID && trust.SameKey(one.Public, key.Public) {
			return one.from.String()
		}
	}
	return ""
}

// read returns the keys of --key or, where none is given, those of the API
// servers below --root, by default of this machine. Issuers and audiences are
// those of --root, if that is given, whatever --key says.
func (f *saKeyFlags) read(ctx context.Context, s streams) (*saKeys, error) {
	all := &saKeys{}
	if f.ca != "" && len(f.keys) == 0 {
		return nil, usagef("--certificate-authority is for the URLs that --key names or leads to, and there is no --key")
	}
	for _, from := range f.keys {
		if err := f.readKeys(ctx, s, from, all); err != nil {
			return nil, err
		}
	}
	for _, d := range all.discovered {
		if first := all.discovered[0]; d.issuer != first.issuer {
			return nil, advise(usagef("--key names the discovery documents of %s and %s: each issuer's keys would be good for the other's tokens", first.issuer, d.issuer), "take one issuer at a time")
		}
	}
	if len(f.roots) == 0 && len(f.keys) > 0 {
		return all, nil
	}
	roots, err := parseRoots(f.roots)
	if err != nil {
		return nil, err
	}
	if all.servers, all.graph, err = readSAServers(roots); err != nil {
		return nil, err
	}
	for _, a := range all.servers {
		if len(f.keys) > 0 {
			continue
		}
		if a.verifyError != nil {
			return nil, a.verifyError
		}
		all.keys = append(all.keys, a.verify...)
	}
	return all, nil
}

// warnUnseen says which flags may be others than was thought.
func (k *saKeys) warnUnseen(s streams) {
	for _, a := range k.servers {
		a.warnUnseen(s)
	}
}

// verifyBy completes what flags say of issuers and audiences: the issuers of the
// API servers, or those whose discovery documents were named; and the API
// servers' audiences, where they are not the issuers.
func (k *saKeys) verifyBy(c *token.Config) error {
	for _, d := range k.discovered {
		switch {
		case len(c.Issuers) > 0 && !slices.Contains(c.Issuers, d.issuer):
			return usagef("--key %s is the discovery document of %s, which is no --issuer: its keys are for its own tokens", d.from, d.issuer)
		case len(c.Issuers) == 0 && d.elsewhere:
			return advise(usagef("--key %s is the discovery document of %s, whose own place is %s", d.from, d.issuer, token.DiscoveryURL(d.issuer)),
				"if you trust that document all the same, name its issuer with --issuer")
		}
	}
	if len(c.Issuers) == 0 {
		for _, d := range k.discovered {
			c.Issuers = appendNew(c.Issuers, []string{d.issuer})
		}
		for _, a := range k.servers {
			issuers, err := a.knownIssuers()
			if err != nil {
				return err
			}
			c.Issuers = appendNew(slices.Clone(c.Issuers), issuers)
		}
	}
	if len(c.APIAudiences) == 0 {
		for _, a := range k.servers {
			c.APIAudiences = appendNew(c.APIAudiences, a.audiences)
		}
	}
	return nil
}

// readKeys reads what one --key names.
func (f *saKeyFlags) readKeys(ctx context.Context, s streams, from string, into *saKeys) error {
	if from == "" || from == "-" {
		return usagef("--key names a file or an https URL")
	}
	if err := noToken([]string{from}); err != nil {
		return err
	}
	client, err := f.client(s)
	if err != nil {
		return err
	}
	data, err := f.fetch(ctx, s, client, from)
	if err != nil {
		return err
	}
	path := from
	if isURL(from) {
		path = ""
	}
	d, err := token.ParseDiscovery(data)
	switch {
	case err == nil:
		into.discovered = append(into.discovered, &discovered{from, d.Issuer, isURL(from) && from != token.DiscoveryURL(d.Issuer)})
		from, path = d.JWKSURI, ""
		if data, err = f.fetch(ctx, s, client, from); err != nil {
			return err
		}
	case !errors.Is(err, token.ErrNotDiscovery):
		return fmt.Errorf("--key %s: %w", from, err)
	}
	keys, err := token.ParseKeys(data)
	if err != nil {
		return fmt.Errorf("--key %s: %w", from, err)
	}
	for _, k := range keys {
		into.keys = append(into.keys, saKey{k, trust.Place{Path: from}, path})
	}
	return nil
}

func isURL(text string) bool { return strings.Contains(text, "://") }

func (f *saKeyFlags) fetch(ctx context.Context, s streams, client *http.Client, from string) (data []byte, err error) {
	if isURL(from) {
		data, err = tokenhttp.Fetch(ctx, client, from)
	} else {
		data, err = readInput(s, from)
	}
	if err != nil {
		return nil, fmt.Errorf("--key: %w", err)
	}
	return data, nil
}

// client returns who fetches URLs: nil without --certificate-authority.
func (f *saKeyFlags) client(s streams) (*http.Client, error) {
	if f.ca == "" {
		return nil, nil
	}
	data, err := readAnchors(s, f.ca)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(data)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig.RootCAs = pool
	return &http.Client{Transport: transport}, nil
}

func appendNew(all, more []string) []string {
	for _, one := range more {
		if !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	return all
}
