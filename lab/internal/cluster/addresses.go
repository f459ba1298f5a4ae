package cluster

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
)

// checkAddresses refuses addresses that cannot work, as they would not in a real
// cluster.
func checkAddresses(c *catalog.Cluster) error {
	for subnet := range strings.SplitSeq(c.ServiceSubnet, ",") {
		services, err := netip.ParsePrefix(subnet)
		if err != nil {
			return fmt.Errorf("networking.serviceSubnet %q: %w", c.ServiceSubnet, err)
		}
		for _, m := range Machines(c) {
			if services.Contains(m.Address) {
				return fmt.Errorf("%s has the address %s, which is among those of the services (%s): kube-proxy would drop what is sent to it", m.Name, m.Address, subnet)
			}
		}
	}
	return checkTwice(c)
}

// checkTwice refuses names and addresses that two machines have, the lab's own
// among them.
func checkTwice(c *catalog.Cluster) error {
	owners := map[string]string{}
	for _, a := range Administrator {
		owners[a.Addr().String()] = "the lab itself"
	}
	for _, m := range Machines(c) {
		owner := "node " + m.Name
		if m.Role == Balancer {
			owner = "the load balancer at controlPlaneEndpoint"
		}
		for _, key := range []string{m.Name, m.Address.String()} {
			if other, ok := owners[key]; ok {
				return fmt.Errorf("%s and %s are both %s: give one of them another", other, owner, key)
			}
			owners[key] = owner
		}
	}
	return nil
}
