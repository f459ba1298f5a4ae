package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// kubeletsSeen judges what the kubelets of Nodes presented whose files were not given.
// What a kubelet made itself nobody verifies, and holds its name alone.
func kubeletsSeen(c *Case, judge func(o *trust.Observation, n *trust.NodeAddresses) (Finding, bool)) []Finding {
	objects := c.Objects()
	if objects == nil {
		return nil
	}
	current := c.current(objects)
	var out []Finding
	for i := range c.Observations {
		o := &c.Observations[i]
		if o.Server.Kind != trust.ServesNode || len(o.Chain) == 0 || objects.Node(o.Server.NodeName) == nil {
			continue
		}
		if !slices.ContainsFunc(current, func(a certificate) bool { return trust.SignedBy(o.Chain[0], a) }) {
			continue
		}
		if f, found := judge(o, objects.Node(o.Server.NodeName)); found {
			f.Links = []int{10, 11}
			f.Fix = "see why the kubelet does not ask for another: kubectl get csr, and whether its requests are approved; restart the kubelet once they are"
			out = append(out, f.at(o.Server.Settings...))
		}
	}
	return out
}

// kubeletNames: a Node has another address than when its kubelet asked for the
// certificate.
func kubeletNames(c *Case) []Finding {
	return kubeletsSeen(c, func(o *trust.Observation, n *trust.NodeAddresses) (Finding, bool) {
		var missing []string
		for _, a := range n.Addresses {
			reached := a.Type == "InternalIP" || a.Type == "Hostname"
			if reached && !slices.Contains(missing, a.Address) && o.Chain[0].VerifyHostname(a.Address) != nil {
				missing = append(missing, a.Address)
			}
		}
		return Finding{Cause: fmt.Sprintf("the certificate that the kubelet of %s presents does not hold %s, which its Node has", n.Name, strings.Join(missing, ", "))}, len(missing) > 0
	})
}

// kubeletExpired: the API server does not get through to the kubelet.
func kubeletExpired(c *Case) []Finding {
	return kubeletsSeen(c, func(o *trust.Observation, n *trust.NodeAddresses) (Finding, bool) {
		leaf := o.Chain[0]
		return Finding{Cause: fmt.Sprintf("the certificate that the kubelet of %s presents expired at %s", n.Name, date(leaf.NotAfter))}, c.At.After(leaf.NotAfter)
	})
}
