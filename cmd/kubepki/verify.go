package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/probe"
	"github.com/kubepki/kubepki/internal/proof"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

type verifyOptions struct {
	roots    []string
	layout   string
	at       string
	output   string
	failOn   string
	expiring string
	live     liveFlags
	access   kube.Access
	// formats are what --output may be, and printer prints the one that it is.
	formats []string
	printer func(ctx context.Context, s streams, format string, several bool, failOn check.Severity) verdictPrinter
	// draws tells that the answer is a picture, whatever was found.
	draws bool
}

func newVerifyCommand(s streams) *cobra.Command {
	return newVerifyCommandOf(&verifyOptions{formats: outputs, printer: newVerdictPrinter}, s)
}

// newVerifyCommandOf keeps in o what the flags say.
func newVerifyCommandOf(o *verifyOptions, s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "verify [DIR...]",
		Short: "Prove every link of a cluster, from the very files and flags that its components use",
		Long: `Verify reads the folders of a cluster's nodes, pairs each caller with each
callee, and judges both halves of every link: the callee's certificate in the
eyes of the caller, and the caller's in the eyes of the callee. Where the keys
are at hand it proves the link by a true TLS handshake in memory.

--live then dials every server of the cluster from here, compares what it
presents with its file, and calls it with each credential that is at hand. It
changes nothing. Addresses of loopback are dialled on the live / alone.

--kubeconfig reads what the API itself holds of trust (ConfigMaps, caBundles,
token Secrets, certificate requests) and compares it with the nodes' files; with
no node given, it looks at the API alone. It asks for GET only.

--root names nodes of one cluster. An argument DIR is a cluster: the root of one
node, or a folder that holds one root per node, as kubepki init --out makes it.
Several DIRs are several clusters, and so is a distribution that brings all of
its own (k3s, MicroK8s, ...) on a node beside another.

-o html is a page with the picture of kubepki graph, -o sarif for code scanning,
-o junit for CI, -o prometheus for dashboards (docs/graph.md).

Exit codes: 0 healthy, 1 could not look, 2 wrong usage, 3 findings at or above
--fail-on.`,
		Example: `  # This node, as root
  sudo kubepki verify

  # Three nodes of one cluster, copied here, as they were on the first of May
  kubepki verify --root cp1=./cp1 --root cp2=./cp2 --root w1=./w1 --at 2026-05-01T00:00:00Z

  # What the running components truly do, from this node
  sudo kubepki verify --live

  # What the cluster itself holds, from a laptop
  kubepki verify --kubeconfig ~/.kube/config

  # For node_exporter's textfile collector
  kubepki verify -o prometheus > kubepki.prom

  # All that kubepki init --out made; the broken links alone, for a script
  kubepki verify ./cluster -o json | jq '.links[] | select(.ok | not)'`,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), s, args) },
	}
	f := c.Flags()
	f.StringArrayVar(&o.roots, "root", nil, "folder of a node that stands for its /, as [NAME=]DIR; repeatable (default /)")
	layoutFlag(f, &o.layout)
	f.StringVar(&o.at, "at", "", "judge as of this time (RFC 3339, or a date) instead of now")
	f.StringVarP(&o.output, "output", "o", "table", "output: "+orList(o.formats))
	f.StringVar(&o.failOn, "fail-on", "error", "exit with 3 on findings of this severity or worse: error, warning or info")
	f.StringVar(&o.expiring, "expiring", "", "warn of certificates that expire within this time, e.g. 30d (default 30d or a tenth of their life, whichever is shorter)")
	f.StringVar(&o.access.Kubeconfig, "kubeconfig", "", "kubeconfig of the cluster, whose objects are looked at too; without nodes they alone are")
	f.StringVar(&o.access.Context, "context", "", "context of the kubeconfig (default: the current one)")
	f.BoolVar(&o.live.on, "live", false, "look at the running components too")
	f.DurationVar(&o.live.timeout, "timeout", probe.DefaultTimeout, "with --live and --kubeconfig: how long to wait for each answer")
	return c
}

// cluster is what one verification looks at.
type cluster struct {
	name  string
	nodes []nodeRoot
	// layout, or else distribution, alone is read where it is not empty.
	layout, distribution string
	// processes is layout.Options.Processes.
	processes string
	api       *apiSource // nil: its API is not asked
}

type nodeRoot struct{ name, dir string }

func (o *verifyOptions) run(ctx context.Context, s streams, args []string) error {
	opts, failOn, err := o.parse()
	if err != nil {
		return err
	}
	live, err := o.live.options(s, o.at)
	if err != nil {
		return err
	}
	clusters, err := o.clusters(args)
	if err != nil {
		return err
	}
	if o.draws && o.output != "html" && len(clusters) > 1 {
		return severalPictures(len(clusters), o.output)
	}
	printer := o.printer(ctx, s, o.output, len(clusters) > 1, failOn)
	failed, printErr, errs := false, error(nil), []error(nil)
	inOrder(ctx, clusters, func(c cluster) verdict { return verify(ctx, c, opts, live) }, func(v verdict) {
		if v.err != nil {
			errs = append(errs, v.err)
			return
		}
		failed = failed || v.result.Any(failOn)
		printErr = cmp.Or(printErr, printer.print(&v))
	})
	if len(clusters) == 1 && len(errs) > 0 {
		return errs[0]
	}
	if err := cmp.Or(printErr, printer.close(), ctx.Err(), errors.Join(errs...)); err != nil {
		return err
	}
	if failed && !o.draws {
		return errFindings
	}
	return nil
}

func (o *verifyOptions) parse() (check.Options, check.Severity, error) {
	opts := check.Options{At: time.Now()}
	var err error
	if o.at != "" {
		if opts.At, err = parseTime(o.at); err != nil {
			return opts, "", usagef("--at: %w", err)
		}
	}
	if o.expiring != "" {
		if opts.Expiring, err = parseDays(o.expiring); err != nil {
			return opts, "", usagef("--expiring: %w", err)
		}
	}
	if !slices.Contains(o.formats, o.output) {
		return opts, "", usagef("--output: unknown format %q: use %s", o.output, orList(o.formats))
	}
	failOn := check.Severity(o.failOn)
	if !slices.Contains([]check.Severity{check.Error, check.Warning, check.Info}, failOn) {
		return opts, "", usagef("--fail-on: unknown severity %q: use error, warning or info", o.failOn)
	}
	return opts, failOn, nil
}

func parseTime(s string) (time.Time, error) {
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(form, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time: use 2026-05-01T00:00:00Z or 2026-05-01", s)
}

// parseDays reads a duration, in which d stands for days of 24 hours.
func parseDays(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if d, err := time.ParseDuration(days + "h"); err == nil && d >= 0 {
			return d * 24, nil
		}
	} else if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return d, nil
	}
	return 0, fmt.Errorf("%q is not a duration: use 30d or 720h", s)
}

// clusters tells what to verify: the nodes of --root are one cluster, each
// argument is one, and of several distributions below them each is one. The API
// of --kubeconfig belongs to the one cluster.
func (o *verifyOptions) clusters(args []string) ([]cluster, error) {
	only, err := parseLayout(o.layout)
	if err != nil {
		return nil, err
	}
	var all []cluster
	if len(o.roots) > 0 || len(args) == 0 {
		nodes, err := parseRoots(o.roots)
		if err != nil {
			return nil, err
		}
		all = append(all, cluster{nodes: nodes, layout: only})
	}
	for _, dir := range args {
		all = append(all, cluster{name: dir, nodes: []nodeRoot{{dir: dir}}, layout: only})
	}
	if len(all) == 1 {
		all[0].name = ""
	}
	var clusters []cluster
	for _, c := range all {
		clusters = append(clusters, c.apart()...)
	}
	return o.withAPI(clusters, len(args) > 0)
}

// parseRoots reads the values of --root; without any, the machine itself.
func parseRoots(values []string) ([]nodeRoot, error) {
	if len(values) == 0 {
		return []nodeRoot{{dir: "/"}}, nil
	}
	var roots []nodeRoot
	for _, v := range values {
		r := nodeRoot{dir: v}
		if name, dir, ok := strings.Cut(v, "="); ok && !strings.ContainsRune(name, '/') {
			r = nodeRoot{name: name, dir: dir}
		} else if len(values) > 1 {
			r.name = filepath.Base(filepath.Clean(v))
		}
		if r.dir == "" {
			return nil, usagef("--root %q names no folder: use NAME=DIR or DIR", v)
		}
		if slices.ContainsFunc(roots, func(o nodeRoot) bool { return o.name == r.name }) {
			return nil, usagef("--root: two nodes are called %q: use NAME=DIR", r.name)
		}
		roots = append(roots, r)
	}
	return roots, nil
}

// verdict is what came of one cluster.
type verdict struct {
	verification report.Verification
	graph        *trust.Graph
	result       *check.Result
	err          error
}

// verify judges one cluster; live tells how to look at its running components,
// nil: not at all.
func verify(ctx context.Context, c cluster, o check.Options, live *probe.Options) verdict {
	if live != nil {
		c.processes = "/proc"
	}
	nodes, keys, err := readCluster(c)
	if err != nil {
		return verdict{err: err}
	}
	if nodes, err = c.api.read(ctx, nodes, o.At); err != nil {
		return verdict{err: err}
	}
	g := catalog.Wire(nodes)
	if live != nil {
		observe(ctx, g, keys, *live, o.At)
	}
	r := check.Run(g, o)
	contradictions, err := proof.Prove(g, r.Links, keys, o.At)
	if err != nil {
		return verdict{err: err}
	}
	for _, x := range contradictions {
		r.Refused(x.Link, x.Side, x.Err)
	}
	v := report.NewVerification(g, r, o.At)
	v.Name = c.name
	return verdict{verification: v, graph: g, result: r}
}

// readCluster reads the nodes of a cluster, and their keys apart. Where several
// distributions are there and none is chosen, it is the first one's.
func readCluster(c cluster) ([]trust.Node, proof.Keys, error) {
	keys := proof.Keys{}
	var nodes []trust.Node
	var other *layout.UnknownError
	for _, root := range c.nodes {
		var failed error
		c.inOrder(expand(root), func(n nodeReading) {
			if failed != nil || errors.As(n.err, &other) && c.layout == "" && len(other.Found) > 0 {
				return // a node of another distribution
			}
			if failed = n.err; failed != nil {
				return
			}
			c.distribution = catalog.DistributionOf(n.node.Layout)
			maps.Copy(keys, n.keys)
			nodes = append(nodes, n.node)
		})
		if failed != nil {
			return nil, nil, failed
		}
		if users, ring, ok := layout.ReadUsers(root.dir); ok && !layout.IsRoot(root.dir) && c.distribution == catalog.DistributionOf(users.Layout) {
			maps.Copy(keys, ring)
			nodes = append(nodes, users)
		}
	}
	return nodes, keys, nil
}

// nodeReading is what came of reading one node.
type nodeReading struct {
	node trust.Node
	keys layout.Keyring
	err  error
}

func (c *cluster) read(r nodeRoot, distribution string) nodeReading {
	node, ring, err := layout.Read(r.dir, layout.Options{Name: r.name, Layout: c.layout, Distribution: distribution, Processes: c.processes})
	return nodeReading{node, ring, err}
}

// inOrder reads nodes on all cores, and takes them one by one, which may settle the
// distribution: a node that was read for another one is read again.
func (c *cluster) inOrder(roots []nodeRoot, take func(nodeReading)) {
	take(c.read(roots[0], c.distribution))
	supposed, next := c.distribution, 1
	inOrder(context.Background(), roots[1:], func(r nodeRoot) nodeReading { return c.read(r, supposed) }, func(n nodeReading) {
		if c.distribution != supposed {
			n = c.read(roots[next], c.distribution)
		}
		next++
		take(n)
	})
}

// expand returns the root itself or, where it is no node's, the node roots in it.
func expand(root nodeRoot) []nodeRoot {
	if layout.IsRoot(root.dir) {
		return []nodeRoot{root}
	}
	names, err := layout.NodeRoots(root.dir, catalog.AuthoritiesDir, catalog.UsersDir)
	if err != nil || len(names) == 0 {
		// Reading the folder itself says best what is wrong with it.
		return []nodeRoot{root}
	}
	var found []nodeRoot
	for _, n := range names {
		found = append(found, nodeRoot{name: n, dir: filepath.Join(root.dir, n)})
	}
	return found
}

// inOrder does the work on all cores and hands on the results in the order of
// the items, holding no more than a few at a time.
func inOrder[T, R any](ctx context.Context, items []T, work func(T) R, each func(R)) {
	workers := runtime.GOMAXPROCS(0)
	pending := make(chan chan R, workers)
	go func() {
		defer close(pending)
		slots := make(chan struct{}, workers)
		for _, item := range items {
			if ctx.Err() != nil {
				return
			}
			result := make(chan R, 1)
			slots <- struct{}{}
			go func() {
				defer func() { <-slots }()
				result <- work(item)
			}()
			pending <- result
		}
	}()
	for result := range pending {
		each(<-result)
	}
}
