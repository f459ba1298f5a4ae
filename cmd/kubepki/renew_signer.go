package main

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/issue"
	signers "github.com/kubepki/kubepki/internal/signer" // package main has a signer of its own
	"github.com/kubepki/kubepki/internal/trust"
)

// caKeyFlags name keys of authorities that do not stand where the nodes keep theirs.
type caKeyFlags struct {
	keys   []string
	socket string
}

func (o *caKeyFlags) add(f *pflag.FlagSet) {
	f.StringArrayVar(&o.keys, "ca-key", nil, "key of an authority that is not on the nodes, as AUTHORITY=kms:NAME for one that kubepki-kms holds, or AUTHORITY=FILE; repeatable")
	f.StringVar(&o.socket, "kms-socket", "/run/kubepki/kms.sock", "unix socket of kubepki-kms")
}

// use puts the keys where those of the authorities would have been read. A key counts
// for each node's authority of its name whose certificate it belongs to, and must
// belong to one.
func (o *caKeyFlags) use(n *trustNodes) error {
	for _, given := range o.keys {
		name, source, ok := strings.Cut(given, "=")
		if !ok || name == "" || source == "" {
			return usagef("--ca-key %q is not AUTHORITY=kms:NAME or AUTHORITY=FILE, such as ca=kms:cluster-ca", given)
		}
		of := authoritiesNamed(n.Graph, name)
		if len(of) == 0 {
			return usagef("--ca-key %s: no authority of this name is known here: use one of %s", name, strings.Join(knownAuthorities(n.Graph), ", "))
		}
		key, err := o.open(source)
		if err != nil {
			return fmt.Errorf("--ca-key %s: %w", name, err)
		}
		fits := 0
		for _, a := range of {
			if m := n.Graph.Material(a.Certificate); m.OK() && slices.ContainsFunc(m.Certificates, func(c *x509.Certificate) bool { return trust.SameKey(c.PublicKey, key.Public()) }) {
				n.Keys[a.Key] = key
				fits++
			}
		}
		if fits == 0 {
			return advise(fmt.Errorf("--ca-key %s: %s does not belong to %s: what it signs nobody verifies", name, source, of[0].Certificate), "compare them: kubepki show %s", of[0].Certificate.Path)
		}
	}
	return nil
}

func (o *caKeyFlags) open(source string) (crypto.Signer, error) {
	if name, ok := strings.CutPrefix(source, "kms:"); ok {
		return signers.Key(o.socket, name)
	}
	data, err := readInput(streams{}, source)
	if err != nil {
		return nil, err
	}
	key, err := issue.ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return key, nil
}

// authoritiesNamed are those of a name on all nodes, or of NODE/NAME.
func authoritiesNamed(g *trust.Graph, name string) []trust.Authority {
	var all []trust.Authority
	for _, a := range g.Authorities {
		if a.Name == name || a.Node != "" && a.Node+"/"+a.Name == name {
			all = append(all, a)
		}
	}
	return all
}

func knownAuthorities(g *trust.Graph) []string {
	var all []string
	for _, a := range g.Authorities {
		if !slices.Contains(all, a.Name) {
			all = append(all, a.Name)
		}
	}
	return all
}
