package config

import (
	"fmt"

	"github.com/kubepki/kubepki/internal/catalog"
)

// namedComponent is what a configuration says about one component.
type namedComponent struct {
	field string // path of its extraArgs
	name  string
	component
}

// add takes the component over into the cluster. The merge method of an
// argument is a field of kubeadm's v1, and not of v1beta4.
func (c *namedComponent) add(out *catalog.Cluster, merge bool) error {
	for i, a := range c.ExtraArgs {
		at := fmt.Sprintf("%s[%d]", c.field, i)
		switch {
		case a.Name == "":
			return wrong(at+".name", "is not set")
		case a.MergeMethod != "" && !merge:
			return wrong(at+".mergeMethod", "is not a field of kubeadm.k8s.io/v1beta4")
		case a.MergeMethod != "" && a.MergeMethod != "append" && a.MergeMethod != "prepend":
			return wrong(at+".mergeMethod", "%q is neither append nor prepend", a.MergeMethod)
		}
		if out.ExtraArgs == nil {
			out.ExtraArgs = map[string][]catalog.Arg{}
		}
		out.ExtraArgs[c.name] = append(out.ExtraArgs[c.name], catalog.Arg{Name: a.Name, Value: a.Value, Merge: a.MergeMethod})
	}
	if len(c.ExtraVolumes)+len(c.ExtraEnvs) == 0 {
		return nil
	}
	var p catalog.PodExtras
	for _, v := range c.ExtraVolumes {
		p.Volumes = append(p.Volumes, catalog.HostPath{Name: v.Name, HostPath: v.HostPath, MountPath: v.MountPath, ReadOnly: v.ReadOnly, Type: v.PathType})
	}
	for _, e := range c.ExtraEnvs {
		p.Env = append(p.Env, catalog.EnvVar{Name: e.Name, Value: e.Value, ValueFrom: e.ValueFrom})
	}
	if out.Pods == nil {
		out.Pods = map[string]catalog.PodExtras{}
	}
	out.Pods[c.name] = p
	return nil
}
