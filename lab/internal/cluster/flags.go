package cluster

import (
	"maps"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/lab/internal/objects"
)

// setExtraArgs adds the flags that the lab's own services need.
func setExtraArgs(c *catalog.Cluster) {
	var flags []string
	for _, f := range objects.APIServerFlags() {
		flags = append(flags, f.Flag)
	}
	if !c.KubeletAuthority {
		// The kubelets' serving certificates are of the cluster's authority, and
		// are verified, other than kubeadm leaves it (link 11).
		flags = append(flags, "--kubelet-certificate-authority="+c.PKI("ca")+".crt")
	}
	addArgs(c, "kube-apiserver", flags)
}

// addArgs adds flags, --NAME=VALUE, to a component, unless the configuration sets
// them.
func addArgs(c *catalog.Cluster, component string, flags []string) {
	all := maps.Clone(c.ExtraArgs)
	if all == nil {
		all = map[string][]catalog.Arg{}
	}
	args := slices.Clone(all[component])
	for _, flag := range flags {
		name, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		if !slices.ContainsFunc(args, func(a catalog.Arg) bool { return a.Name == name }) {
			args = append(args, catalog.Arg{Name: name, Value: value})
		}
	}
	all[component] = args
	c.ExtraArgs = all
}
