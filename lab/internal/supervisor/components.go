package supervisor

import (
	"net/netip"

	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/cluster"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
)

// plan lists the components, in the order in which they are shown.
func (s *Supervisor) plan() []*unit {
	now := make(chan struct{})
	close(now)
	var units []*unit
	for _, m := range s.machines {
		node := s.nodes[m.Name]
		for _, component := range m.Static {
			after := s.serving
			if component == "etcd" || component == "kube-apiserver" {
				after = now
			}
			units = append(units, newUnit(node, component, after, func() (*lab.Manifest, error) { return s.static(m, component) }))
		}
		if m.Kubelet {
			units = append(units, s.kubelet(m))
		}
	}
	return units
}

// kubelet is the kubelet of a node. That of a worker waits for a token. Control
// planes are kept free of other pods, unless there is no other place.
func (s *Supervisor) kubelet(m cluster.Machine) *unit {
	node, after := s.nodes[m.Name], s.serving
	if m.Role == cluster.Worker {
		after = s.joining
	}
	u := newUnit(node, "kubelet", after, func() (*lab.Manifest, error) {
		c := kubelet.Config{Name: m.Name, Addresses: []netip.Addr{m.Address}, ControlPlane: m.Role == cluster.ControlPlane && len(s.spec.Workers) > 0}
		if m.Role == cluster.Worker {
			c.Join = s.join
		}
		return kubelet.Prepare(node.Root, c)
	})
	u.serves = netip.AddrPortFrom(m.Address, kubeletPort).String()
	return u
}

// kubeletPort is the kubelet's default.
const kubeletPort = 10250

// static describes a component by its static-pod manifest.
func (s *Supervisor) static(m cluster.Machine, component string) (*lab.Manifest, error) {
	manifest, err := lab.ReadManifest(s.Folder.Root(m.Name), component)
	if err != nil {
		return nil, err
	}
	if component == "etcd" {
		// It survives the end of its process, and need not survive a power cut.
		manifest.Command = append(manifest.Command, "--unsafe-no-fsync")
	}
	if s.wanted.Loopback {
		onLoopback(manifest, s.Folder.Root(m.Name), m.Address)
	}
	return manifest, nil
}

// find returns the units of a name: COMPONENT, NODE, or NODE/COMPONENT.
func (s *Supervisor) find(name string) []*unit {
	var found []*unit
	for _, u := range s.units {
		if name == u.component || name == u.node.Name || name == u.node.Name+"/"+u.component {
			found = append(found, u)
		}
	}
	return found
}
