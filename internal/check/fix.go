package check

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// A fix is a command line for sh, run as root on the finding's node, wherever a
// machine may make the mend; else it is words. A command that leaves a choice has
// one part to fill in, in capitals. What is to be known stands behind beside, and
// goes into Finding.FixNote.
//
// Every path and name in a command comes from files that anybody may have
// written: it is quoted.

// FixKind tells what a fix is.
type FixKind string

// The kinds of a fix.
const (
	FixCommand FixKind = "command" // runs as printed
	FixFillIn  FixKind = "fill-in" // runs once the part in capitals is filled in
	FixWords   FixKind = "words"   // what to do, for a person
)

// beside stands between a command and what is to be known of it; to sh it is a
// comment.
const beside = "  # "

// programs are what commands begin with: all else is words.
var programs = []string{"kubepki", "kubectl", "openssl", "chmod", "chown", "test", "cat", "cp", "mv", "rm", "install", "sed", "grep", "shred", "systemctl", "timedatectl"}

// The parts that are to be filled in.
const (
	backupPart = "BACKUP" // a folder that holds a good copy of the node's /
	otherPart  = "OTHER"  // a folder that holds a copy of another node's /
	filePart   = "FILE"
	serverPart = "HOST:PORT"
)

var fillIn = regexp.MustCompile(`(^|[\s/='])(` + backupPart + "|" + otherPart + "|" + filePart + "|" + serverPart + `)($|[\s/'])`)

// fixKindOf tells what a fix is by its first word and by what is to be filled in.
func fixKindOf(fix string) FixKind {
	first, _, _ := strings.Cut(fix, " ")
	switch {
	case fix == "":
		return ""
	case !slices.Contains(programs, first):
		return FixWords
	case fillIn.MatchString(fix):
		return FixFillIn
	}
	return FixCommand
}

// know adds what is to be known of a command.
func know(command, format string, args ...any) string {
	return command + beside + fmt.Sprintf(format, args...)
}

// plainWord needs no quotes in sh.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// sh makes a command line of words.
func sh(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return strings.Join(quoted, " ")
}

// quote makes one word for sh.
func quote(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// renewNames are the names by which kubepki renew knows kubeadm's files.
var renewNames = map[string]string{
	"apiserver": "apiserver", "apiserver-kubelet-client": "apiserver-kubelet-client", "apiserver-etcd-client": "apiserver-etcd-client",
	"front-proxy-client": "front-proxy-client", "etcd/server": "etcd-server", "etcd/peer": "etcd-peer", "etcd/healthcheck-client": "etcd-healthcheck-client",
	"ca": "ca", "etcd/ca": "etcd-ca", "front-proxy-ca": "front-proxy-ca", "kubelet-ca": "kubelet-ca", "root-ca": "root-ca",
}

// renewEach makes anew what stands at places of one node, each once.
func renewEach(places []trust.Place) string {
	var names []string
	for _, p := range places {
		fix := replace(p.Path)
		name, ok := strings.CutSuffix(strings.TrimPrefix(fix, renewCommand), " --yes")
		if !ok || p.Node != places[0].Node || !strings.HasPrefix(fix, renewCommand) {
			continue
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) < 2 {
		return replace(places[0].Path)
	}
	return renewCommand + strings.Join(names, " ") + " --yes"
}

// restorePair puts an authority back, with its key where that is kept here.
func (c *Case) restorePair(a *trust.Authority) string {
	if c.Material(a.Key).OK() {
		return restore(a.Certificate.Path, a.Key.Path)
	}
	return restore(a.Certificate.Path)
}

// renewCommand begins each fix by kubepki renew.
const renewCommand = "kubepki renew "

// renew makes what stands in a file anew, or an authority's certificate again.
func renew(file string) string {
	name := file
	switch rest, ofPKI := strings.CutPrefix(stem(file), "/etc/kubernetes/pki/"); {
	case ofPKI && renewNames[rest] != "":
		name = renewNames[rest]
	case path.Dir(file) == "/etc/kubernetes" && strings.HasSuffix(file, ".conf"):
		name = path.Base(file)
	case strings.HasPrefix(file, "/var/lib/kubelet/pki/kubelet-client"):
		name = "kubelet.conf"
	}
	return renewCommand + quote(name) + " --yes"
}

// outOfTheWay takes away what stands in the place of a file, before something is
// done: a link that leads to nothing is of no use, all else is kept.
func outOfTheWay(s trust.State, file, then string) string {
	if s == trust.Missing {
		return sh("rm", "-f", file) + " && " + then
	}
	return sh("mv", file, file+".bad") + " && " + then
}

// mendOver is mend where something stands in the file's place that cannot be
// written over: a folder, a loop, a link that leads to nothing.
func (c *Case) mendOver(m *trust.Material) string {
	fix := c.mend(m.Place)
	if m.State == trust.Missing && !strings.HasPrefix(m.Reason, "leads to") {
		return fix
	}
	return outOfTheWay(m.State, m.Place.Path, fix)
}

// overLink is the mend of a kubeconfig that is missing, or a link that leads to
// nothing.
func overLink(k *trust.Kubeconfig) string {
	if strings.HasPrefix(k.Reason, "leads to") {
		return outOfTheWay(k.State, k.Place.Path, replace(k.Place.Path))
	}
	return replace(k.Place.Path)
}

// chmodAll closes files and folders that were opened together, each as its own
// fix does.
func chmodAll(findings []Finding) string {
	var modes []string
	paths := map[string][]string{}
	for _, f := range findings {
		mode, _, _ := strings.Cut(strings.TrimPrefix(f.Fix, "chmod "), " ")
		if paths[mode] == nil {
			modes = append(modes, mode)
		}
		paths[mode] = append(paths[mode], f.Path)
	}
	var parts []string
	for _, mode := range modes {
		parts = append(parts, sh(append([]string{"chmod", mode}, paths[mode]...)...))
	}
	return strings.Join(parts, " && ")
}

// restore puts files back from a copy; others of the node are left alone.
func restore(files ...string) string {
	var parts []string
	for _, f := range files {
		parts = append(parts, sh("cp", "-p", backupPart+f, f))
	}
	return know(strings.Join(parts, " && "), "%s: a folder with a good copy of this node's /, from a backup or another control-plane node; made anew it would fit nothing that is there", backupPart)
}

// exchange puts each of two files in the other's place, with the keys beside them
// where pairs were swapped.
func exchange(a, b trust.Place, pairs bool) string {
	if a.Node != b.Node || a.Field != "" || b.Field != "" {
		return fmt.Sprintf("exchange %s and %s", said(a), said(b))
	}
	files := [][2]string{{a.Path, b.Path}}
	if pairs {
		files = append(files, [2]string{stem(a.Path) + ".key", stem(b.Path) + ".key"})
	}
	var parts []string
	for _, f := range files {
		parts = append(parts, sh("mv", f[0], f[0]+".swap"), sh("mv", f[1], f[0]), sh("mv", f[0]+".swap", f[1]))
	}
	return strings.Join(parts, " && ")
}

// said names a place with its node and field.
func said(p trust.Place) string {
	name := p.Path
	if p.Field != "" {
		name = p.Field + " of " + name
	}
	if p.Node != "" {
		name += " of " + p.Node
	}
	return name
}

// publicKey writes the public half of the service-account key.
func publicKey(key, pub string) string {
	return sh("openssl", "pkey", "-in", key, "-pubout", "-out", pub)
}

// setCluster changes the cluster entry of a kubeconfig.
func setCluster(k trust.Place, name string, flags ...string) string {
	if name == "" || strings.HasPrefix(name, "-") {
		return "set " + strings.Join(flags, " ") + " in the cluster of " + k.Path
	}
	return sh(append([]string{"kubectl", "config", "--kubeconfig", k.Path, "set-cluster", name}, flags...)...)
}

// trustOwn lets a kubeconfig trust the authority of the apiserver.
func (c *Case) trustOwn(k trust.Place, name string, more ...string) string {
	anchor := c.anchorOf(k.Node)
	if anchor == "" {
		return know(setCluster(k, name, append(more, "--certificate-authority="+filePart, "--embed-certs=true")...), "%s: the certificate of the cluster's authority, pki/ca.crt of a control-plane node", filePart)
	}
	return setCluster(k, name, append(more, "--certificate-authority="+anchor, "--embed-certs=true")...)
}

// anchorOf is the file with which the apiserver's certificate is verified on a node:
// the root where the authority is below one. Empty when there is none.
func (c *Case) anchorOf(node string) string {
	for _, name := range []string{"root-ca", "ca"} {
		for _, a := range c.Authorities {
			if a.Node == node && a.Name == name && c.certificateOf(a) != nil {
				return a.Certificate.Path
			}
		}
	}
	return ""
}

// serverBeside is the URL that most other kubeconfigs of a node dial, of those that
// lead to something; empty when there is none.
func (c *Case) serverBeside(k trust.Place) string {
	times, best := map[string]int{}, ""
	for i := range c.Nodes {
		for _, o := range c.Nodes[i].Kubeconfigs {
			if c.Nodes[i].Name == k.Node && o.Place != k.File() && o.State == trust.Present && c.leads(o) {
				if times[o.Server]++; best == "" || times[o.Server] > times[best] {
					best = o.Server
				}
			}
		}
	}
	return best
}

// leads tells whether no break says that nothing serves where a kubeconfig dials.
func (c *Case) leads(k trust.Kubeconfig) bool {
	return strings.HasPrefix(k.Server, "https://") && !slices.ContainsFunc(c.Breaks, func(b Break) bool { return b.Kind == trust.NotServed && b.Place.File() == k.Place })
}

// settle ends each finding: a renewal that the node cannot make becomes what can be
// done instead, what is to be known is taken apart, and the references join.
func (c *Case) settle(findings []Finding) {
	for i := range findings {
		f := &findings[i]
		if f.ID == "bundle-expired" && f.Severity == Error {
			f.Fix = c.currentAnchors(f.places)
		}
		if strings.Contains(f.Fix, renewCommand) && !strings.Contains(f.Fix, " --all") && !c.canRenew(f) {
			f.Fix = c.renewElsewhere(f)
		}
		f.Fix, f.FixNote, _ = strings.Cut(f.Fix, beside)
		f.FixKind = fixKindOf(f.Fix)
		f.References = referencesOf(f)
	}
}

// canRenew tells whether the key of what signs is on the finding's own node, as far
// as is known: a control plane whose folder was not given has it. Where nothing
// tells what signs, the renewal itself says what it lacks.
func (c *Case) canRenew(f *Finding) bool {
	if a := c.ownFile(trust.Place{Node: f.Node, Path: f.Path}); a != nil {
		return c.keyHere(a)
	}
	name := ""
	for _, cred := range c.Credentials {
		at := cred.Certificate
		if at.Node == f.Node && (slices.Contains(f.Paths, at.Path) || slices.Contains(f.Paths, cred.Key.Path)) {
			name = c.authorityFor(cred)
			break
		}
	}
	for _, a := range c.Authorities {
		if a.Node == f.Node && a.Name == name {
			return c.keyHere(&a)
		}
	}
	return name == ""
}

// keyHere tells whether an authority's key is on its node, or may be.
func (c *Case) keyHere(a *trust.Authority) bool {
	key := c.Material(a.Key)
	return key.OK() && key.HasPrivateKey || key != nil && key.State == trust.NotGiven && c.controlPlane(a.Node)
}

// renewElsewhere is the mend where the authority's key is not on the node.
func (c *Case) renewElsewhere(f *Finding) string {
	conf := "/etc/kubernetes/kubelet.conf"
	switch {
	case f.Path == conf || strings.HasPrefix(f.Path, "/var/lib/kubelet/pki/kubelet-client"):
		name := "NAME"
		if n := c.nodeNamed(f.Node); n != nil && n.NodeName != "" {
			name = quote(n.NodeName)
		}
		return know(sh("install", "-m", "600", filePart, conf), "%s: what kubepki kubeconfig node %s --file %[1]s makes on a control-plane node, with this node's name; then restart the kubelet", filePart, name)
	case strings.HasPrefix(f.Path, "/var/lib/kubelet/pki/kubelet."):
		return "make the kubelet's serving pair where the kubelets' authority is (kubepki renew with --root NAME=DIR for both nodes, or kubepki issue), and restart the kubelet"
	}
	if a := c.ownFile(trust.Place{Node: f.Node, Path: f.Path}); a != nil {
		return fmt.Sprintf("certify %s again where its key is, with the same key and name, and put it here and wherever the old one is trusted: the key is not on this node", a.Certificate.Path)
	}
	return fmt.Sprintf("make %s anew where the key of its authority is: kubepki renew with --root NAME=DIR for this node and for that", path.Base(f.Path))
}
