package supervisor

import (
	"context"
	"net"
	"net/netip"

	"github.com/kubepki/kubepki/lab/internal/light"
)

// runLight runs the light nodes until the context ends. They stand where the
// supervisor does, each at an address of its own.
func (s *Supervisor) runLight(ctx context.Context) {
	nodes := s.wanted.Light()
	if len(nodes) == 0 {
		return
	}
	if !s.wanted.Loopback { // all of 127.0.0.0/8 is there already
		var addresses []netip.Prefix
		for _, n := range nodes {
			addresses = append(addresses, netip.PrefixFrom(n.Address, n.Address.BitLen()))
		}
		if err := s.network.AddAddresses(addresses...); err != nil {
			s.Log.Error("light nodes", "error", err)
			return
		}
	}
	s.untilDone(ctx, "light nodes", func(ctx context.Context) error {
		return light.Run(ctx, light.Options{Dir: s.Folder.Nodes(), Nodes: nodes, Join: *s.join, Listen: net.Listen, Log: s.Log})
	})
}
