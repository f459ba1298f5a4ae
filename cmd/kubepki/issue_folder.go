package main

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// authorityFlags say where an authority is looked for.
type authorityFlags struct {
	root, pki, authority, key string
}

func (f *authorityFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.root, "root", "/", "folder that stands for / of a node, or that holds such folders")
	flags.StringVar(&f.pki, "pki", "", "bare folder of authorities (ca.crt, ca.key, etcd/ca.crt, ...) instead of --root")
	flags.StringVar(&f.authority, "authority", "", "who signs: ca, etcd-ca, front-proxy-ca, kubelet-ca, root-ca, or a certificate FILE (default: by role)")
	flags.StringVar(&f.key, "authority-key", "", "private key of an --authority FILE (default: beside it, with .key)")
}

// check refuses flags that contradict each other.
func (f *authorityFlags) check(flags *pflag.FlagSet) error {
	switch {
	case flags.Changed("root") && f.pki != "":
		return usagef("--root is a node's / and --pki a bare folder of authorities: give one of them")
	case f.root == "":
		return usagef("--root names no folder")
	case f.key != "" && !isAuthorityFile(f.authority):
		return usagef("--authority-key belongs to an --authority that is a file")
	case f.authority != "" && !isAuthorityFile(f.authority) && !slices.Contains(authorityNames, f.authority):
		return usagef("--authority %q is none of %s, nor a file (with a / or .crt in its name)", f.authority, strings.Join(authorityNames, ", "))
	}
	return nil
}

var authorityNames = []string{catalog.ClusterCA, catalog.EtcdCA, catalog.FrontProxyCA, catalog.KubeletCA, catalog.RootCA}

func isAuthorityFile(name string) bool {
	return strings.ContainsRune(name, '/') || slices.Contains([]string{".crt", ".pem", ".cer"}, filepath.Ext(name))
}

// folder is what is known of the authorities of a cluster.
type folder struct {
	from        string // as the user named it
	authorities []folderAuthority
	kubeconfigs []trust.Kubeconfig
}

// folderAuthority is one authority as the disk has it.
type folderAuthority struct {
	name        string
	path        string // of the certificate, on this machine
	certificate *trust.Material
	keyPath     string
	key         crypto.Signer
	keyProblem  string // why the key is not at hand
}

// readFolder reads the authorities that --root or --pki names.
func (f *authorityFlags) readFolder() (*folder, error) {
	if f.pki != "" {
		return readBare(f.pki)
	}
	nodes, keys, err := readCluster(cluster{nodes: []nodeRoot{{dir: f.root}}})
	if err != nil {
		if errors.As(err, new(*layout.UnknownError)) {
			err = advise(err, "name a node's / with --root, a bare folder with --pki, or a certificate with --authority FILE")
		}
		return nil, err
	}
	g := catalog.Wire(nodes)
	dirs := map[string]string{}
	for _, r := range expand(nodeRoot{dir: f.root}) {
		dirs[r.name] = r.dir
	}
	all := &folder{from: f.root}
	for _, a := range g.Authorities {
		one := folderAuthority{
			name: a.Name, path: filepath.Join(dirs[a.Node], a.Certificate.Path), certificate: g.Material(a.Certificate),
			keyPath: filepath.Join(dirs[a.Node], a.Key.Path), key: keys[a.Key],
		}
		if m := g.Material(a.Key); m != nil && !m.OK() {
			one.keyProblem = m.Reason
		}
		all.authorities = append(all.authorities, one)
	}
	all.authorities = append(all.authorities, authoritiesBeside(f.root)...)
	for i := range nodes {
		all.kubeconfigs = append(all.kubeconfigs, nodes[i].Kubeconfigs...)
	}
	return all, nil
}

// readBare reads a folder that holds authorities under kubeadm's names, or all
// beside each other (etcd-ca.crt) as init --out has them.
func readBare(dir string) (*folder, error) {
	all := &folder{from: dir}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("--pki %s is no folder that can be read", dir)
	}
	names := catalog.Cluster{CertificatesDir: "/"}
	for _, name := range authorityNames {
		for _, file := range slices.Compact([]string{names.Authority(name).Path, "/" + name}) {
			if base := filepath.Join(dir, file); exists(base + ".crt") {
				all.authorities = append(all.authorities, readAuthority(name, base+".crt", base+".key"))
				break
			}
		}
	}
	return all, nil
}

// readAuthority reads a certificate and its key. What is wrong is kept: it
// matters only when this authority is the one that signs.
func readAuthority(name, path, keyPath string) folderAuthority {
	a := folderAuthority{name: name, path: path, keyPath: keyPath}
	read := func(path string, role trust.Role) (*trust.Material, crypto.Signer) {
		data, err := readInput(streams{}, path)
		if err != nil {
			reason := strings.TrimPrefix(err.Error(), path+": ")
			return &trust.Material{Role: role, State: trust.Unreadable, Reason: reason}, nil
		}
		return layout.ParseMaterial(trust.Place{Path: path}, role, data)
	}
	a.certificate, _ = read(path, trust.RoleAuthority)
	key, signer := read(keyPath, trust.RoleKey)
	a.key, a.keyProblem = signer, key.Reason
	return a
}

// signer is an authority that is fit to sign.
type signer struct {
	issue.Authority
	name, path string
}

// choose returns the authority that --authority names, or the first of the
// defaults that is there. One with its key at hand is preferred.
func (f *authorityFlags) choose(all *folder, defaults ...string) (*signer, error) {
	if isAuthorityFile(f.authority) {
		key := f.key
		if key == "" {
			key = strings.TrimSuffix(f.authority, filepath.Ext(f.authority)) + ".key"
		}
		a := readAuthority(f.authority, f.authority, key)
		return a.signer()
	}
	names := defaults
	if f.authority != "" {
		names = []string{f.authority}
	}
	for _, name := range names {
		if a := all.authority(name); a != nil {
			return a.signer()
		}
	}
	return nil, advise(fmt.Errorf("%s: there is no authority %s", all.from, names[len(names)-1]), "%s", all.what())
}

// authority returns the authority of a name, nil when there is none.
func (all *folder) authority(name string) *folderAuthority {
	var found *folderAuthority
	for i := range all.authorities {
		if a := &all.authorities[i]; a.name == name && (found == nil || found.key == nil && a.key != nil) {
			found = a
		}
	}
	return found
}

// what says which authorities are there.
func (all *folder) what() string {
	var names []string
	for _, a := range all.authorities {
		if !slices.Contains(names, a.name) {
			names = append(names, a.name)
		}
	}
	if len(names) == 0 {
		return "there is none at all: name the folder with --root or --pki, or the certificate with --authority FILE"
	}
	return "there are: " + strings.Join(names, ", ")
}

func (a *folderAuthority) signer() (*signer, error) {
	if a.certificate == nil || !a.certificate.OK() {
		reason := "does not exist"
		if a.certificate != nil {
			reason = a.certificate.Reason
		}
		return nil, fmt.Errorf("%s: %s", a.path, reason)
	}
	if a.key == nil {
		reason := a.keyProblem
		if reason == "" {
			reason = "does not exist"
		}
		hint := "an authority elsewhere signs requests: kubepki init --csr-only makes them"
		if strings.Contains(reason, "permission denied") {
			hint = "run it with sudo"
		}
		return nil, advise(fmt.Errorf("the key of authority %s is not at hand: %s: %s", a.name, a.keyPath, reason), "%s", hint)
	}
	c := a.certificate.Certificates[0]
	if !trust.SameKey(c.PublicKey, a.key.Public()) {
		return nil, fmt.Errorf("%s: does not belong to the certificate %s", a.keyPath, a.path)
	}
	chain := issue.ChainOf(a.certificate.Certificates)
	return &signer{Authority: issue.Authority{Certificate: c, Key: a.key, Chain: chain}, name: a.name, path: a.path}, nil
}

// anchors returns the certificate by which clients of the API server trust it:
// the cluster's authority, or the root above it where that is there.
func (all *folder) anchors(s *signer) []*x509.Certificate {
	c := s.Certificate
	if a := all.authority(catalog.ClusterCA); a != nil && a.certificate.OK() {
		c = a.certificate.Certificates[0]
	}
	for _, a := range all.authorities {
		if a.name == catalog.RootCA && a.certificate.OK() && trust.SignedBy(c, a.certificate.Certificates[0]) {
			return a.certificate.Certificates[:1]
		}
	}
	return []*x509.Certificate{c}
}
