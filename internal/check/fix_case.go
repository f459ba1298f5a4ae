package check

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// both does two things, in words where one of them is.
func both(a, b string) string {
	if fixKindOf(a) == FixWords || fixKindOf(b) == FixWords {
		return a + ", and " + b
	}
	return joinCommands([]string{a, b})
}

// certifyAgain is the mend of an authority whose certificate ends or is no
// authority's, while its key is good.
func (c *Case) certifyAgain(places []trust.Place) string {
	for _, p := range places {
		own := c.ownFile(p)
		if own == nil {
			continue
		}
		if fresh := c.certifiedElsewhere(own); fresh != nil {
			return c.freshCopy(c.ownFilesOf(places), fresh)
		}
		fix := renew(p.Path)
		if len(places) > 1 {
			fix = know(fix, "the key stays, so that all that it signed goes on working; then put the new certificate wherever the old one stands")
		}
		return fix
	}
	for _, cred := range c.Credentials {
		if slices.Contains(places, cred.Certificate) {
			return replace(cred.Certificate.Path) // it stands in a chain, which is made anew with the leaf
		}
	}
	return renewAuthority
}

// ownFilesOf leaves out the copies that are no authority's own file.
func (c *Case) ownFilesOf(places []trust.Place) []trust.Place {
	return slices.DeleteFunc(slices.Clone(places), func(p trust.Place) bool { return c.ownFile(p) == nil })
}

// certifiedElsewhere is the same authority on another node, where its certificate
// is good by now; nil when it is nowhere.
func (c *Case) certifiedElsewhere(own *trust.Authority) *trust.Authority {
	old := c.certificateOf(*own)
	for i := range c.Authorities {
		a := &c.Authorities[i]
		m := c.certificateOf(*a)
		if old == nil || m == nil || a.Node == own.Node || a.Name != own.Name || !trust.SameKey(m.Leaf().PublicKey, old.Leaf().PublicKey) {
			continue
		}
		if x := m.Leaf(); x.IsCA && (x.KeyUsage == 0 || x.KeyUsage&x509.KeyUsageCertSign != 0) && !c.At.After(x.NotAfter) && !c.At.Before(x.NotBefore) && x.NotAfter.After(old.Leaf().NotAfter) {
			return a
		}
	}
	return nil
}

// sooner is the mend of what is not valid yet.
func (c *Case) sooner(s standing) string {
	fix := replace(s.places[0].Path)
	if slices.ContainsFunc(s.places, c.standsAsAuthority) {
		fix, _, _ = strings.Cut(c.certifyAgain(s.places), beside)
	}
	return know(fix, "see first with timedatectl whether the machine's clock is right")
}

// stronger is the mend of a weak key.
func (c *Case) stronger(s standing) string {
	if slices.ContainsFunc(s.places, c.standsAsAuthority) {
		return "replace the authority, and with it all that it signed: its key cannot be made stronger"
	}
	return replace(s.places[0].Path)
}

// freshCopy puts the authority's own certificate wherever the old copy stands on
// the node of the first place.
func (c *Case) freshCopy(places []trust.Place, own *trust.Authority) string {
	var fix string
	var notes []string
	note := func(text string) {
		if !slices.Contains(notes, text) {
			notes = append(notes, text)
		}
	}
	for _, p := range places {
		if p.Node != places[0].Node {
			continue
		}
		from := c.localCopy(p, own)
		one := sh("cp", cmp.Or(from, otherPart+own.Certificate.Path), p.Path)
		if name := clusterName(p.Field); name != "" {
			one = setCluster(p.File(), name, "--certificate-authority="+cmp.Or(from, otherPart+own.Certificate.Path), "--embed-certs=true")
		}
		if from == "" {
			note(fmt.Sprintf("%s: a folder with a copy of / of node %s", otherPart, own.Node))
		}
		if fix != "" {
			one = both(fix, one)
		}
		fix = one
	}
	if slices.ContainsFunc(places, func(p trust.Place) bool { return p.Node != places[0].Node }) {
		note("the same on the other nodes")
	}
	if len(notes) > 0 {
		return know(fix, "%s", strings.Join(notes, "; "))
	}
	return fix
}

// localCopy is a file of a place's node that holds the authority, empty when none.
func (c *Case) localCopy(p trust.Place, own *trust.Authority) string {
	for _, a := range c.Authorities {
		m := c.certificateOf(a)
		if a.Node == p.Node && a.Name == own.Name && a.Certificate != p && m != nil && hasKeyOf(m, c.certificateOf(*own).Leaf()) {
			return a.Certificate.Path
		}
	}
	return ""
}

func (c *Case) rootCAFix(setting trust.Place) string {
	if at := c.anchorOf(setting.Node); at != "" && setting.Field == rootCAFlag {
		return setFlag(setting, rootCAFlag, at)
	}
	return fmt.Sprintf("set %s to the cluster's authority and restart kube-controller-manager", rootCAFlag)
}

// completeChain appends the intermediate, for which no key is needed, where its own
// file is on the node.
func (c *Case) completeChain(at trust.Place, leaf certificate) string {
	if a := c.issuer(at.Node, leaf); a != nil && a.Node == at.Node && at.Field == "" {
		return quoteAppend(sh("cat", a.Certificate.Path), at.Path)
	}
	return replace(at.Path)
}

func quoteAppend(command, file string) string { return command + " >> " + quote(file) }

// currentAnchors is the mend of bundles that hold old certificates of an authority
// whose own file has a newer one: of all that are on the node of the first.
func (c *Case) currentAnchors(bundles []trust.Place) string {
	var fix string
	for _, b := range bundles {
		if b.Node != bundles[0].Node {
			continue
		}
		one := c.currentAnchor(b)
		if fix != "" {
			one = both(fix, one)
		}
		fix = one
	}
	return fix
}

func (c *Case) currentAnchor(b trust.Place) string {
	if name := clusterName(b.Field); name != "" {
		return c.trustOwn(b.File(), name)
	}
	old := c.Material(b).Leaf()
	for _, a := range c.Authorities {
		if m := c.certificateOf(a); a.Node == b.Node && m != nil && old != nil && bytes.Equal(m.Leaf().RawSubject, old.RawSubject) && !c.At.After(m.Leaf().NotAfter) {
			return sh("cp", a.Certificate.Path, b.Path)
		}
	}
	for i := range c.Authorities {
		a := &c.Authorities[i]
		if m := c.certificateOf(*a); a.Node != b.Node && c.authorityItself(a.Certificate) && m != nil && old != nil && hasKeyOf(m, old) && !c.At.After(m.Leaf().NotAfter) {
			return c.freshCopy([]trust.Place{b}, a)
		}
	}
	return "copy the current certificate of the authority to " + b.Path
}

// pruneExpired takes expired anchors out of a bundle that has others.
func (c *Case) pruneExpired(b *trust.Bundle) string {
	if b.Anchors.Field != "" {
		return "take the expired certificate out"
	}
	return sh("kubepki", "trust", "prune", "file:"+b.Anchors.Path, "--yes")
}

// clientCAFix names the authority of a server's clients.
func (c *Case) clientCAFix(p *trust.Component, flag string) string {
	name := "ca"
	if p.Name == "etcd" {
		name = "etcd-ca"
	}
	return c.authorityFix(p, flag, name)
}

// authorityFix lets a flag that is not set name an authority of the node.
func (c *Case) authorityFix(p *trust.Component, flag, name string) string {
	for _, a := range c.Authorities {
		if a.Node == p.Node && a.Name == name {
			return addFlag(p, flag, a.Certificate.Path)
		}
	}
	return fmt.Sprintf("set %s%s", settingName(p.Setting(flag), flag), in(p.Setting(flag)))
}

// singleSigner lets the controller-manager sign with the authority's own file.
func (c *Case) singleSigner(p *trust.Component, flag string) string {
	a := c.authority("ca", p.Node)
	v, _ := p.Flag(flag)
	if own := path.Join(path.Dir(v), "cluster-signing.crt"); a != nil && a.Node == p.Node && a.Certificate.Path == v && hasKey(c.Material(a.Key), c.certificateOf(*a).Leaf().PublicKey) {
		// openssl takes the first certificate of a file: the one that the key is of.
		return both(sh("openssl", "x509", "-in", v, "-out", own), setFlag(p.Setting(flag), flag, own))
	}
	if a == nil || a.Node != p.Node || a.Certificate.Path == v || len(c.certificateOf(*a).Certificates) != 1 {
		return fmt.Sprintf("keep only the signing authority's certificate in a file of its own and name it in --%s", flag)
	}
	return setFlag(p.Setting(flag), flag, a.Certificate.Path)
}

// signWith sets both flags of a signer.
func (c *Case) signWith(node, flag string, a *trust.Authority) string {
	fix := fmt.Sprintf("set --%s to %s, and its key with it", flag, a.Certificate.Path)
	c.components("kube-controller-manager", func(p *trust.Component) {
		if key := strings.TrimSuffix(flag, "cert-file") + "key-file"; p.Node == node && a.Node == node {
			fix = both(setFlag(p.Setting(flag), flag, a.Certificate.Path), setFlag(p.Setting(key), key, a.Key.Path))
		}
	})
	return fix
}

// issuerFix issues tokens under the name that the others use, and takes those
// that were issued before.
func issuerFix(p *trust.Component, own, others string) string {
	if !isManifest(p.Setting("service-account-issuer")) || !flagValue.MatchString(own+others) {
		return "give --service-account-issuer the same first value everywhere, and list the other as a second"
	}
	flag := "--service-account-issuer="
	fix := sh("sed", "-i", "-E", `s#^([[:space:]]*-[[:space:]]+)`+flag+regexp.QuoteMeta(own)+`$#\1`+flag+others+`\n\1`+flag+own+`#`, p.Source.Path)
	return know(sh("grep", "-q", "-e", flag+others, p.Source.Path)+" || "+fix, "the old name stays as a second, for tokens that were issued under it")
}

// addPublicKey lets an apiserver verify what another key signs.
func (c *Case) addPublicKey(key, pub trust.Place) string {
	half := sh("openssl", "pkey", "-in", key.Path, "-pubout")
	if key.Node == pub.Node {
		return know(quoteAppend(half, pub.Path), "then restart kube-apiserver")
	}
	return know(quoteAppend(sh("cat", filePart), pub.Path), "%s: what this prints on node %s: %s; then restart kube-apiserver; the same on each node named", filePart, key.Node, half)
}

// dialRight lets a kubeconfig dial what the others of its node do.
func (c *Case) dialRight(at trust.Place) string {
	name := clusterName(at.Field)
	if server := c.serverBeside(at); server != "" {
		return setCluster(at.File(), name, "--server="+server)
	}
	return know(setCluster(at.File(), name, "--server=https://"+serverPart), "%s: as the kubeconfigs of other nodes have it", serverPart)
}

func dropServerName(at trust.Place) string {
	name := clusterName(at.Field)
	if !flagValue.MatchString(name) || strings.HasPrefix(name, "-") {
		return fmt.Sprintf("take %s out of %s", at.Field, at.Path)
	}
	return sh("kubectl", "config", "--kubeconfig", at.Path, "unset", "clusters."+name+".tls-server-name")
}

// takeOver gives a control plane that stands alone the authority of the others.
func takeOver(odd, other trust.Place) string {
	key := func(p trust.Place) string { return stem(p.Path) + ".key" }
	again := renewCommand + "--all --yes"
	switch path.Base(stem(odd.Path)) {
	case "front-proxy-ca":
		again = renewCommand + "front-proxy-client --yes"
	case "ca":
		if path.Base(path.Dir(odd.Path)) == "etcd" {
			again = renewCommand + "etcd-server etcd-peer etcd-healthcheck-client apiserver-etcd-client --yes"
		}
	}
	return know(sh("cp", "-p", otherPart+other.Path, odd.Path)+" && "+sh("cp", "-p", otherPart+key(other), key(odd))+" && "+again,
		"%s: a folder with a copy of / of node %s, which most agree with", otherPart, other.Node)
}

// kubeletSettings are the fields of a kubelet's configuration that rules judge: the
// expression that finds a bad value, in block or flow form, and what takes its place.
var kubeletSettings = map[string]string{
	"anonymous-auth":     `/anonymous"?:/{/enabled/!N;s/(anonymous"?:[[:space:]]*\{?[[:space:]]*"?enabled"?:[[:space:]]*)true/\1false/}`,
	"authorization-mode": `s/("?mode"?:[[:space:]]*"?)AlwaysAllow/\1Webhook/`,
	"read-only-port":     `s/("?readOnlyPort"?:[[:space:]]*)[0-9]+/\10/`,
}

// kubeletFix sets a field of the kubelet's configuration.
func kubeletFix(at trust.Place, flag, words string) string {
	if path.Ext(at.Path) != ".yaml" {
		return words
	}
	return sh("sed", "-i", "-E", kubeletSettings[flag], at.Path) + " && systemctl restart kubelet"
}

// allowName lets a front proxy of a name in, beside those that are let in.
func allowName(p *trust.Component, name string) string {
	old, _ := p.Flag("requestheader-allowed-names")
	var names []string
	for n := range strings.SplitSeq(old, ",") {
		if n = strings.Trim(n, " \t\"'"); n != "" && n != name {
			names = append(names, n)
		}
	}
	return putFlag(p, "requestheader-allowed-names", strings.Join(append(names, name), ","))
}

// bundleAgain is the mend of a bundle that cannot be used; a kubeconfig's file of
// the apiserver's authority is a copy.
func (c *Case) bundleAgain(p trust.Place) string {
	of := slices.ContainsFunc(c.Bundles, func(b *trust.Bundle) bool { return b.Anchors == p && strings.HasPrefix(b.Setting.Field, "clusters[") })
	if at := c.anchorOf(p.Node); of && at != "" && at != p.Path {
		return sh("cp", at, p.Path)
	}
	return restore(p.Path)
}
