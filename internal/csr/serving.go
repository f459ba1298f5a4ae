package csr

import (
	"net/netip"
	"slices"
	"strings"
)

// serving is the judgement of a request for a kubelet's serving certificate.
type serving struct {
	*judgement
	name     string // of the node; "" where the request names none that is valid
	facts    Facts
	policy   Policy
	cluster  cluster
	node     Node
	isKnown  bool // node is one of the inventory
	hasNames bool // and lists names or addresses
}

func (j *judgement) judgeKubeletServing(r Request, form *form, f Facts, p Policy) {
	s := &serving{judgement: j, name: j.judgeKubelet(r, form, p, "server auth"), facts: f, policy: p, cluster: f.cluster(p)}
	if s.name != "" && (r.Username != nodePrefix+s.name || !slices.Contains(r.Groups, nodesGroup)) {
		j.deny(requesterNotNode, "a serving certificate of node %q is asked for by %s, which is not that node in group %s", s.name, quote(r.Username), nodesGroup)
	}
	s.judgeNode()
	if len(form.raw.names) == 0 {
		j.deny(sanMissing, "a kubelet's serving certificate needs a DNS name or an IP address")
	}
	for _, n := range form.raw.names {
		s.judgeName(n)
	}
	if len(form.raw.names) > 0 {
		j.approve(nodeServes, "node %q asks to serve under its own names and addresses", s.name)
	}
}

func (s *serving) judgeNode() {
	if s.facts.Nodes == nil {
		s.doubt(nodesUnknown, "it is not known which nodes there are")
		return
	}
	if s.name == "" {
		return
	}
	s.node, s.isKnown = s.facts.Nodes.Node(s.name)
	s.hasNames = len(s.node.claims()) > 0
	switch {
	case !s.isKnown:
		s.doubt(nodeNotRegistered, "there is no Node %q yet", s.name)
	case s.node.Deleting:
		s.doubt(nodeDeleting, "Node %q is being deleted", s.name)
	case !s.hasNames:
		s.doubt(nodeNoAddresses, "Node %q has no addresses yet", s.name)
	}
}

func (s *serving) judgeName(n generalName) {
	var c claim
	switch n.kind {
	case ipName:
		ip, _ := netip.AddrFromSlice([]byte(n.value))
		c.address = ip.Unmap()
	case dnsName:
		if !s.isGoodName(n.value) {
			return
		}
		c.name = lower(n.value)
	default:
		s.deny(sanKind, "an alternative name is of kind %s: only DNS names and IP addresses are granted", nameKinds[n.kind].name)
		return
	}
	if why := s.cluster.inside(c); why != "" {
		s.deny(sanInCluster, "%s is %s", c, why)
		return
	}
	s.judgeOwner(c)
	s.confirm(c)
}

func (s *serving) isGoodName(name string) bool {
	switch {
	case strings.Contains(name, "*"):
		s.deny(sanWildcard, "DNS name %s has a wildcard", quote(name))
	case isAddressText(name):
		s.deny(sanAddressText, "DNS name %s is an address written as text", quote(name))
	case !isHostName(name):
		s.deny(sanNameInvalid, "DNS name %s is not a host name", quote(name))
	default:
		return true
	}
	return false
}

// judgeOwner judges by what the nodes say.
func (s *serving) judgeOwner(c claim) {
	if s.facts.Nodes == nil || s.name == "" {
		return
	}
	lists := s.isKnown && s.facts.Nodes.lists(s.name, c)
	own := lists && s.node.ControlPlane
	other, taken := s.facts.Nodes.other(s.name, c)
	sure := s.facts.Landed
	switch {
	case taken && other.ControlPlane && !own:
		s.denyIf(sure, sanControlPlane, "%s belongs to control-plane node %s", c, quote(other.Name))
	case slices.Contains(s.cluster.endpoints, c) && !own:
		// A node that is not there yet may become a control plane.
		s.denyIf(sure && s.isKnown, sanControlPlane, "%s is an endpoint of the API server", c)
	case taken && lists:
		s.doubt(sanShared, "%s is listed by Node %s too", c, quote(other.Name))
	case !s.hasNames || lists:
	case taken:
		s.denyIf(sure, sanOtherNode, "%s belongs to Node %s", c, quote(other.Name))
	default:
		s.denyIf(sure, sanNotListed, "%s is not listed by Node %q", c, s.name)
	}
}

// confirm asks the sources that the node cannot write to itself.
func (s *serving) confirm(c claim) {
	ranges := s.policy.AddressRanges
	if len(ranges) > 0 && c.address.IsValid() && !slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(c.address) }) {
		s.deny(sanOutsideRanges, "%s is in none of the ranges of the policy", c)
	}
	if s.policy.Addresses != nil && s.name != "" {
		listed, ok := s.policy.Addresses[s.name]
		if !ok {
			s.doubt(inventoryMissing, "the inventory of the policy does not have node %q", s.name)
		} else if !slices.ContainsFunc(listed, func(text string) bool { return claimOf(text) == c }) {
			s.deny(sanNotConfirmed, "the inventory of the policy does not give %s to node %q", c, s.name)
		}
	}
	if s.policy.DNS && s.name != "" {
		s.confirmByDNS(c)
	}
}

// confirmByDNS starts at the name of the Node, the only one that a node cannot
// choose: what it resolves to is the node's.
func (s *serving) confirmByDNS(c claim) {
	own := s.facts.Resolved[s.name]
	if len(own) == 0 {
		s.doubt(dnsUnknown, "DNS has not given an address for %q", s.name)
		return
	}
	wanted := []netip.Addr{c.address}
	if c.name != "" {
		if wanted = s.facts.Resolved[c.name]; len(wanted) == 0 {
			s.doubt(dnsUnknown, "DNS has not given an address for %s", c)
			return
		}
	}
	for _, ip := range wanted {
		if !slices.ContainsFunc(own, func(o netip.Addr) bool { return o.Unmap() == ip.Unmap() }) {
			s.deny(sanNotInDNS, "DNS does not give %s to node %q", c, s.name)
			return
		}
	}
}

// Lookups returns the names that DNS is to be asked for before a decision, for
// [Facts.Resolved]: none where the policy does not ask DNS. A request with
// hundreds of names is not worth hundreds of questions.
func Lookups(r Request, p Policy) []string {
	const most = 20
	if !p.DNS || r.SignerName != KubeletServingSigner || r.State != Pending {
		return nil
	}
	f, fault := read(r.PEM)
	if fault != nil {
		return nil
	}
	name, ok := strings.CutPrefix(f.asked.CommonName, nodePrefix)
	if !ok || !isNodeName(name) {
		return nil
	}
	names := []string{name}
	for _, n := range f.asked.DNSNames {
		if n = lower(n); isHostName(n) && !isAddressText(n) && len(names) < most && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}
