package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/catalog"
	content "github.com/kubepki/kubepki/internal/inspect"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/probe"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

type showOptions struct {
	roots  []string
	layout string
	at     string
	output string
	pem    bool

	serverName string
	timeout    time.Duration

	expiry expiryFlags
}

func newShowCommand(s streams) *cobra.Command {
	var o showOptions
	c := &cobra.Command{
		Use:   "show [DIR|FILE|HOST:PORT...]",
		Short: "Show the credentials of a cluster, what a file holds, or what a server presents",
		Long: `Show prints the tree of a cluster's authorities, the credentials that each
signed, and who uses them.

--root names nodes of one cluster; an argument DIR is a cluster: the root of one
node, or a folder that holds one root per node, as kubepki init --out makes it.
Expired certificates are shown as such and are no failure: kubepki verify judges.

A FILE (- is standard input) is described by its content: PEM and DER
certificates, requests and keys, kubeconfigs, Secrets and other manifests with
certificates or tokens in them, static pods, service-account tokens. Private
keys and tokens are never printed, nor are signatures verified.

HOST:PORT (an IPv6 address stands in brackets), where no file has that name, is
a server: what it presents, how it speaks TLS, and whom it names as authorities
of its clients. Nothing of it is verified, and nothing is sent.

--expiry draws all of them as one timeline, what ends first on top; -o ics makes
a calendar of it. With --expiring 30d only what ends within that time, or has
ended, is shown, and --fail-on warning makes the exit code 3 when there is any
(docs/expiry.md).

Exit codes: 0 shown, 1 could not look at all of it, 2 wrong usage, 3 findings at
or above --fail-on.`,
		Example: `  # This node, as root
  sudo kubepki show

  # All that kubepki init --out made, one row per certificate
  kubepki show ./cluster -o table

  # What does this file hold?
  kubepki show admin.conf

  # What does this server present, and of whom does it want a certificate?
  kubepki show 10.0.0.11:2379

  # What ends first, as bars; and, for cron and CI, only what ends within 30 days
  sudo kubepki show --expiry
  kubepki show ./cluster --expiring 30d --fail-on warning

  # The certificates in it, for openssl
  kubepki show admin.conf --pem | openssl x509 -noout -text

  # A token or certificate of the cluster
  kubectl get secret -n kube-system kube-proxy-token -o yaml | kubepki show -`,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), s, args) },
	}
	f := c.Flags()
	f.StringArrayVar(&o.roots, "root", nil, "folder of a node that stands for its /, as [NAME=]DIR; repeatable (default /)")
	layoutFlag(f, &o.layout)
	f.StringVar(&o.at, "at", "", "tell what is left at this time (RFC 3339, or a date) instead of now")
	f.StringVarP(&o.output, "output", "o", "", "output: tree (default), table, wide, json, yaml or name, with --expiry ics too; of files: text (default), json or yaml; of servers: text (default), table, wide, json or yaml")
	f.BoolVar(&o.pem, "pem", false, "print the certificates alone, as PEM")
	f.StringVar(&o.serverName, "server-name", "", "of HOST:PORT: the name to ask for (SNI) instead of the host")
	f.DurationVar(&o.timeout, "timeout", probe.DefaultTimeout, "of HOST:PORT: how long to wait for it")
	o.expiry.add(f)
	c.AddCommand(newShowFlagsCommand(s))
	return c
}

func (o *showOptions) run(ctx context.Context, s streams, args []string) error {
	at := time.Now()
	if o.at != "" {
		var err error
		if at, err = parseTime(o.at); err != nil {
			return usagef("--at: %w", err)
		}
	}
	if err := o.check(args); err != nil {
		return err
	}
	if o.expiry.wanted(o.output) {
		return o.runExpiry(ctx, s, args, at)
	}
	only, err := parseLayout(o.layout)
	if err != nil {
		return err
	}
	var all []shown
	var errs []error
	add := func(one shown, err error) {
		if err != nil {
			errs = append(errs, err)
		}
		if one.value != nil {
			all = append(all, one)
		}
	}
	if len(o.roots) > 0 || len(args) == 0 {
		nodes, err := parseRoots(o.roots)
		if err != nil {
			return err
		}
		for _, c := range (cluster{nodes: nodes, layout: only}).apart() {
			add(showCluster(s, c, at))
		}
	}
	for _, arg := range args {
		if address, ok := serverAddress(arg); ok {
			add(o.showServer(ctx, address, at))
		} else if isFolder(arg) {
			for _, c := range (cluster{name: arg, nodes: []nodeRoot{{dir: arg}}, layout: only}).apart() {
				add(showCluster(s, c, at))
			}
		} else {
			add(o.showFile(s, arg, at))
		}
	}
	return errors.Join(o.print(s, all), errors.Join(errs...))
}

func (o *showOptions) check(args []string) error {
	if o.expiry.wanted(o.output) {
		return o.checkExpiry(args)
	}
	if !slices.Contains([]string{"", "tree", "text", "table", "wide", "json", "yaml", "name"}, o.output) {
		return usagef("--output: unknown format %q: use tree, table, wide, json, yaml or name", o.output)
	}
	if o.pem && o.output != "" {
		return usagef("--pem and --output contradict each other: give one of them")
	}
	if o.output == "name" && slices.ContainsFunc(args, isServer) {
		return usagef("--output: name is not for servers: use text, table, wide, json or yaml")
	}
	return o.checkServer(args)
}

func isServer(arg string) bool { _, ok := serverAddress(arg); return ok }

func (o *showOptions) checkServer(args []string) error {
	if o.serverName != "" && !slices.ContainsFunc(args, isServer) {
		return usagef("--server-name is for a server: name it as HOST:PORT")
	}
	if o.timeout <= 0 {
		return usagef("--timeout: %s is no time to wait: use 5s", o.timeout)
	}
	return nil
}

// shown is one thing to print: a *report.Inventory, *report.File or
// *report.Server.
type shown struct {
	value        any
	certificates []byte // PEM
}

func showCluster(s streams, c cluster, at time.Time) (shown, error) {
	g, err := readShown(c)
	if err != nil {
		return shown{}, err
	}
	v := report.NewInventory(g, at)
	v.Name = c.name
	for _, n := range v.NotSeen {
		if n.Denied {
			fmt.Fprintf(s.err, "kubepki: warning: %s: %s\n", report.Plain(n.Path), report.Plain(n.Reason))
		}
	}
	return shown{value: v, certificates: trust.EncodeCertificates(v.Certificates()...)}, nil
}

// readShown reads a cluster, and the authorities beside its nodes.
func readShown(c cluster) (*trust.Graph, error) {
	nodes, _, err := readCluster(c)
	if err != nil {
		var unknown *layout.UnknownError
		if errors.As(err, &unknown) {
			err = advise(err, "to see single files, name them: kubepki show %s", filepath.Join(unknown.Root, "*"))
		}
		return nil, err
	}
	g := catalog.Wire(nodes)
	for _, r := range c.nodes {
		addAuthorities(g, r.dir)
	}
	return g, nil
}

func (o *showOptions) showFile(s streams, name string, at time.Time) (shown, error) {
	data, err := readInput(s, name)
	if err != nil && strings.Contains(name, ":") && !exists(name) {
		err = advise(err, "a server is named HOST:PORT, an IPv6 address in brackets: [ADDRESS]:PORT")
	}
	if err != nil {
		return shown{}, err
	}
	d, err := content.Describe(data)
	if err != nil {
		return shown{}, fmt.Errorf("%s: %w", name, err)
	}
	one := shown{value: report.NewFile(name, d, at), certificates: trust.EncodeCertificates(d.Certificates()...)}
	var errs []error
	if o.pem && len(one.certificates) == 0 {
		errs = append(errs, fmt.Errorf("%s: holds no certificate", name))
	}
	for _, p := range d.Problems() {
		errs = append(errs, fmt.Errorf("%s: %s", name, report.Plain(p)))
	}
	return one, errors.Join(errs...)
}

func (o *showOptions) print(s streams, all []shown) error {
	if o.pem {
		for _, one := range all {
			if _, err := s.out.Write(one.certificates); err != nil {
				return err
			}
		}
		return nil
	}
	if o.output == "json" || o.output == "yaml" {
		return printDocuments(s, o.output, all)
	}
	for i, one := range all {
		if i > 0 {
			fmt.Fprintln(s.out)
		}
		if err := o.printText(s, one, len(all) > 1); err != nil {
			return err
		}
	}
	return nil
}

func printDocuments(s streams, format string, all []shown) error {
	if len(all) == 0 {
		return nil
	}
	if len(all) == 1 {
		if v, ok := all[0].value.(*report.Inventory); ok {
			v.Name = ""
		}
		return report.Document(s.out, format, all[0].value)
	}
	var items []any
	for _, one := range all {
		items = append(items, one.value)
	}
	return report.Document(s.out, format, report.NewList(items))
}

func (o *showOptions) printText(s streams, one shown, several bool) error {
	palette := report.Palette{On: isTerminal(s.out)}
	switch value := one.value.(type) {
	case *report.File:
		return value.Text(s.out, palette)
	case *report.Server:
		if o.output == "table" || o.output == "wide" {
			return value.Rows(s.out, o.output == "wide", palette)
		}
		return value.Text(s.out, palette)
	}
	v := one.value.(*report.Inventory)
	if !several {
		v.Name = ""
	}
	switch o.output {
	case "table", "wide":
		return v.Rows(s.out, o.output == "wide", palette)
	case "name":
		return v.Names(s.out)
	}
	return v.Tree(s.out, palette)
}
