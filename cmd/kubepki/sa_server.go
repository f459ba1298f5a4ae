package main

import (
	"crypto"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/proof"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/token"
)

// saServer is what the flags of a kube-apiserver say about tokens.
type saServer struct {
	id, node string // of the component, and its node; "": the only one
	dir      string // that stands for the node's /, on this machine
	// unseen says why the flags are not those of the component but kubeadm's;
	// empty: they were read.
	unseen             string
	issuers, audiences []string // audiences: --api-audiences, none where they are the issuers

	verify      []saKey // keys that verify tokens, in order
	verifyError error   // why they are not known
	key         crypto.Signer
	keyPath     string // of the key that signs, on this machine
	keyError    error  // why it is not at hand
	ca          []byte // PEM, for pods; nil: not known
}

// readSAServers reads the API servers of the nodes whose / some folders are, or
// of those below a folder; there is one at least.
func readSAServers(roots []nodeRoot) ([]*saServer, *trust.Graph, error) {
	nodes, keys, err := readCluster(cluster{nodes: roots})
	if err != nil {
		return nil, nil, err
	}
	dirs := map[string]string{}
	var names []string
	for _, root := range roots {
		names = append(names, root.dir)
		for _, r := range expand(root) {
			dirs[r.name] = r.dir
		}
	}
	g := catalog.Wire(nodes)
	var all []*saServer
	for i := range nodes {
		for j := range nodes[i].Components {
			if c := &nodes[i].Components[j]; c.Name == catalog.APIServer {
				all = append(all, newSAServer(g, &nodes[i], c, keys, dirs[nodes[i].Name]))
			}
		}
	}
	if len(all) == 0 {
		return nil, nil, advise(fmt.Errorf("--root %s: no kube-apiserver runs there", strings.Join(names, ", ")), "name the / of a control plane, or the key with --key")
	}
	return all, g, nil
}

// newSAServer takes the flags by their meaning in kube-apiserver, whose issuers
// are a list and whose audiences are separated by commas.
func newSAServer(g *trust.Graph, n *trust.Node, c *trust.Component, keys proof.Keys, dir string) *saServer {
	a := &saServer{id: c.ID(), node: n.Name, dir: dir, issuers: c.Flags["service-account-issuer"]}
	if c.Source.IsZero() {
		a.unseen = unseenFlags(n)
	}
	// Commas, quotes and blanks mean what they do to kube-apiserver.
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	audiences := flags.StringSlice("api-audiences", nil, "")
	for _, list := range c.Flags["api-audiences"] {
		_ = flags.Set("api-audiences", list) // it does not start with what is an error here
	}
	a.audiences = slices.DeleteFunc(*audiences, func(audience string) bool { return audience == "" })
	a.takeSigningKey(g, c, keys)
	a.takeVerifyKeys(g, c)
	for _, c := range n.Components {
		if file, ok := c.Flag("root-ca-file"); ok && c.Name == catalog.ControllerManager {
			if m := g.Material(a.at(file)); m.OK() {
				a.ca = trust.EncodeCertificates(m.Certificates...)
			}
		}
	}
	return a
}

// unseenFlags says why the flags of a component were not read.
func unseenFlags(n *trust.Node) string {
	for _, s := range n.NotSeen {
		if strings.Contains(s.Place.Path, "manifests") || s.Denied {
			return s.Place.String() + ": " + s.Reason
		}
	}
	return "there is no manifest of it"
}

func (a *saServer) at(path string) trust.Place {
	return trust.Place{Node: a.node, Path: filepath.Clean(path)}
}

// host is where a file of the node stands on this machine: a link is followed
// below the folder that stands for /, as the node would.
func (a *saServer) host(m *trust.Material, path string) string {
	if m != nil && m.Target != "" && filepath.Clean(a.dir) != "/" {
		path = m.Target
	}
	return filepath.Join(a.dir, path)
}

func (a *saServer) takeSigningKey(g *trust.Graph, c *trust.Component, keys proof.Keys) {
	const flag = "service-account-signing-key-file"
	file, ok := c.Flag(flag)
	endpoint, external := c.Flag("service-account-signing-endpoint")
	switch {
	case external:
		a.keyError = fmt.Errorf("%s has its tokens signed by whoever listens at %s (--service-account-signing-endpoint)", a.id, endpoint)
		return
	case !ok:
		a.keyError = fmt.Errorf("%s has no --%s", a.id, flag)
		return
	}
	m := g.Material(a.at(file))
	a.keyPath = a.host(m, file)
	if a.key = keys[a.at(file)]; a.key == nil {
		a.keyError = fmt.Errorf("%s (--%s of %s): %s", a.keyPath, flag, a.id, unread(m))
	}
}

func (a *saServer) takeVerifyKeys(g *trust.Graph, c *trust.Component) {
	const flag = "service-account-key-file"
	files := c.Flags[flag]
	if endpoint, external := c.Flag("service-account-signing-endpoint"); external {
		a.verifyError = advise(fmt.Errorf("%s asks an external signer at %s for its keys: they are in none of its files", a.id, endpoint),
			"kubectl get --raw %s > jwks.json, then name that file with --key", token.JWKSPath)
		return
	}
	if len(files) == 0 {
		a.verifyError = fmt.Errorf("%s has no --%s", a.id, flag)
		return
	}
	for _, file := range files {
		m := g.Material(a.at(file))
		path := a.host(m, file)
		if !m.OK() {
			a.verify, a.verifyError = nil, advise(fmt.Errorf("%s (--%s of %s): %s", path, flag, a.id, unread(m)), "%s", unreadHint(m))
			return
		}
		for _, public := range publicKeys(m) {
			k, err := token.NewKey(public)
			if err != nil {
				a.verify, a.verifyError = nil, fmt.Errorf("%s (--%s of %s): %w", path, flag, a.id, err)
				return
			}
			a.verify = append(a.verify, saKey{k, a.at(file), path})
		}
	}
}

// publicKeys are the keys of a file as kube-apiserver reads it for tokens:
// certificates are keys too, also where another flag names the file for what they
// certify.
func publicKeys(m *trust.Material) []crypto.PublicKey {
	all := slices.Clone(m.Keys)
	for _, c := range m.Certificates {
		if !slices.ContainsFunc(all, func(k crypto.PublicKey) bool { return trust.SameKey(k, c.PublicKey) }) {
			all = append(all, c.PublicKey)
		}
	}
	return all
}

// unread says why there is nothing of a file.
func unread(m *trust.Material) string {
	switch {
	case m == nil || m.State == trust.NotGiven || m.State == trust.Missing:
		return "does not exist"
	case m.Reason != "":
		return m.Reason
	}
	return string(m.State)
}

func unreadHint(m *trust.Material) string {
	if m != nil && (m.State == trust.Denied || strings.Contains(m.Reason, "permission denied")) {
		return "run it with sudo"
	}
	return "name the keys with --key"
}

// warnUnseen says that the flags may be others.
func (a *saServer) warnUnseen(s streams) {
	if a.unseen != "" {
		fmt.Fprintf(s.err, "kubepki: warning: the flags of %s were not seen, and kubeadm's are taken in their place: %s\n", a.id, report.Plain(a.unseen))
	}
}

// issuer returns the issuers, or why they are not known.
func (a *saServer) knownIssuers() ([]string, error) {
	switch {
	case len(a.issuers) > 0:
		return a.issuers, nil
	case a.unseen != "":
		return nil, advise(fmt.Errorf("the flags of %s were not seen, so that its issuer is not known: %s", a.id, a.unseen), "name the issuer with --issuer (--service-account-issuer of kube-apiserver)")
	}
	return nil, advise(fmt.Errorf("%s has no --service-account-issuer", a.id), "name the issuer with --issuer")
}

func (a *saServer) signingKey() (crypto.Signer, error) {
	if a.key != nil {
		return a.key, nil
	}
	hint := "name the key with --key FILE or --key kms:NAME, or ask the cluster: leave --root out"
	if strings.Contains(a.keyError.Error(), "permission denied") {
		hint = "run it with sudo"
	}
	return nil, advise(a.keyError, "%s", hint)
}

// agrees tells whether two make tokens that are alike, with one key where that
// matters.
func (a *saServer) agrees(b *saServer, byKey bool) bool {
	same := a.key == nil && b.key == nil || a.key != nil && b.key != nil && trust.SameKey(a.key.Public(), b.key.Public())
	return (same || !byKey) && slices.Equal(a.issuers, b.issuers) && slices.Equal(a.audiences, b.audiences)
}

// verifies tells whether the API server knows a key, as far as that is known.
func (a *saServer) verifies(public crypto.PublicKey) bool {
	return len(a.verify) == 0 || slices.ContainsFunc(a.verify, func(k saKey) bool { return trust.SameKey(k.Public, public) })
}
