package main

import (
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// newShowFlagsCommand prints the flags of a component, for systemd units.
func newShowFlagsCommand(s streams) *cobra.Command {
	var cluster clusterFlags
	var node, root string
	var external bool
	c := &cobra.Command{
		Use:   "flags COMPONENT",
		Short: "Print the flags of a component, one per line",
		Long: `Print the flags with which a component uses the credentials that init makes:
those of the static-pod manifests, one per line, for a systemd unit or a script.
Components: ` + strings.Join(append(catalog.Components(), catalog.Kubelet, catalog.KubeProxy), ", ") + `.`,
		Example: `  # The API server of this machine
  kubepki show flags kube-apiserver

  # An etcd member of a cluster
  kubepki show flags etcd --config cluster.yaml --node cp2

  # Those of a manifest that is there
  kubepki show flags kube-apiserver --root ./node

  # As an environment file
  echo "ARGS=$(kubepki show flags kubelet --config cluster.yaml --node w1 | tr '\n' ' ')"`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if root != "" {
				return printManifestFlags(c, s, root, args[0])
			}
			wanted, err := cluster.read(c.Flags())
			if err != nil {
				return err
			}
			wanted.ExternalCA = external
			flags, err := flagsOf(wanted, args[0], node)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(s.out, strings.Join(flags, "\n"))
			return err
		},
	}
	cluster.add(c.Flags())
	c.Flags().StringVar(&root, "root", "", "print the flags of the static-pod manifest below this root of a node instead")
	c.Flags().StringVar(&node, "node", "", "node of the configuration (default: its first that runs the component)")
	c.Flags().BoolVar(&external, "external-ca", false, "the key of the cluster's authority is elsewhere, so that nothing is signed in the cluster")
	return c
}

// printManifestFlags prints the flags that a manifest gives to its component.
func printManifestFlags(c *cobra.Command, s streams, root, component string) error {
	var mixed []string
	c.Flags().Visit(func(g *pflag.Flag) {
		if g.Name != "root" {
			mixed = append(mixed, g.Name)
		}
	})
	if len(mixed) > 0 {
		return usagef("--root prints what a manifest says, so that [%s] say nothing", strings.Join(mixed, " "))
	}
	if !slices.Contains(catalog.Components(), component) {
		return usagef("%q has no static-pod manifest: use one of %s", component, strings.Join(catalog.Components(), ", "))
	}
	at := path.Join(catalog.ManifestsDir, component+".yaml")
	content, err := layout.ReadFile(root, at)
	if err != nil {
		return fmt.Errorf("manifest below %s: %w", root, err)
	}
	found, err := layout.ParseManifest(trust.Place{Path: at}, content.Data)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", filepath.Join(root, at), err)
	}
	for _, name := range slices.Sorted(maps.Keys(found.Flags)) {
		for _, value := range found.Flags[name] {
			if _, err := fmt.Fprintf(s.out, "--%s=%s\n", name, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// flagsOf returns the flags of a component on the named node, or on the first
// that runs it.
func flagsOf(c *catalog.Cluster, component, node string) ([]string, error) {
	var command []string
	var err error
	switch {
	case component == catalog.Etcd && len(c.EtcdMembers) > 0:
		command, err = etcdMemberCommand(c, node)
	case component == catalog.Kubelet || component == catalog.KubeProxy:
		command, err = nodeCommand(c, component, node)
	default:
		command, err = controlPlaneCommand(c, component, node)
	}
	if err != nil {
		return nil, usageError{err}
	}
	return command[1:], nil // the program itself is not a flag
}

func etcdMemberCommand(c *catalog.Cluster, node string) ([]string, error) {
	for i := range c.EtcdMembers {
		if m := &c.EtcdMembers[i]; node == "" || m.Name == node {
			return c.EtcdCommand(m), nil
		}
	}
	return nil, fmt.Errorf("--node %q is no etcd member of the configuration", node)
}

func controlPlaneCommand(c *catalog.Cluster, component, node string) ([]string, error) {
	for i := range c.ControlPlanes {
		if n := &c.ControlPlanes[i]; node == "" || n.Name == node {
			return c.Command(component, n)
		}
	}
	return nil, fmt.Errorf("--node %q is no control plane of the configuration", node)
}

func nodeCommand(c *catalog.Cluster, component, node string) ([]string, error) {
	if node == "" {
		return c.NodeCommand(component, c.ControlPlanes[0].Name)
	}
	for _, n := range c.ControlPlanes {
		if n.Name == node {
			return c.NodeCommand(component, node)
		}
	}
	for _, w := range c.Workers {
		if w.Name == node {
			return c.NodeCommand(component, node)
		}
	}
	return nil, fmt.Errorf("--node %q is no node of the configuration", node)
}
