package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/bundle"
)

type trustRemoveOptions struct{ trustChangeFlags }

func newTrustRemoveCommand(s streams) *cobra.Command {
	var o trustRemoveOptions
	c := &cobra.Command{
		Use:   "remove TARGET FINGERPRINT|FILE...",
		Short: "Remove anchors from a bundle",
		Long: `Remove anchors from a bundle: those of a file, or those whose SHA-256 fingerprint
begins with at least 8 digits that name one alone. A file whose name looks like a
fingerprint is named with a slash, as ./deadbeef. A bundle is never left empty.

What a credential on the nodes needs is refused, and the link, the credential and
the node are named. Credentials that are elsewhere are not seen. Where nobody can
tell who needs an anchor, as in a ConfigMap or for a webhook's server, --force is
wanted.

` + trustTargets,
		Example: `  # The management platform is gone
  sudo kubepki trust remove kube-apiserver/client-ca-file platform-ca.crt

  # By the fingerprint that trust list shows, on all nodes
  kubepki trust remove kube-apiserver/client-ca-file 3f1a09bc22d7e418 --root ./cluster

  # The old authority of a webhook's server, which shows a new one already
  kubepki trust remove validatingwebhookconfiguration/policy old-ca.crt --force --yes`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), s, args[0], args[1:]) },
	}
	c.ValidArgsFunction = o.completeTargets(1)
	o.add(c.Flags(), "remove also what is needed, or what nobody can say of who needs it")
	return c
}

func (o *trustRemoveOptions) run(ctx context.Context, s streams, target string, names []string) error {
	at, err := o.time()
	if err == nil {
		err = o.checkOutput("table", "json", "yaml")
	}
	if err != nil {
		return err
	}
	source := o.source(s)
	bundles, err := source.find(ctx, target)
	if err != nil {
		return err
	}
	var all []*x509.Certificate
	for _, b := range bundles {
		all = append(all, b.text.Certificates()...)
	}
	gone, err := named(s, names, all, source.mended)
	if err != nil {
		return err
	}
	p := &trustPlan{}
	for _, b := range bundles {
		if err := b.editable(); err != nil {
			return err
		}
		c := &trustChange{trustBundle: b}
		if c.after, err = o.without(b.text, gone); err != nil {
			return fmt.Errorf("%s: %w", b.where(), err)
		}
		for _, g := range gone {
			if b.text.Holds(g) {
				c.removed = append(c.removed, g)
			}
		}
		p.changes = append(p.changes, c)
	}
	p.unknown(source.nodes)
	if source.nodes != nil {
		p.judge(source.nodes, clock(), at)
	}
	return o.trustChangeFlags.run(ctx, s, source, p, func(t *bundle.Text) (*bundle.Text, error) { return o.without(t, gone) }, at)
}

func (o *trustRemoveOptions) without(t *bundle.Text, gone []*x509.Certificate) (*bundle.Text, error) {
	after, n := t.Remove(gone...)
	if n > 0 && len(after.Anchors) == 0 {
		return nil, fmt.Errorf("would be left empty: whoever reads it would trust nobody, or the roots of its machine")
	}
	return after, nil
}

// named are the certificates that arguments name, of those that there are. Where an
// interrupted run was mended, one that is not there is what that run has removed.
func named(s streams, names []string, all []*x509.Certificate, mended bool) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for _, name := range names {
		if bundle.IsFingerprint(name) {
			c, err := bundle.Find(all, name)
			if err == nil && c == nil && mended {
				continue
			}
			if err == nil && c == nil {
				err = fmt.Errorf("%s: %w", name, errNotThere)
			}
			if err != nil {
				return nil, advise(err, "kubepki trust list shows the fingerprints")
			}
			out = append(out, c)
			continue
		}
		data, err := readInput(s, name)
		if err != nil {
			return nil, err
		}
		text, err := bundle.Parse(data)
		if err == nil && len(text.Anchors) == 0 {
			err = fmt.Errorf("holds no PEM block of type CERTIFICATE")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, c := range text.Certificates() {
			if !slices.ContainsFunc(all, c.Equal) && mended {
				continue
			}
			if !slices.ContainsFunc(all, c.Equal) {
				return nil, fmt.Errorf("%s, of %s: %w", c.Subject, name, errNotThere)
			}
			out = append(out, c)
		}
	}
	return out, nil
}

// unknown refuses to take away what nobody can say of who needs it, and describes the
// rest.
func (p *trustPlan) unknown(n *trustNodes) {
	for _, c := range p.changes {
		if n != nil {
			c.describe(n)
		}
		if len(c.removed) == 0 {
			continue
		}
		switch {
		case c.object != nil:
			p.foreign(c)
			p.refuse(c.where() + ": nobody can tell from here who still needs it")
		case !c.known():
			p.refuse(c.where() + ": no component of the nodes reads it, so that nobody can tell who needs it")
		case !slices.ContainsFunc(c.readers, func(r bundle.Setting) bool { return r.Seen(n.Graph) }):
			p.refuse(c.where() + ": no credential that it verifies was seen, so that nobody can tell who needs it: give the other nodes too")
		default:
			p.warn("credentials that are not on these nodes are not seen: whoever shows one of the removed authorities is refused from then on")
		}
		for _, r := range c.readers {
			if key, ok := publishedAs[r.Component+"/"+r.Name]; ok {
				p.warn(fmt.Sprintf("kube-apiserver leaves it in configmap/kube-system/extension-apiserver-authentication/%s, by which extension API servers let clients in: "+
					"once every kube-apiserver has taken the change up, remove it there too, with --force", key))
			}
		}
	}
}

// publishedAs are the settings whose anchors kube-apiserver adds to a ConfigMap and
// never takes away (k/k pkg/controlplane/controller/clusterauthenticationtrust).
var publishedAs = map[string]string{
	"kube-apiserver/client-ca-file":               "client-ca-file",
	"kube-apiserver/requestheader-client-ca-file": "requestheader-client-ca-file",
}
