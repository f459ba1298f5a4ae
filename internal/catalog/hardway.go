package catalog

import (
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// etcdCredentials are of the etcd authority.
var etcdCredentials = []string{"etcd-server", "etcd-peer", "etcd-healthcheck-client", "apiserver-etcd-client"}

// CompleteHardway adds to a node whose components are run by units the
// authorities that their flags name, with the keys that stand beside them: each
// file once. What signs by --cluster-signing-cert-file is the cluster's own
// authority, else what knows clients.
func CompleteHardway(n *trust.Node, exists func(path string) bool) {
	add := func(name string, signs []string, certificate, key string) {
		if certificate == "" {
			return
		}
		for i := range n.Authorities {
			if a := &n.Authorities[i]; a.Certificate == certificate {
				a.Signs = append(a.Signs, signs...)
				if a.Key == "" {
					a.Key = key
				}
				return
			}
		}
		if slices.ContainsFunc(n.Authorities, func(a trust.NodeAuthority) bool { return a.Name == name }) {
			return
		}
		if key == "" {
			key = keyBeside(certificate, exists)
		}
		n.Authorities = append(n.Authorities, trust.NodeAuthority{Name: name, Certificate: certificate, Key: key, Signs: signs})
	}
	flag := func(component, flag string) string { return flagPath(n, component, flag) }
	add(ClusterCA, nil, flag(ControllerManager, "cluster-signing-cert-file"), flag(ControllerManager, "cluster-signing-key-file"))
	for _, component := range []string{APIServer, Kubelet} {
		add(ClusterCA, nil, flag(component, "client-ca-file"), "")
	}
	if at := flag(APIServer, "etcd-cafile"); isAuthority(n, at) {
		// What etcd itself knows its callers by is a copy then.
		add(EtcdCA, slices.Clone(etcdCredentials), at, "")
	} else {
		for _, at := range keyedFirst(exists, flag(Etcd, "trusted-ca-file"), flag(Etcd, "peer-trusted-ca-file"), at) {
			if isAuthority(n, at) {
				add(EtcdCA, slices.Clone(etcdCredentials), at, "")
			} else {
				add(EtcdCA, nil, at, "")
			}
		}
	}
	if at := flag(APIServer, "requestheader-client-ca-file"); isAuthority(n, at) {
		add(FrontProxyCA, []string{"front-proxy-client"}, at, "")
	} else {
		add(FrontProxyCA, nil, at, "")
	}
	add("kubelet-serving-ca", []string{"kubelet-server"}, flag(APIServer, "kubelet-certificate-authority"), "")
	for i := range n.Authorities {
		slices.Sort(n.Authorities[i].Signs)
		n.Authorities[i].Signs = slices.Compact(n.Authorities[i].Signs)
	}
}

// followEtcd takes etcd's authority from its member's own flags where the layout's
// file is not there: a member that systemd runs beside static pods has its files
// elsewhere (kubespray: /etc/ssl/etcd/ssl).
func followEtcd(n *trust.Node, exists func(path string) bool) {
	at := flagPath(n, Etcd, "trusted-ca-file")
	if at == "" || isAuthority(n, at) {
		return
	}
	for i := range n.Authorities {
		if a := &n.Authorities[i]; a.Name == EtcdCA && !exists(a.Certificate) && !exists(a.Key) {
			a.Certificate, a.Key = at, keyBeside(at, exists)
		}
	}
}

// keyedFirst are the files that are named, those whose key is there first.
func keyedFirst(exists func(path string) bool, files ...string) []string {
	files = slices.DeleteFunc(files, func(at string) bool { return at == "" })
	rank := func(at string) int {
		if exists(keyBeside(at, exists)) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(files, func(a, b string) int { return rank(a) - rank(b) })
	return files
}

func isAuthority(n *trust.Node, certificate string) bool {
	return slices.ContainsFunc(n.Authorities, func(a trust.NodeAuthority) bool { return a.Certificate == certificate })
}

// flagPath is the file that a component's flag names; empty when it is not set.
func flagPath(n *trust.Node, component, flag string) string {
	for i := range n.Components {
		if c := &n.Components[i]; c.Name == component {
			if at := file(n, c, flag); !at.IsZero() {
				return at.Path
			}
		}
	}
	return ""
}

// keyBeside is where an authority's key stands, by the names that cfssl
// (ca.pem, ca-key.pem) and openssl's users (ca.crt, ca.key) give it: the first
// that is there, else the first.
func keyBeside(certificate string, exists func(path string) bool) string {
	ext := path.Ext(certificate)
	stem := strings.TrimSuffix(certificate, ext)
	names := []string{stem + ".key", stem + "-key" + ext, stem + "-key.pem", stem + ".key.pem"}
	if ext == ".pem" {
		names = []string{stem + "-key.pem", stem + ".key", stem + ".key.pem"}
	}
	if i := slices.IndexFunc(names, exists); i >= 0 {
		return names[i]
	}
	return names[0]
}
