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

	"github.com/kubepki/kubepki/internal/catalog"
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
func (f *saKeyFlags) given() bool { return len(f.keys)+len(f.roots) > 0 }

// saKeys are keys that verify tokens, and what is known of who makes these.
type saKeys struct {
	keys                  []saKey
	issuers, apiAudiences []string
	graph                 *trust.Graph // of the cluster that they were read from; nil: of none
}

// saKey is a key, and where it was found: a file of a node, or what --key names.
type saKey struct {
	token.Key
	from trust.Place
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
func (k *saKeys) file(id string) string {
	for _, one := range k.keys {
		if one.ID == id {
			return one.from.String()
		}
	}
	return ""
}

// read returns the keys of --key and --root; without either, those of this
// machine.
func (f *saKeyFlags) read(ctx context.Context, s streams) (*saKeys, error) {
	all := &saKeys{}
	for _, from := range f.keys {
		keys, err := f.readKeys(ctx, s, from)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			all.keys = append(all.keys, saKey{k, trust.Place{Path: from}})
		}
	}
	if len(f.roots) == 0 && len(f.keys) > 0 {
		return all, nil
	}
	nodes, err := parseRoots(f.roots)
	if err != nil {
		return nil, err
	}
	return all, all.readCluster(cluster{nodes: nodes})
}

// readKeys reads what one --key names.
func (f *saKeyFlags) readKeys(ctx context.Context, s streams, from string) ([]token.Key, error) {
	client, err := f.client(s)
	if err != nil {
		return nil, err
	}
	var data []byte
	switch {
	case from == "" || from == "-":
		return nil, usagef("--key names a file or an https URL")
	case strings.Contains(from, "://"):
		data, err = tokenhttp.Fetch(ctx, client, from)
	default:
		data, err = readInput(s, from)
	}
	if err != nil {
		return nil, fmt.Errorf("--key: %w", err)
	}
	d, err := token.ParseDiscovery(data)
	switch {
	case err == nil:
		if strings.Contains(from, "://") && from != token.DiscoveryURL(d.Issuer) {
			return nil, fmt.Errorf("--key %s: it is of the issuer %s, whose place is %s: somebody else's keys would be trusted", from, d.Issuer, token.DiscoveryURL(d.Issuer))
		}
		from = d.JWKSURI
		if data, err = tokenhttp.Fetch(ctx, client, from); err != nil {
			return nil, fmt.Errorf("--key: jwks_uri: %w", err)
		}
	case !errors.Is(err, token.ErrNotDiscovery):
		return nil, fmt.Errorf("--key %s: %w", from, err)
	}
	keys, err := token.ParseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("--key %s: %w", from, err)
	}
	return keys, nil
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

// readCluster adds what the API servers of a cluster verify tokens with.
func (k *saKeys) readCluster(c cluster) error {
	nodes, _, err := readCluster(c)
	if err != nil {
		return advise(err, "name a control plane's / with --root, or keys with --key")
	}
	k.graph = catalog.Wire(nodes)
	servers := 0
	for i := range nodes {
		n := &nodes[i]
		for j := range n.Components {
			if p := &n.Components[j]; p.Name == catalog.APIServer {
				servers++
				if err := k.readServer(n, p); err != nil {
					return err
				}
			}
		}
	}
	if servers == 0 {
		return advise(fmt.Errorf("there is no kube-apiserver%s, so that its keys are not known", whereFrom(c)),
			"run it on a control plane as root, name its / with --root, or the keys with --key")
	}
	return nil
}

func whereFrom(c cluster) string {
	var dirs []string
	for _, n := range c.nodes {
		dirs = append(dirs, n.dir)
	}
	return " below " + strings.Join(dirs, ", ")
}

func (k *saKeys) readServer(n *trust.Node, p *trust.Component) error {
	if endpoint, ok := p.Flag("service-account-signing-endpoint"); ok {
		return advise(fmt.Errorf("%s asks an external signer at %s for its keys: they are in none of its files", p.ID(), endpoint),
			"kubectl get --raw %s > jwks.json, then name that file with --key", token.JWKSPath)
	}
	for _, path := range p.Flags["service-account-key-file"] {
		at := trust.Place{Node: n.Name, Path: path}
		m := k.graph.Material(at)
		if !m.OK() {
			return advise(fmt.Errorf("%s, which verifies tokens: %s", at, unread(m)), "run it as root, or name the keys with --key")
		}
		for _, public := range m.Keys {
			key, err := token.NewKey(public)
			if err != nil {
				return fmt.Errorf("%s: %w", at, err)
			}
			k.keys = append(k.keys, saKey{key, at})
		}
	}
	k.issuers = appendNew(k.issuers, p.Flags["service-account-issuer"])
	for _, list := range p.Flags["api-audiences"] {
		k.apiAudiences = appendNew(k.apiAudiences, strings.Split(list, ","))
	}
	return nil
}

func unread(m *trust.Material) string {
	if m == nil {
		return "was not read"
	}
	return string(m.State) + strings.TrimRight(": "+m.Reason, ": ")
}

func appendNew(all, more []string) []string {
	for _, one := range more {
		if !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	return all
}
