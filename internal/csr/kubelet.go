package csr

import (
	"slices"
	"strings"
)

// kubelet judges what the requests of a kubelet's two signers have in common,
// and returns the name of the node, "" where it has none that is valid.
func (j *judgement) judgeKubelet(r Request, f *form, p Policy, usage string) (node string) {
	for _, oid := range f.raw.attributes {
		j.deny(attributeSurplus, "the request has the attribute %s", oid)
	}
	for _, e := range f.raw.extensions {
		if e.oid != oidSubjectAltName {
			j.deny(extensionSurplus, "the request asks for the extension %s", e.oid)
		}
	}
	j.judgeUsages(r.Usages, usage, f.asked.Key.Kind, p)
	return j.judgeSubject(f.raw.subject)
}

// judgeSubject wants one common name and one organization, each in its own RDN,
// in either order, and nothing else.
func (j *judgement) judgeSubject(subject [][]attribute) (node string) {
	var commonNames, organizations []string
	for _, rdn := range subject {
		if len(rdn) != 1 {
			j.deny(subjectMalformed, "the subject has several attributes in one RDN")
		}
		for _, a := range rdn {
			if !a.isText() {
				j.deny(subjectMalformed, "attribute %s of the subject is not plain PrintableString or UTF8String", a.oid)
			}
			switch a.oid {
			case oidCommonName:
				commonNames = append(commonNames, a.value)
			case oidOrganization:
				organizations = append(organizations, a.value)
			default:
				j.deny(subjectSurplus, "the subject has the attribute %s", a.oid)
			}
		}
	}
	if len(organizations) != 1 || organizations[0] != nodesGroup {
		j.deny(subjectOrganization, "the subject has not exactly one organization, %s", nodesGroup)
	}
	if len(commonNames) != 1 {
		j.deny(subjectCommonName, "the subject has %d common names", len(commonNames))
		return ""
	}
	name, ok := strings.CutPrefix(commonNames[0], nodePrefix)
	if !ok || !isNodeName(name) {
		j.deny(subjectCommonName, "the common name %s is not %s and a valid name of a node", quote(commonNames[0]), nodePrefix)
		return ""
	}
	return name
}

// judgeUsages wants digital signature and the usage of the signer, and lets key
// encipherment be where the key can do it.
func (j *judgement) judgeUsages(usages []string, usage, kind string, p Policy) {
	const signature, encipherment = "digital signature", "key encipherment"
	sorted := slices.Sorted(slices.Values(usages))
	bare := slices.DeleteFunc(slices.Clone(sorted), func(u string) bool { return u == encipherment })
	want := slices.Sorted(slices.Values([]string{signature, usage}))
	if !slices.Equal(bare, want) || len(sorted) > len(want)+1 {
		j.deny(usagesWrong, "the usages are not exactly %q, %q and, with an RSA key, %q", signature, usage, encipherment)
	}
	if len(bare) < len(sorted) && kind != "RSA" && !(kind == "ECDSA" && p.AllowKeyEnciphermentWithECDSA) {
		j.deny(usageEncipherment, "usage %q is of no use with a key that is not RSA", encipherment)
	}
}

func (j *judgement) judgeKubeletClient(r Request, form *form, f Facts, p Policy) {
	node := j.judgeKubelet(r, form, p, "client auth")
	if form.raw.hasNames {
		j.deny(sanNotAllowed, "a kubelet's client certificate has no alternative names")
	}
	if node == "" {
		return
	}
	itself := r.Username == nodePrefix+node && slices.Contains(r.Groups, nodesGroup)
	isNode := strings.HasPrefix(r.Username, nodePrefix) || slices.Contains(r.Groups, nodesGroup)
	bootstraps := slices.ContainsFunc(r.Groups, func(g string) bool { return slices.Contains(p.BootstrapGroups, g) })
	switch {
	case isNode && r.Username != nodePrefix+node:
		j.deny(requesterOtherNode, "a node may ask only for itself, %s asks for %s", quote(r.Username), quote(node))
		return
	case itself:
		j.approve(nodeRenews, "node %q asks for its next client certificate", node)
	case bootstraps:
		j.approve(nodeBootstraps, "a bootstrapper asks for the first client certificate of node %q", node)
	default:
		j.doubt(requesterNoBootstrap, "requester %s is neither the node nor in a bootstrap group", quote(r.Username))
		return
	}
	switch f.Authorized {
	case Yes:
	case No:
		j.doubt(requesterNotAuthorized, "requester %s has no permission to ask for this", quote(r.Username))
	default:
		j.doubt(authorizationUnknown, "it is not known whether requester %s has the permission to ask for this", quote(r.Username))
	}
	if f.Nodes == nil {
		j.doubt(nodesUnknown, "it is not known which nodes there are")
		return
	}
	n, _ := f.Nodes.Node(node)
	switch {
	case n.Deleting:
		j.doubt(nodeDeleting, "Node %q is being deleted", node)
	case n.Ready && !itself && !p.AllowReadyNodeRejoin:
		j.doubt(nodeReady, "Node %q is Ready: it has a certificate", node)
	}
}
