package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/internal/trust"
)

type trustAddOptions struct {
	trustChangeFlags
	separate bool
}

func newTrustAddCommand(s streams) *cobra.Command {
	var o trustAddOptions
	c := &cobra.Command{
		Use:   "add TARGET FILE...",
		Short: "Add authorities to a bundle",
		Long: `Add the authorities of PEM files to a bundle: at its end, each once, and nothing
else in it is touched. What is no authority, or has expired, is refused. The plan
says who reads the file and when the change is taken up, and is asked for; without
a terminal --yes is the answer.

The change is judged first on all nodes that are given, and refused where it breaks
something: kubeadm's --client-ca-file is pki/ca.crt, which kube-controller-manager
signs with too and wants to hold one certificate alone. --separate then gives the
flag a file of its own.

Give the roots of all control planes: all of them are changed, or none.

` + trustTargets,
		Example: `  # Let the clients of a management platform in, by a file of its own for them
  sudo kubepki trust add kube-apiserver/client-ca-file platform-ca.crt --separate

  # What would be done, on all nodes that kubepki init --out made
  kubepki trust add kube-apiserver/client-ca-file platform-ca.crt --root ./cluster --dry-run

  # An authority for a webhook's server
  kubepki trust add validatingwebhookconfiguration/policy next-ca.crt --yes`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), s, args[0], args[1:]) },
	}
	c.ValidArgsFunction = o.completeTargets(1)
	o.add(c.Flags(), "go on where something else writes the object, a first anchor takes the place of the machine's roots, or clients become front proxies")
	c.Flags().BoolVar(&o.separate, "separate", false, "give the flag a file of its own beside the one that others read too; the component starts anew once")
	return c
}

func (o *trustAddOptions) run(ctx context.Context, s streams, target string, files []string) error {
	at, err := o.time()
	if err == nil {
		err = o.checkOutput("table", "json", "yaml")
	}
	if err != nil {
		return err
	}
	var certificates []*x509.Certificate
	for _, name := range files {
		data, err := readInput(s, name)
		if err != nil {
			return err
		}
		found, err := bundle.ParseAnchors(data, at)
		if err != nil {
			return advise(fmt.Errorf("%s: %w", name, err), "give a PEM file of authorities' certificates alone: kubepki show %s tells what it holds", name)
		}
		certificates = append(certificates, found...)
	}
	source := o.source(s)
	source.makes = true
	bundles, err := source.find(ctx, target)
	if err != nil {
		return err
	}
	p := &trustPlan{}
	for _, b := range bundles {
		c, err := o.plan(b, certificates)
		if err != nil {
			return err
		}
		p.changes = append(p.changes, c)
	}
	if source.nodes != nil {
		for _, c := range p.changes {
			c.describe(source.nodes)
		}
		p.judge(source.nodes, clock(), at)
		o.refuse(p)
		p.cross(source.nodes)
	}
	p.consider()
	return o.trustChangeFlags.run(ctx, s, source, p, func(t *bundle.Text) (*bundle.Text, error) {
		after, _, err := t.Add(certificates...)
		return after, err
	}, at)
}

func (o *trustAddOptions) plan(b *trustBundle, certificates []*x509.Certificate) (*trustChange, error) {
	if err := b.editable(); err != nil {
		return nil, err
	}
	c := &trustChange{trustBundle: b}
	var err error
	if c.after, c.added, err = b.text.Add(certificates...); err != nil {
		return nil, fmt.Errorf("%s: %w", b.where(), err)
	}
	for _, a := range certificates {
		if b.text.Holds(a) && !slices.ContainsFunc(c.already, a.Equal) {
			c.already = append(c.already, a)
		}
	}
	for _, have := range b.text.Certificates() {
		if slices.ContainsFunc(c.added, func(a *x509.Certificate) bool { return bundle.Recertified(a, have) }) {
			c.again = append(c.again, have)
		}
	}
	if !o.separate {
		return c, nil
	}
	if !b.known() || b.object != nil {
		return nil, usagef("--separate is for a flag of a component: name it as kube-apiserver/client-ca-file")
	}
	if len(c.added) > 0 {
		c.separate, err = planSeparate(b, c.after)
	}
	return c, err
}

// refuse says what a change would break, and who else reads the file. What is added
// where it breaks something has no --force: there is a way that breaks nothing.
func (o *trustAddOptions) refuse(p *trustPlan) {
	if len(p.unsafe) == 0 {
		return
	}
	o.force = false
	var readers []string
	for _, c := range p.changes {
		for _, r := range c.readers {
			if name := r.Component + "/" + r.Name; !slices.Contains(readers, name) {
				readers = append(readers, name)
			}
		}
	}
	p.refuse("the file is read by " + strings.Join(readers, ", "))
	hint := "another target can take it, or another authority can be had: this change breaks what is said above, with --separate too"
	if !o.separate {
		hint = "--separate gives the flag a file of its own, which the others do not read"
	}
	p.hint = hint
}

// consider says what the new anchors may do, to each who will read them.
func (p *trustPlan) consider() {
	for _, c := range p.changes {
		if len(c.added) == 0 {
			continue
		}
		for _, r := range c.readers {
			if power := bundle.Power(r.Component, r.Name); power != "" {
				p.warn(r.Component + "/" + r.Name + ": " + power)
			}
		}
		if args := kubeadmExtraArgs[c.setting.Component]; c.separate != nil && args != "" {
			p.warn(fmt.Sprintf("kubeadm writes the manifest anew at an upgrade: set %s to %s in %s of its ClusterConfiguration too (kubectl -n kube-system edit configmap kubeadm-config)", c.setting.Name, c.separate.path, args))
		}
		if c.object == nil {
			continue
		}
		if c.field.Default {
			p.refuse(c.where() + " is empty: kube-apiserver trusts the roots of its machine there, and would trust the new anchors alone")
		}
		if c.field.Others != nil {
			p.warn(c.object.Absent().Error() + "; it is made")
		}
		p.foreign(c)
	}
}

// crossing are the two settings of kube-apiserver that must not share an authority:
// who is let in as a client by the one speaks for any user by the other.
var crossing = map[string]string{
	"client-ca-file":               "requestheader-client-ca-file",
	"requestheader-client-ca-file": "client-ca-file",
}

// cross refuses an anchor that makes clients front proxies, or front proxies clients.
func (p *trustPlan) cross(n *trustNodes) {
	for _, c := range p.changes {
		for _, r := range c.readers {
			for _, other := range n.Settings {
				if r.Component != "kube-apiserver" || other.Component != r.Component || other.Node != r.Node || other.Name != crossing[r.Name] {
					continue
				}
				var there []*x509.Certificate
				if m := n.Graph.Material(other.Anchors); m != nil {
					there = m.Certificates
				}
				if slices.ContainsFunc(c.readers, func(o bundle.Setting) bool { return o == other }) {
					there = slices.Concat(there, c.added) // one file for both
				}
				for _, a := range c.added {
					if slices.ContainsFunc(there, func(b *x509.Certificate) bool { return crosses(r.Name, a, b) }) {
						p.refuse(fmt.Sprintf("%s would be in --%s of kube-apiserver, and it or one that belongs to it in --%s: whoever is let in as a client by it may speak for any user", a.Subject, r.Name, other.Name))
					}
				}
			}
		}
	}
}

// crosses tells whether clients of an anchor that a setting gets, or of one that the
// other holds, are front proxies: they are of one authority, or clients' is below
// that of front proxies.
func crosses(setting string, added, other *x509.Certificate) bool {
	clients, proxies := added, other
	if setting != "client-ca-file" {
		clients, proxies = other, added
	}
	return trust.SameKey(clients.PublicKey, proxies.PublicKey) || clients.CheckSignatureFrom(proxies) == nil
}

// foreign refuses objects that others keep as they want them.
func (p *trustPlan) foreign(c *trustChange) {
	if w := c.object.Writer; w != "" {
		p.refuse(fmt.Sprintf("%s is written by %s which may take the change back: change it there", c.object.Ref, strings.TrimSuffix(w, ",")+","))
	}
}

var errNotThere = errors.New("none of the bundles holds it")
