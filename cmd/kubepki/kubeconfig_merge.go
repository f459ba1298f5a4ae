package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

type mergeOptions struct {
	file, current  string
	rename, dryRun bool
}

func newMergeCommand(s streams) *cobra.Command {
	var o mergeOptions
	c := &cobra.Command{
		Use:   "merge [NAME=]FILE...",
		Short: "Merge several kubeconfigs into one",
		Long: `Merge several kubeconfigs into one file. What is the same in two is written once;
the same name for different things is refused. kubeadm calls every cluster
kubernetes: NAME=FILE calls the context, cluster and user of that file NAME
(NAME-OLD where it has several). Paths in the files become absolute.`,
		Example: `  # Two clusters of kubeadm
  kubepki kubeconfig merge east=east/admin.conf west=west/admin.conf > both.conf

  # Named after the files: east.conf, west.conf
  kubepki kubeconfig merge --rename east.conf west.conf --file both.conf

  # Into the file of kubectl, which must not exist yet
  kubepki kubeconfig merge prod.conf lab=lab.conf --current-context lab --file ~/.kube/config`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), s, args) },
	}
	f := c.Flags()
	f.StringVarP(&o.file, "file", "f", "", "write to this file, mode 0600, instead of standard output; never overwrites")
	f.StringVar(&o.current, "current-context", "", "current context of the result (default: the first file's)")
	f.BoolVar(&o.rename, "rename", false, "call each file's context, cluster and user by the name of the file")
	f.BoolVar(&o.dryRun, "dry-run", false, "check only, and write nothing")
	return c
}

func (o *mergeOptions) run(ctx context.Context, s streams, args []string) error {
	var files [][]byte
	for _, arg := range args {
		data, err := o.read(s, arg)
		if err != nil {
			return err
		}
		files = append(files, data)
	}
	merged, err := layout.MergeKubeconfigs(files)
	if err != nil {
		return advise(fmt.Errorf("merging %s: %w", strings.Join(args, ", "), err), "NAME=FILE calls the context, cluster and user of a file NAME; --rename does so by the names of the files")
	}
	if o.current != "" {
		if merged, err = setCurrent(merged, o.current); err != nil {
			return err
		}
	}
	return writeKubeconfig(ctx, s, o.file, merged, nil, o.dryRun)
}

// read reads one kubeconfig, renames its entries and makes its paths absolute.
func (o *mergeOptions) read(s streams, arg string) ([]byte, error) {
	name, file, named := strings.Cut(arg, "=")
	switch {
	case !named || strings.ContainsRune(name, '/'):
		name, file = "", arg
		if o.rename && file == "-" {
			return nil, usagef("--rename: standard input has no name: use NAME=-")
		}
		if o.rename {
			name = strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
		}
	case name == "" || file == "":
		return nil, usagef("%q is not NAME=FILE", arg)
	}
	data, err := readInput(s, file)
	if err != nil {
		return nil, err
	}
	// All that is wrong with the kubeconfig itself is found here, and named.
	if k, _, _ := layout.ParseKubeconfig(trust.Place{Path: "/"}, data); k.State != trust.Present && k.Field != "current-context" {
		return nil, fmt.Errorf("%s: is no kubeconfig that works: %s", file, k.Reason)
	}
	var all map[string]any
	if err := yaml.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("%s: is not YAML", file) // the cause may quote the file
	}
	if err := absolutePaths(all, file); err != nil {
		return nil, err
	}
	if name != "" {
		renameEntries(all, name)
	}
	return yaml.Marshal(all)
}

// entriesOf returns the entries of a list of a kubeconfig, each with its name
// and its inner mapping.
func entriesOf(all map[string]any, list string) []map[string]any {
	entries, _ := all[list].([]any)
	var maps []map[string]any
	for _, e := range entries {
		if m, ok := e.(map[string]any); ok {
			maps = append(maps, m)
		}
	}
	return maps
}

// pathFields are the fields that name files, by list.
var pathFields = []struct {
	list, inner string
	fields      []string
}{
	{"clusters", "cluster", []string{"certificate-authority"}},
	{"users", "user", []string{"client-certificate", "client-key", "tokenFile"}},
}

// absolutePaths makes relative paths absolute: they are looked for beside
// their file, and the merged file stands elsewhere.
func absolutePaths(all map[string]any, file string) error {
	for _, p := range pathFields {
		for _, e := range entriesOf(all, p.list) {
			inner, _ := e[p.inner].(map[string]any)
			for _, f := range p.fields {
				path, _ := inner[f].(string)
				if path == "" || filepath.IsAbs(path) {
					continue
				}
				if file == "-" {
					return fmt.Errorf("standard input: %s is the relative path %s, and standard input has no folder", f, path)
				}
				absolute, err := filepath.Abs(filepath.Join(filepath.Dir(file), path))
				if err != nil {
					return fmt.Errorf("%s: %s: %w", file, f, err)
				}
				inner[f] = absolute
			}
		}
	}
	return nil
}

// renameEntries calls the entries of each list by a name: NAME when the list
// has one, else NAME-OLD, and follows the references.
func renameEntries(all map[string]any, name string) {
	renamed := map[string]map[string]string{}
	for _, list := range []string{"clusters", "users", "contexts"} {
		entries := entriesOf(all, list)
		renamed[list] = map[string]string{}
		for _, e := range entries {
			old, _ := e["name"].(string)
			renamed[list][old] = name
			if len(entries) > 1 {
				renamed[list][old] = name + "-" + old
			}
			e["name"] = renamed[list][old]
		}
	}
	for _, e := range entriesOf(all, "contexts") {
		context, _ := e["context"].(map[string]any)
		for field, list := range map[string]string{"cluster": "clusters", "user": "users"} {
			if old, ok := context[field].(string); ok && renamed[list][old] != "" {
				context[field] = renamed[list][old]
			}
		}
	}
	if current, ok := all["current-context"].(string); ok && renamed["contexts"][current] != "" {
		all["current-context"] = renamed["contexts"][current]
	}
}

// setCurrent sets the current context, which must be there.
func setCurrent(data []byte, context string) ([]byte, error) {
	var all map[string]any
	if err := yaml.Unmarshal(data, &all); err != nil {
		return nil, errors.New("the merged kubeconfig does not parse")
	}
	contexts := entriesOf(all, "contexts")
	if !slices.ContainsFunc(contexts, func(e map[string]any) bool { return e["name"] == context }) {
		var names []string
		for _, e := range contexts {
			names = append(names, fmt.Sprint(e["name"]))
		}
		return nil, usagef("--current-context %q is none of %s", context, strings.Join(names, ", "))
	}
	all["current-context"] = context
	return yaml.Marshal(all)
}
