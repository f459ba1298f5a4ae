package supervisor

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/cluster"
)

// makeNetwork makes the network, and a node for each machine.
func (s *Supervisor) makeNetwork() error {
	hosts := cluster.Hosts(s.spec)
	if s.wanted.Loopback {
		s.network = lab.NewLoopback()
	} else {
		if err := s.resolve(hosts); err != nil {
			return err
		}
		var err error
		if s.network, err = lab.NewNetwork(cluster.Administrator...); err != nil {
			return err
		}
	}
	for _, m := range s.machines {
		node, err := s.network.Node(lab.NodeConfig{
			Name: m.Name, Root: s.Folder.Root(m.Name), Programs: s.Programs, Logs: s.Folder.Logs(),
			Addresses: []netip.Prefix{netip.PrefixFrom(m.Address, m.Address.BitLen())},
			Hosts:     hosts, Handle: s.Folder.Network(m.Name), Machine: true,
		})
		if err != nil {
			return errors.Join(err, s.network.Close())
		}
		s.nodes[m.Name] = node
	}
	return nil
}

// resolve makes the cluster's names known to whoever stands beside the nodes, by
// a hosts file that is seen inside the lab alone.
func (s *Supervisor) resolve(hosts map[string]netip.Addr) error {
	own, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for name, address := range hosts {
		own = fmt.Appendf(own, "%s %s\n", address, name)
	}
	file := filepath.Join(s.Folder.Run(), "hosts")
	if err := os.WriteFile(file, own, 0o644); err != nil {
		return err
	}
	err = unix.Mount(file, "/etc/hosts", "", unix.MS_BIND, "")
	if errors.Is(err, unix.ENOENT) {
		return nil // a machine without the file: then names of nodes are not resolved beside them
	}
	if err != nil {
		return fmt.Errorf("mount %s at /etc/hosts: %w", file, err)
	}
	return nil
}
