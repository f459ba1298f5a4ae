package main

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/layout"
)

// autoLayout is the value of --layout that reads whatever is there.
const autoLayout = "auto"

func layoutFlag(f *pflag.FlagSet, value *string) {
	f.StringVar(value, "layout", autoLayout, "how the files of the nodes are arranged: "+strings.Join(layoutNames(), ", "))
}

func layoutNames() []string { return append([]string{autoLayout}, layout.Layouts()...) }

// parseLayout returns the layout that is asked for, empty for all that are there.
func parseLayout(value string) (string, error) {
	if value == autoLayout || value == "" {
		return "", nil
	}
	if !slices.Contains(layout.Layouts(), value) {
		return "", usagef("--layout: unknown layout %q: use %s", value, strings.Join(layoutNames(), ", "))
	}
	return value, nil
}

// apart are the clusters whose nodes share the roots of one: a distribution that
// brings all of its own stands beside others, and is judged by itself.
func (c cluster) apart() []cluster {
	if c.layout != "" {
		return []cluster{c}
	}
	var distributions []string
	for _, root := range c.nodes {
		for _, r := range expand(root) {
			for _, d := range layout.Distributions(r.dir) {
				if !slices.Contains(distributions, d) {
					distributions = append(distributions, d)
				}
			}
		}
	}
	if len(distributions) < 2 {
		return []cluster{c}
	}
	var all []cluster
	for _, d := range distributions {
		one := c
		one.distribution = d
		one.name = strings.TrimSpace(c.name + " (" + d + ")")
		if c.name == "" {
			one.name = d
		}
		all = append(all, one)
	}
	return all
}

// alone is the one cluster of some roots, for commands that change something:
// which of several is meant must be said.
func (c cluster) alone() (cluster, error) {
	all := c.apart()
	if len(all) == 1 {
		return all[0], nil
	}
	var names []string
	for _, one := range all {
		names = append(names, one.distribution)
	}
	return c, usagef("--root: %s are there, each a cluster of its own: say which with --layout", strings.Join(names, " and "))
}
