package check

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// nodeNamed returns a node that was read, nil when there is none of the name.
func (c *Case) nodeNamed(name string) *trust.Node {
	for i := range c.Nodes {
		if c.Nodes[i].Name == name {
			return &c.Nodes[i]
		}
	}
	return nil
}

// distribution returns what the distribution of a node arranges; nil when the
// node has none.
func (c *Case) distribution(node string) *catalog.Distribution {
	if n := c.nodeNamed(node); n != nil {
		return catalog.DistributionNamed(n.Layout)
	}
	return nil
}

// byDesign tells a finding that the defaults of a distribution give as what it is:
// worth knowing, and no fault of this cluster.
func (c *Case) byDesign(f Finding) Finding {
	d := c.distribution(f.Node)
	if d == nil || !slices.Contains(d.ByDesign, f.ID) {
		return f
	}
	f.Severity = Info
	f.Cause += fmt.Sprintf(" (the default of %s)", d.Name)
	if d.Name == catalog.LayoutMicroK8s && f.ID == "authorization-open" {
		f.Fix = "microk8s enable rbac"
	}
	return f
}

// inItsTerms puts the mend of a finding into the commands of the node's distribution.
func (c *Case) inItsTerms(f Finding) Finding {
	d := c.distribution(f.Node)
	if d == nil || f.Fix == "" {
		return f
	}
	n := c.nodeNamed(f.Node)
	data, server := catalog.DataOf(n), c.controlPlane(f.Node)
	command, always, known := d.Mends.For(data, f.Path, server)
	switch {
	case strings.HasPrefix(f.Fix, restartWords):
		_, note, _ := strings.Cut(f.Fix, beside)
		f.Fix = d.Mends.OnUnit(d.Mends.Restart, server) // all of the node is one process
		if note != "" {
			f.Fix = know(f.Fix, "%s", note)
		}
	case f.ID == "key-permissions":
		f.Fix = permissionFix(d, f)
	case known && (always || makesAnew(f.Fix) || f.ID == "kubelet-serving-self-signed"):
		f.Fix = command
	case strings.HasPrefix(f.Fix, renewAuthority), makesAnew(f.Fix) && c.ownFile(trust.Place{Node: f.Node, Path: f.Path}) != nil:
		f.Fix = d.Mends.OnUnit(d.Mends.Authority, server)
	case strings.HasPrefix(f.Fix, "openssl pkey -in "):
		command, _, _ := strings.Cut(f.Fix, beside)
		f.Fix = command + " && " + d.Mends.OnUnit(d.Mends.Restart, server)
	case makesAnew(f.Fix):
		f.Fix = fmt.Sprintf("restore %s from a backup, and then %s", f.Path, d.Mends.OnUnit(d.Mends.Restart, server))
	case f.ID == "kubelet-unverified":
		f.Fix = "set --kubelet-certificate-authority of kube-apiserver to " + c.serverAuthority(f.Node)
	}
	if d.Mends.Leaves != "" {
		f.Fix = strings.Replace(f.Fix, "or make all of its certificates anew", "or "+d.Mends.Leaves, 1)
		f.Fix = strings.Replace(f.Fix, "and make the certificates there anew", "and "+d.Mends.OnUnit(d.Mends.Restart, server)+" there", 1)
	}
	f.Fix = strings.ReplaceAll(f.Fix, "/etc/kubernetes/pki/ca.crt", c.serverAuthority(f.Node))
	for _, component := range []string{"kube-apiserver there", "kube-apiserver", "kube-controller-manager"} {
		f.Fix = strings.ReplaceAll(f.Fix, "restart "+component, "then "+d.Mends.OnUnit(d.Mends.Restart, server))
	}
	return f
}

// makesAnew tells whether a mend is that of kubepki's own files.
func makesAnew(fix string) bool {
	return strings.Contains(fix, renewCommand) || strings.HasPrefix(fix, "move ") || strings.HasPrefix(fix, "give the node a fresh ") || strings.HasPrefix(fix, "kubectl config ")
}

// permissionFix keeps the bits that the distribution needs.
func permissionFix(d *catalog.Distribution, f Finding) string {
	fix := strings.ReplaceAll(f.Fix, "chmod 600", fmt.Sprintf("chmod %o", 0o600|d.Modes))
	if strings.HasPrefix(f.Path, "/etc/rancher/") {
		fix = know(fix, "and write-kubeconfig-mode: \"0600\" in /etc/rancher/%s/config.yaml, or it comes back at the next start", d.Name)
	}
	return fix
}

// serverAuthority is the file of the authority that the apiserver's certificate
// is of, on a node.
func (c *Case) serverAuthority(node string) string {
	for _, a := range c.Authorities {
		if a.Node == node && slices.Contains(a.Signs, "apiserver") {
			return a.Certificate.Path
		}
	}
	return "the cluster's authority"
}

// sameAuthorityName compares the names of authorities. k3s and RKE2 put the
// second in which they make one behind its name.
func sameAuthorityName(a, b string) bool {
	return withoutTime(a) != a && withoutTime(a) == withoutTime(b)
}

func withoutTime(name string) string {
	before, digits, ok := strings.Cut(name, "-ca@")
	if ok && digits != "" && strings.Trim(digits, "0123456789") == "" {
		return before
	}
	return name
}

// mayOutlive is by how much a certificate of a node may outlive its authority.
func (c *Case) mayOutlive(node string) time.Duration {
	if d := c.distribution(node); d != nil {
		return d.Outlives
	}
	return 0
}

// authorityNames are those that control planes must share: kubeadm's, and those
// that distributions call otherwise.
func (c *Case) authorityNames() []string {
	names := []string{"ca", "front-proxy-ca", "etcd-ca"}
	for _, a := range c.Authorities {
		if a.Signs != nil && !slices.Contains(names, a.Name) {
			names = append(names, a.Name)
		}
	}
	return names
}

// byCommonRoot tells an authority that is shared only through the root behind it
// as what it is where the distribution has all of its authorities below one root
// by design: worth knowing.
func (c *Case) byCommonRoot(f Finding, intruder *trust.Credential) Finding {
	anchors := f.needs[len(f.needs)-1]
	d := c.distribution(anchors.Node)
	if d == nil || !d.Chained || admits(c.Material(anchors).Certificates[:1], c.Material(intruder.Certificate).Certificates) {
		return f
	}
	f.Severity, f.cascade = Info, false
	f.Cause += fmt.Sprintf(" (through the common root, which %s keeps in the files of all authorities)", d.Name)
	f.Fix = "keep the root out of this file where that matters: an authority's own certificate is enough of an anchor"
	return f
}

// joinUnseen adds a place to the finding that says the same of the same path on
// another node of a distribution: each of its servers has one.
func (c *Case) joinUnseen(all []Finding, n trust.NotSeen) bool {
	if n.Denied || c.distribution(n.Place.Node) == nil {
		return false
	}
	for i := range all {
		if all[i].Cause == n.Reason && all[i].Path == n.Place.Path {
			all[i] = all[i].at(append(all[i].places, n.Place)...)
			return true
		}
	}
	return false
}
