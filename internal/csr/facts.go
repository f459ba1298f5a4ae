package csr

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Answer is an answer that may be missing.
type Answer int

// The answers.
const (
	Unknown Answer = iota
	Yes
	No
)

// Node is a Node of the cluster with what decisions need of it.
type Node struct {
	Name string
	UID  string
	// Names and Addresses are those of status.addresses, as they are written.
	// The node writes them itself.
	Names     []string
	Addresses []string
	// ControlPlane is the label node-role.kubernetes.io/control-plane, which a
	// node cannot give itself (NodeRestriction).
	ControlPlane bool
	Ready        bool
	Deleting     bool
}

// Facts is what is known about the cluster when a decision is made.
type Facts struct {
	// Authorized is the API server's answer to whether the requester has the
	// permission that [Permission] names for the request.
	Authorized Answer
	// Nodes are the nodes of the cluster; nil: they are not known.
	Nodes   *Inventory
	Cluster Cluster
	// Resolved holds the addresses that DNS gives for a name in lower case,
	// where the policy asks DNS ([Lookups]); a name that is not in it has not
	// been answered, one without addresses does not exist.
	Resolved map[string][]netip.Addr
	// Keys tells who else has used a public key.
	Keys Keys
	// Landed tells that the node's own word has had time to land: it has been
	// read from the API server after [Grace]. Until then an address that the
	// node does not list is no reason to deny. It is true in a review.
	Landed bool
}

// Grace is how long a kubelet may ask for addresses before its Node has them.
const Grace = 60 * time.Second

// Cluster is what no node may claim, but a control-plane node its own.
type Cluster struct {
	Domain        string         // such as cluster.local, which "" stands for
	ServiceRanges []netip.Prefix // none: 10.96.0.0/12
	// Endpoints are names and addresses of the API server: control-plane
	// endpoint, advertised addresses, load balancers. A port does not matter.
	Endpoints []string
}

// Validate tells what of it could never match anything, so that nobody believes
// to be protected by it.
func (c Cluster) Validate() error {
	if domain := strings.TrimSuffix(c.Domain, "."); c.Domain != "" && !isHostName(domain) {
		return fmt.Errorf("domain %q is not a name such as cluster.local", c.Domain)
	}
	for _, r := range c.ServiceRanges {
		if !r.IsValid() || r.Addr().Is4In6() || r != r.Masked() {
			return fmt.Errorf("service range %q is not a range such as 10.96.0.0/12", r)
		}
	}
	for _, e := range c.Endpoints {
		if k := endpointOf(e); !k.address.IsValid() && (!isHostName(k.name) || isAddressText(k.name)) {
			return fmt.Errorf("endpoint %q is not a name or an address, with or without a port", e)
		}
	}
	return nil
}

// Keys tells who has used a public key: the common names that certificates were
// asked for with it, and [OfAuthority] for the key of an authority of the
// cluster. The key is given as [KeySum] does. Who carried a request to the API
// server does not matter: a kubelet keeps its key while it waits, and may come
// with a second token. It may be nil.
type Keys func(sum [32]byte) []string

// OfAuthority is what [Keys] says of the key of an authority.
const OfAuthority = "authority"
