package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/kubepki/kubepki/internal/check"
	content "github.com/kubepki/kubepki/internal/inspect"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// expiryFlags are those of show --expiry.
type expiryFlags struct {
	on, all          bool
	expiring, failOn string
	access           kube.Access
}

func (f *expiryFlags) add(flags *pflag.FlagSet) {
	flags.BoolVar(&f.on, "expiry", false, "draw when each credential ends, as a timeline")
	flags.StringVar(&f.expiring, "expiring", "", "show only what ends within this time, e.g. 30d, or has ended; it is a warning then (default: all, a warning 30d or a tenth of the life before the end)")
	flags.StringVar(&f.failOn, "fail-on", "", "exit with 3 when a credential has a finding of this severity or worse: error (ended, or not readable), warning (ends soon) or info (default: never)")
	flags.BoolVar(&f.all, "all", false, "with --expiry: a line for each credential, where those that are alike on several nodes share one otherwise")
	flags.StringVar(&f.access.Kubeconfig, "kubeconfig", "", "with --expiry: kubeconfig of a cluster, whose TLS Secrets, tokens and bundles are shown too; without nodes they alone are")
	flags.StringVar(&f.access.Context, "context", "", "context of the kubeconfig (default: the current one)")
}

// wanted tells whether a timeline is asked for: by its own flag, or by what makes
// sense for nothing else.
func (f *expiryFlags) wanted(output string) bool {
	return f.on || f.all || f.expiring != "" || f.failOn != "" || f.access.Kubeconfig != "" || output == "ics"
}

var expiryOutputs = []string{"", "text", "table", "wide", "json", "yaml", "name", "ics"}

func (o *showOptions) checkExpiry(args []string) error {
	switch {
	case o.pem:
		return usagef("--pem prints certificates, not when they end: leave --expiry out")
	case !slices.Contains(expiryOutputs, o.output):
		return usagef("--output: unknown format %q of a timeline: use %s", o.output, orList(expiryOutputs[2:]))
	case !slices.Contains([]check.Severity{"", check.Error, check.Warning, check.Info}, check.Severity(o.expiry.failOn)):
		return usagef("--fail-on: unknown severity %q: use error, warning or info", o.expiry.failOn)
	case o.expiry.access.Kubeconfig == "" && o.expiry.access.Context != "":
		return usagef("--context: name the kubeconfig too, with --kubeconfig")
	}
	return o.checkServer(args)
}

// runExpiry shows all that is named in one timeline. What cannot be read does not
// keep the rest from being shown, and makes the exit code 1: nobody may take the
// answer for the whole one.
func (o *showOptions) runExpiry(ctx context.Context, s streams, args []string, at time.Time) error {
	window, err := o.expiry.window()
	if err != nil {
		return err
	}
	t := report.NewTimeline(at, window)
	errs := o.gather(ctx, s, t, args)
	if err := errors.Join(errs...); errors.As(err, new(usageError)) {
		return err
	}
	t.Sort()
	if window > 0 {
		t.OnlyDue()
	}
	if err := errors.Join(errs...); err != nil && o.output == "ics" {
		return err // a calendar of a part would take the other events from whoever subscribes to it
	}
	if err := errors.Join(append(errs, o.printExpiry(s, t))...); err != nil {
		return err
	}
	if o.expiry.failOn != "" && t.Any(check.Severity(o.expiry.failOn)) {
		return errFindings
	}
	return nil
}

func (f *expiryFlags) window() (time.Duration, error) {
	if f.expiring == "" {
		return 0, nil
	}
	window, err := parseDays(f.expiring)
	switch {
	case err != nil:
		return 0, usagef("--expiring: %w", err)
	case window == 0:
		return 0, usagef("--expiring %s is no time: use 30d", f.expiring)
	}
	return window, nil
}

// gather adds what the arguments name: clusters, files, servers, an API.
func (o *showOptions) gather(ctx context.Context, s streams, t *report.Timeline, args []string) (errs []error) {
	clusters, others, err := o.sources(args)
	if err != nil {
		return []error{err}
	}
	several := len(clusters)+len(others) > 1
	for _, c := range clusters {
		if !several {
			c.name = ""
		}
		if err := addCluster(t, c); err != nil {
			errs = append(errs, err)
		}
	}
	for _, arg := range others {
		name := ""
		if several {
			name = arg
		}
		if err := o.addArgument(ctx, s, t, arg, name); err != nil {
			errs = append(errs, err)
		}
	}
	if o.expiry.access.Kubeconfig != "" {
		if err := o.addAPI(ctx, s, t); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// sources tells which arguments are clusters. Without any this machine is one; with
// the API of another cluster, only if it is a node.
func (o *showOptions) sources(args []string) (clusters []cluster, others []string, err error) {
	only, err := parseLayout(o.layout)
	if err != nil {
		return nil, nil, err
	}
	if len(o.roots) > 0 || len(args) == 0 && (o.expiry.access.Kubeconfig == "" || layout.IsRoot("/")) {
		nodes, err := parseRoots(o.roots)
		if err != nil {
			return nil, nil, err
		}
		clusters = (cluster{nodes: nodes, layout: only}).apart()
	}
	for _, arg := range args {
		if isFolder(arg) {
			clusters = append(clusters, (cluster{name: arg, nodes: []nodeRoot{{dir: arg}}, layout: only}).apart()...)
		} else {
			others = append(others, arg)
		}
	}
	return clusters, others, nil
}

func addCluster(t *report.Timeline, c cluster) error {
	g, err := readShown(c)
	if err != nil {
		return err
	}
	v := report.NewInventory(g, t.At)
	v.Name = c.name
	dir := c.nodes[0].dir
	t.AddInventory(v, nameOf(dir), originOf(dir))
	t.AddAnchors(c.name, g)
	return addTokens(t, c, g)
}

// nameOf is what people call the node whose / is a folder.
func nameOf(dir string) string {
	absolute, err := filepath.Abs(dir)
	if err != nil || absolute == "/" {
		return hostname()
	}
	return filepath.Base(absolute)
}

// originOf names a file or folder among those of all machines.
func originOf(path string) string {
	if absolute, err := filepath.Abs(path); err == nil && path != "-" {
		path = absolute
	}
	return hostname() + ":" + path
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "" // the paths tell apart what they can
	}
	return name
}

// addTokens adds the tokens that stand in the kubeconfigs of nodes.
func addTokens(t *report.Timeline, c cluster, g *trust.Graph) error {
	dirs := map[string]string{}
	for _, root := range c.nodes {
		for _, r := range expand(root) {
			dirs[r.name] = r.dir
		}
	}
	var errs []error
	for i := range g.Nodes {
		n := &g.Nodes[i]
		dir, ok := dirs[n.Name]
		for _, k := range n.Kubeconfigs {
			if !ok || !k.HasToken || k.State != trust.Present {
				continue
			}
			file, err := layout.ReadFile(dir, k.Place.Path)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			described, err := content.Describe(file.Data)
			if err != nil {
				continue // its certificate is listed, and the token has no form that tells of an end
			}
			described.Parts = slices.DeleteFunc(described.Parts, func(p content.Part) bool { return p.Token == nil })
			f := report.NewFile(k.Place.Path, described, t.At)
			t.AddFile(f, c.name, n.Name, originOf(dir))
		}
	}
	return errors.Join(errs...)
}

// addArgument adds what a file or a server has.
func (o *showOptions) addArgument(ctx context.Context, s streams, t *report.Timeline, arg, name string) error {
	if address, ok := serverAddress(arg); ok {
		one, err := o.showServer(ctx, address, t.At)
		if err == nil {
			t.AddServer(one.value.(*report.Server))
		}
		return err
	}
	one, err := o.showFile(s, arg, t.At)
	if one.value == nil {
		return err
	}
	if !t.AddFile(one.value.(*report.File), name, "", originOf(arg)) {
		err = errors.Join(err, advise(fmt.Errorf("%s: holds nothing that has an end", arg), "kubepki show %s tells what it holds", arg))
	}
	return err
}

func (o *showOptions) printExpiry(s streams, t *report.Timeline) error {
	palette := report.Palette{On: isTerminal(s.out)}
	switch o.output {
	case "json", "yaml":
		return report.Document(s.out, o.output, t)
	case "name":
		return t.Names(s.out)
	case "wide":
		return t.Rows(s.out, palette)
	case "ics":
		return t.Calendar(s.out)
	}
	if len(t.Credentials) == 0 && isTerminal(s.err) { // what nobody reads would make cron send a mail
		fmt.Fprintf(s.err, "none of %d credentials ends within %s\n", t.Others, o.expiry.expiring)
	}
	return t.Text(s.out, report.Drawing{Palette: palette, Width: terminalWidth(s), ASCII: !utf8Locale(os.Getenv), All: o.expiry.all})
}

// terminalWidth is the width of the answer in columns: that of the terminal, else
// what the shell says, else 80.
func terminalWidth(s streams) int {
	if f, ok := s.out.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
	}
	if width, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && width > 0 {
		return min(width, 1000)
	}
	return 80
}

// utf8Locale tells whether the locale's characters are those of UTF-8: the first of
// the variables that is set says it (POSIX, section 8.2).
func utf8Locale(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := getenv(name); value != "" {
			value = strings.ToLower(value)
			return strings.Contains(value, "utf-8") || strings.Contains(value, "utf8")
		}
	}
	return false
}
