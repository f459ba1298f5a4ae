package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/config"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/provision"
)

// serviceFlags are those that mean something to --layout service.
var serviceFlags = []string{"layout", "root", "out", "name", "csr-only", "dry-run", "at", "output",
	"key-algorithm", "validity", "ca-validity", "help"}

// localNames are the names of a server that is reached on its own machine.
var localNames = []string{"localhost", "127.0.0.1", "::1"}

// checkService refuses flags that describe a cluster.
func (f *initFlags) checkService(c *cobra.Command) error {
	var err error
	c.Flags().Visit(func(g *pflag.Flag) {
		if err == nil && !slices.Contains(serviceFlags, g.Name) {
			err = usagef("--%s describes a cluster, and --layout service makes the folder of two services", g.Name)
		}
	})
	if err != nil {
		return err
	}
	if !c.Flags().Changed("root") && f.out == "" {
		return usagef("--layout service writes directly into a folder: name it with --root DIR")
	}
	return nil
}

func (f *initFlags) service(ctx context.Context, s streams, now time.Time) error {
	names := f.names
	if len(names) == 0 {
		names = localNames
	}
	if err := config.CheckNames("--name", names); err != nil {
		return usageError{err}
	}
	algorithm, err := issue.ParseAlgorithm(f.cluster.algorithm)
	if err != nil {
		return usagef("--key-algorithm: %w", err)
	}
	c := &catalog.Cluster{Algorithm: string(algorithm)}
	if c.Validity, err = parseLife("--validity", f.cluster.validity); err != nil {
		return err
	}
	if c.CAValidity, err = parseLife("--ca-validity", f.cluster.caValidity); err != nil {
		return err
	}
	if c.CAValidity < c.Validity {
		return usagef("--ca-validity %s is shorter than --validity %s", f.cluster.caValidity, f.cluster.validity)
	}
	dir := f.root
	if f.out != "" {
		dir = f.out
	}
	return provisionAll(ctx, s, f, provision.Options{
		Cluster: c, Dir: dir, CSROnly: f.csrOnly, DryRun: f.dryRun, Now: now, Service: &provision.Service{Names: names},
	})
}
