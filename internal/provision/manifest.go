package provision

import (
	"bytes"
	"fmt"
	"path"
	"path/filepath"
	"slices"

	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
)

// decideManifests adds the static-pod manifests, once it is known whether the
// cluster's authority can sign.
func (p *Planned) decideManifests() error {
	if !p.options.Manifests {
		return nil
	}
	c := *p.options.Cluster
	if a := p.authorities[catalog.ClusterCA]; a != nil && !a.canSign() {
		c.ExternalCA = true
	}
	var slots []*slot
	for i := range c.ControlPlanes {
		n := &c.ControlPlanes[i]
		systemTrust := p.systemTrust(n.Name)
		for _, component := range catalog.Components() {
			if component == catalog.Etcd && c.EtcdIsExternal() {
				continue
			}
			pod, err := c.Manifest(component, n, systemTrust)
			if err != nil {
				return err
			}
			s, err := p.manifestSlot(n.Name, component, pod)
			if err != nil {
				return err
			}
			slots = append(slots, s)
		}
	}
	for i := range c.EtcdMembers {
		m := &c.EtcdMembers[i]
		s, err := p.manifestSlot(m.Name, catalog.Etcd, c.EtcdManifest(m))
		if err != nil {
			return err
		}
		slots = append(slots, s)
	}
	for _, s := range slots {
		if err := p.decideManifest(s); err != nil {
			return err
		}
	}
	p.insert(slots)
	return nil
}

// systemTrust lists the folders of the system's own authorities that stand below
// a node's root.
func (p *Planned) systemTrust(node string) []string {
	root := p.options.Dir
	if p.options.PerNode {
		root = filepath.Join(root, node)
	}
	return slices.DeleteFunc(catalog.SystemTrust(), func(dir string) bool { return !layout.IsFolder(root, dir) })
}

func (p *Planned) manifestSlot(node, component string, pod map[string]any) (*slot, error) {
	data, err := yaml.Marshal(pod)
	if err != nil {
		return nil, fmt.Errorf("encoding the manifest of %s: %w", component, err)
	}
	name := component + ".yaml"
	s := &slot{node: node, data: data, entry: catalog.Entry{Name: name, Kind: KindManifest, Path: path.Join(catalog.ManifestsDir, name)}}
	if p.options.PerNode {
		s.prefix = "/" + node
	}
	return s, nil
}

func (p *Planned) decideManifest(s *slot) error {
	if err := p.read(s); err != nil {
		return err
	}
	switch {
	case s.have.file == nil:
		s.action = Made
	case bytes.Equal(s.have.file, s.data):
		s.action = Kept
	default:
		return refuse(p.host(s, s.entry.Path), "leave out --manifests to keep it, or move it away to have it made anew",
			"is another manifest than the configuration asks for")
	}
	return nil
}

// insert puts each manifest behind the other entries of its node.
func (p *Planned) insert(manifests []*slot) {
	var all []*slot
	for i, s := range p.slots {
		all = append(all, s)
		if i+1 < len(p.slots) && p.slots[i+1].node == s.node {
			continue
		}
		for _, m := range manifests {
			if m.node == s.node {
				all = append(all, m)
			}
		}
	}
	p.slots = all
}
