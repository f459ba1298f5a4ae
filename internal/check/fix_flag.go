package check

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// flagValue is what setFlag may write: nothing that sed or YAML would read otherwise.
var flagValue = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]*$`)

// setFlag gives a flag another value in the file that sets it, as --flag=value; run
// twice it changes nothing more. A place that is a field of a configuration file is
// no flag: it is said in words.
func setFlag(at trust.Place, flag, value string) string {
	flag = strings.TrimPrefix(flag, "--")
	if !holdsFlag(at, flag) || !flagValue.MatchString(value) {
		return setWords(at, flag, value)
	}
	if unitOf(at.Path) != "" {
		// In a unit a flag and its value may be two words.
		return inUnit(at, flag, sh("sed", "-i", "-E", `s#(^|[[:space:]"\x27])--`+flag+`(=[^[:space:]"\x27]*|[[:space:]]+[^-[:space:]"\x27\][^[:space:]"\x27]*)#\1--`+flag+`=`+value+`#`, at.Path))
	}
	return sh("sed", "-i", "-E", `s#(^|[[:space:]"\x27])--`+flag+`=[^[:space:]"\x27]*#\1--`+flag+`=`+value+`#`, at.Path)
}

// setWords names the flag, or the field of a configuration file, and the file.
func setWords(at trust.Place, flag, value string) string {
	return fmt.Sprintf("set %s to %s%s", settingName(at, flag), value, in(at))
}

// settingName is how a file calls a setting: by a flag, a variable or a field.
func settingName(at trust.Place, flag string) string { return cmp.Or(at.Field, "--"+flag) }

func in(at trust.Place) string {
	if at.Path == "" {
		return ""
	}
	return " in " + at.Path
}

// inUnit is a command on a flag in a unit: it may stand in a file of the unit's
// environment instead, and nothing takes a unit up by itself.
func inUnit(at trust.Place, flag, command string) string {
	return know(sh("grep", "-q", "-e", "--"+flag+"[=[:space:]]", at.Path)+" && "+command,
		"then systemctl daemon-reload && systemctl restart %s; it fails where the flag does not stand in this file, but in one of the unit's environment", unitOf(at.Path))
}

// unitOf is [catalog.UnitOf].
func unitOf(file string) string { return catalog.UnitOf(file) }

// holdsFlag tells whether a flag stands in a file as a word of a line: in a
// manifest, a unit, or a file of a unit's environment.
func holdsFlag(at trust.Place, flag string) bool {
	if at.Field != "" && at.Field != "--"+flag || !flagValue.MatchString(flag) {
		return false
	}
	switch path.Ext(at.Path) {
	case ".yaml", ".yml", ".service", ".conf", ".env":
		return true
	}
	return false
}

// isManifest tells whether a file is a static pod's, in which each flag has a line.
func isManifest(at trust.Place) bool {
	ext := path.Ext(at.Path)
	return (ext == ".yaml" || ext == ".yml") && (at.Field == "" || strings.HasPrefix(at.Field, "--"))
}

// putFlag gives a component's flag a value, whether it has one or not.
func putFlag(p *trust.Component, flag, value string) string {
	old, set := p.Flag(flag)
	at := p.Setting(flag)
	switch {
	case !set:
		return addFlag(p, flag, value)
	case flagValue.MatchString(old) || !isManifest(at) || !flagValue.MatchString(value):
		return setFlag(at, flag, value)
	}
	// The old value has blanks or quotes in it: the whole item is written anew.
	return sh("sed", "-i", "-E", `s#^([[:space:]]*-[[:space:]]+).?--`+flag+`=.*$#\1--`+flag+`=`+value+`#`, at.Path)
}

// dropFlag takes a line with a flag out of a manifest.
func dropFlag(at trust.Place, flag string) string {
	if !isManifest(at) || !holdsFlag(at, flag) {
		return fmt.Sprintf("take %s out%s", settingName(at, flag), strings.Replace(in(at), " in ", " of ", 1))
	}
	return sh("sed", "-i", "-E", `/^[[:space:]]*-[[:space:]]+["\x27]?--`+flag+`=/d`, at.Path)
}

// addFlag gives a static pod's program one flag more, right behind its name; where
// the flag is there already nothing is changed.
func addFlag(p *trust.Component, flag, value string) string {
	at := p.Setting(flag)
	if !isManifest(at) || at.File() != p.Source || !flagValue.MatchString(value) {
		return setWords(at, flag, value)
	}
	word := "--" + flag + "=" + value
	return sh("grep", "-q", "-e", "--"+flag+"=", at.Path) + " || " +
		sh("sed", "-i", "-E", `/^[[:space:]]*- `+p.Name+`$/{p;s#`+p.Name+`$#`+word+`#}`, at.Path)
}

// useHTTPS gives the URLs of a flag their TLS.
func useHTTPS(p *trust.Component, flag string) string {
	at := p.Setting(flag)
	switch {
	case !holdsFlag(at, flag):
		return fmt.Sprintf("use https in %s%s", settingName(at, flag), in(at))
	case isManifest(at):
		return sh("sed", "-i", "-E", "/--"+flag+"=/s#http://#https://#g", at.Path)
	}
	urls, _ := p.Flag(flag)
	return setFlag(at, flag, strings.ReplaceAll(urls, "http://", "https://"))
}

// roleAuthorities are the flags that name an authority: by kubeadm's name, and by
// what it signs, for layouts that say it.
var roleAuthorities = map[string]struct{ name, signs string }{
	"client-ca-file":                {catalog.ClusterCA, catalog.Clients},
	"root-ca-file":                  {catalog.ClusterCA, "apiserver"},
	"cluster-signing-cert-file":     {catalog.ClusterCA, catalog.Clients},
	"etcd-cafile":                   {catalog.EtcdCA, "etcd-server"},
	"trusted-ca-file":               {catalog.EtcdCA, "apiserver-etcd-client"},
	"peer-trusted-ca-file":          {catalog.EtcdCA, "etcd-peer"},
	"requestheader-client-ca-file":  {catalog.FrontProxyCA, "front-proxy-client"},
	"kubelet-certificate-authority": {catalog.KubeletCA, "kubelet-server"},
}

// authorityOfFlag is the authority of a node that a flag is meant for, nil when the
// node has none.
func (c *Case) authorityOfFlag(node, flag string) *trust.Authority {
	role, known := roleAuthorities[flag]
	if !known {
		return nil
	}
	var named *trust.Authority
	for i := range c.Authorities {
		a := &c.Authorities[i]
		switch {
		case a.Node != node || c.certificateOf(*a) == nil:
		case slices.Contains(a.Signs, role.signs):
			return a
		case a.Name == role.name:
			named = a
		}
	}
	return named
}

// ownPairs are kubeadm's files of a flag, below its folder of certificates.
var ownPairs = map[string]string{
	"tls-cert-file": "apiserver.crt", "tls-private-key-file": "apiserver.key",
	"kubelet-client-certificate": "apiserver-kubelet-client.crt", "kubelet-client-key": "apiserver-kubelet-client.key",
	"etcd-certfile": "apiserver-etcd-client.crt", "etcd-keyfile": "apiserver-etcd-client.key",
	"proxy-client-cert-file": "front-proxy-client.crt", "proxy-client-key-file": "front-proxy-client.key",
	"service-account-key-file": "sa.pub", "service-account-signing-key-file": "sa.key", "service-account-private-key-file": "sa.key",
	"cluster-signing-key-file": "ca.key",
	"cert-file":                "etcd/server.crt", "key-file": "etcd/server.key", "peer-cert-file": "etcd/peer.crt", "peer-key-file": "etcd/peer.key",
}

// ownKeys are the flags of keys that go with a flag of a certificate.
var ownKeys = map[string]string{
	"tls-cert-file": "tls-private-key-file", "kubelet-client-certificate": "kubelet-client-key", "etcd-certfile": "etcd-keyfile",
	"proxy-client-cert-file": "proxy-client-key-file", "cert-file": "key-file", "peer-cert-file": "peer-key-file",
}

// ownFileOf is the file that a flag of a component is meant to name; empty where the
// layout does not tell it.
func (c *Case) ownFileOf(p *trust.Component, flag string) string {
	if flag == "root-ca-file" && c.anchorOf(p.Node) != "" {
		return c.anchorOf(p.Node)
	}
	if a := c.authorityOfFlag(p.Node, flag); a != nil {
		return a.Certificate.Path
	}
	a := c.authorityOfFlag(p.Node, "client-ca-file")
	switch n := c.nodeNamed(p.Node); {
	case n == nil || n.Layout != "kubeadm":
		return ""
	case strings.HasSuffix(flag, "kubeconfig"):
		return catalog.Conf(strings.TrimPrefix(p.Name, "kube-") + ".conf")
	case strings.HasPrefix(flag, "tls-") && p.Name != catalog.APIServer, ownPairs[flag] == "" || a == nil:
		return ""
	}
	return path.Join(path.Dir(a.Certificate.Path), ownPairs[flag])
}

// setBy returns the component that a setting is of; nil when none is.
func (c *Case) setBy(setting trust.Place) (p *trust.Component, flag string) {
	for i := range c.Nodes {
		for j := range c.Nodes[i].Components {
			k := &c.Nodes[i].Components[j]
			for flag := range k.Flags {
				if k.Setting(flag) == setting {
					return k, flag
				}
			}
		}
	}
	return nil, strings.TrimPrefix(setting.Field, "--")
}

// ownRole lets a flag name the file of its own role, and the flag of its key that
// one's, where they are on the node.
func (c *Case) ownRole(setting trust.Place) string {
	words := fmt.Sprintf("set %s in %s to the file of its own role", setting.Field, setting.Path)
	p, flag := c.setBy(setting)
	if p == nil {
		return words
	}
	var there, set []string
	for _, f := range []string{flag, ownKeys[flag]} {
		file := c.ownFileOf(p, f)
		fix := setFlag(p.Setting(f), f, file)
		switch now, _ := p.Flag(f); {
		case f == "" || now == file && f != flag:
			continue
		case file == "" || fixKindOf(fix) != FixCommand:
			return words
		}
		there, set = append(there, sh("test", "-f", file)), append(set, fix)
	}
	return joinCommands(append(there, set...))
}

// joinCommands does several things one after the other; what is to be known of one
// is known of all.
func joinCommands(commands []string) string {
	var parts, notes []string
	for _, command := range commands {
		part, note, noted := strings.Cut(command, beside)
		parts = append(parts, part)
		if noted && !slices.Contains(notes, note) {
			notes = append(notes, note)
		}
	}
	if len(notes) == 0 {
		return strings.Join(parts, " && ")
	}
	return know(strings.Join(parts, " && "), "%s", strings.Join(notes, "; "))
}

// kubeletClients lets a kubelet's configuration name the authority of its clients:
// an empty x509 goes, in block or flow form, and the field comes with the indent of
// what stands there.
func (c *Case) kubeletClients(p *trust.Component) string {
	at := p.Source
	a := c.authorityOfFlag(p.Node, "client-ca-file")
	if a == nil || path.Ext(at.Path) != ".yaml" || !flagValue.MatchString(a.Certificate.Path) {
		return "set authentication.x509.clientCAFile in " + at.Path
	}
	file := a.Certificate.Path
	return sh("sed", "-i", "-E", `/^[[:space:]]+x509:[[:space:]]*(\{[[:space:]]*\})?[[:space:]]*$/d;/^[[:space:]]+clientCAFile:/d;s#(\{|, *)x509: *\{[^}]*\}#\1x509: {clientCAFile: `+file+`}#`, at.Path) + " && (" +
		sh("grep", "-q", "clientCAFile", at.Path) + " || " +
		sh("sed", "-i", "-E", `/^authentication:[[:space:]]*$/{n;s#^([[:space:]]+)(.*)$#\1x509:\n\1  clientCAFile: `+file+`\n\1\2#}`, at.Path) + ") && " +
		sh("grep", "-q", "clientCAFile", at.Path) + " && systemctl restart kubelet"
}

// signAgain lets the controller-manager sign with the cluster's own authority.
func (c *Case) signAgain(p *trust.Component, flag string) string {
	if a := c.authorityOfFlag(p.Node, "cluster-signing-cert-file"); a != nil {
		return c.signWith(p.Node, flag, a)
	}
	return fmt.Sprintf("set %s%s to the cluster's authority, and its key with it", settingName(p.Setting(flag), flag), in(p.Setting(flag)))
}

// verifyKubelets lets a node's apiserver verify kubelets by the authority that
// signed for one.
func (c *Case) verifyKubelets(node, authority string, others bool) string {
	fix := "set --kubelet-certificate-authority to the authority of the kubelets' serving certificates"
	c.components(catalog.APIServer, func(p *trust.Component) {
		if p.Node == node {
			fix = c.authorityFix(p, "kubelet-certificate-authority", authority)
		}
	})
	if fixKindOf(fix) == FixWords {
		return fix
	}
	note := "once every kubelet serves a certificate of it: logs and exec of the others fail then"
	if others {
		note += "; the same on the other control planes"
	}
	return know(fix, "%s", note)
}

// portBack lets the apiserver listen where it is dialled.
func (c *Case) portBack(setting trust.Place, dialled, now string) string {
	fix := setFlag(setting, "secure-port", dialled)
	if fixKindOf(fix) == FixWords {
		return fmt.Sprintf("%s, or let all kubeconfigs dial %s", fix, now)
	}
	command, note, noted := strings.Cut(fix, beside)
	if noted {
		note += "; "
	}
	return know(command, "%sor let all kubeconfigs dial %s", note, now)
}
