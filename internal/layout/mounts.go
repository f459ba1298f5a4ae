package layout

import (
	"path"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// mounts say where on the node the files of a static pod's container are.
type mounts []hostMount

// hostMount is a folder or file of the node as a container sees it.
type hostMount struct{ inside, onNode string }

// mountsOf are those of a container whose volumes are of the node.
func (p *pod) mountsOf(c *container) mounts {
	var all mounts
	for _, m := range c.VolumeMounts {
		v, ok := find(p.Spec.Volumes, func(v volume) bool { return v.Name == m.Name })
		if ok && v.HostPath != nil && path.IsAbs(v.HostPath.Path) && path.IsAbs(m.MountPath) {
			all = append(all, hostMount{path.Clean(m.MountPath), path.Join(v.HostPath.Path, path.Join("/", m.SubPath))})
		}
	}
	return all
}

// onNode is the path on the node of a path in the container; the same where
// nothing is mounted. Of mounts within each other the inner one counts.
func (m mounts) onNode(at string) string {
	best := hostMount{}
	for _, x := range m {
		if (at == x.inside || strings.HasPrefix(at, strings.TrimSuffix(x.inside, "/")+"/")) && len(x.inside) > len(best.inside) {
			best = x
		}
	}
	if best.inside == "" || best.inside == best.onNode {
		return at
	}
	return path.Join(best.onNode, strings.TrimPrefix(at, best.inside))
}

// apply puts the paths on the node in the place of those in the container, in
// flags that name files: what is a folder on the node is left as it stands.
func (m mounts) apply(c *trust.Component, isFolder func(string) bool) {
	for flag, values := range c.Flags {
		for i, v := range values {
			words := strings.Split(v, ",") // --tls-sni-cert-key has two files
			for j, w := range words {
				file, names, named := strings.Cut(w, ":")
				if !path.IsAbs(file) {
					continue
				}
				at := m.onNode(file)
				if at == file || isFolder(at) {
					continue
				}
				if words[j] = at; named {
					words[j] += ":" + names
				}
			}
			c.Flags[flag][i] = strings.Join(words, ",")
		}
	}
}
