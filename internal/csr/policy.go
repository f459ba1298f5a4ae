package csr

import (
	"net/netip"
	"time"
)

// Policy is what an administrator wants. The zero value is not usable:
// [DefaultPolicy] is where to begin.
type Policy struct {
	// BootstrapGroups are those whose members ask for nodes' first certificates.
	// A group is meant as it is written: groups below it do not count.
	BootstrapGroups []string
	// MaxDuration bounds the life of what is issued, by signer; "" is for all
	// others. Longer wishes are shortened.
	MaxDuration map[string]time.Duration
	// AllowKeyEnciphermentWithECDSA lets kubelets before 1.27 in.
	AllowKeyEnciphermentWithECDSA bool
	// AllowReadyNodeRejoin restores upstream's ways: a bootstrapper may ask for
	// the name of a Node that is Ready now.
	AllowReadyNodeRejoin bool
	// AllowSystemIdentities lets rules of the built-in signers approve users and
	// groups that begin with "system:", system:masters among them.
	AllowSystemIdentities bool
	// Cluster is added to what is read from the cluster ([Facts.Cluster]).
	Cluster Cluster
	// AddressRanges, if there are any, must hold every address of a node.
	AddressRanges []netip.Prefix
	// Addresses, if not nil, confirms names and addresses, by node name.
	Addresses map[string][]string
	// DNS makes the DNS confirm names and addresses ([Facts.Resolved]).
	DNS bool
	// Rules decide on requests of other signers than the kubelets'.
	Rules []Rule
}

// Rule decides on the requests of one signer. It may be used by several
// goroutines.
type Rule struct {
	Name       string
	SignerName string
	// Approve tells whether the rule approves; an error leaves undecided. It is
	// called only for requests that are well made and that hold nothing which
	// [Asked] does not show.
	Approve func(Request, *Asked) (bool, error)
}

// DefaultPolicy is what holds where no policy is given.
func DefaultPolicy() Policy { return Policy{BootstrapGroups: []string{"system:bootstrappers"}} }
