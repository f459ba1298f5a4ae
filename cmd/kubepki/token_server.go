package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/bootstrap"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// serverFlags say where the API server is and whom nodes are to trust, without
// asking a cluster.
type serverFlags struct {
	root, ca, server string
}

func (f *serverFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.root, "root", "/", "folder that stands for / of a node whose kubeconfigs tell where the API server is and whom to trust")
	flags.StringVar(&f.ca, "certificate-authority", "", "file of the authorities to trust, with --server instead of --root")
	flags.StringVar(&f.server, "server", "", "URL of the API server (default: that of the kubeconfigs below --root)")
}

// serverAnswer is an API server and whom to trust for it, or why not.
type serverAnswer struct {
	server  string // URL
	ca      []byte // PEM
	cluster string // name of the cluster in the kubeconfig
	err     error
}

// join returns what a node that joins is told.
func (a *serverAnswer) join(token bootstrap.Token, certificateKey string) (*bootstrap.Join, error) {
	if a.err != nil {
		return nil, a.err
	}
	endpoint, err := bootstrap.Endpoint(a.server)
	if err != nil {
		return nil, err
	}
	anchors, err := trust.ParseCertificates(a.ca)
	if err != nil {
		return nil, fmt.Errorf("the authorities of %s: %w", a.server, err)
	}
	return &bootstrap.Join{Endpoint: endpoint, Token: token, Pins: bootstrap.Pins(anchors), CertificateKey: certificateKey}, nil
}

// read returns the API server and its authorities.
func (f *serverFlags) read(s streams, flags *pflag.FlagSet) (*serverAnswer, error) {
	switch {
	case f.ca != "" && flags.Changed("root"):
		return nil, usagef("--root tells whom to trust, and so does --certificate-authority: give one of them")
	case f.ca != "" && f.server == "":
		return nil, advise(usagef("--certificate-authority does not tell where the API server is"), "name it, for example --server https://10.0.0.11:6443")
	}
	a := &serverAnswer{cluster: catalog.DefaultClusterName}
	var err error
	if f.ca != "" {
		a.ca, err = readAnchors(s, f.ca)
	} else {
		err = a.readRoot(f.root)
	}
	if err != nil {
		return nil, err
	}
	if f.server != "" {
		a.server = f.server
	}
	if a.server == "" {
		return nil, advise(usagef("--server: no kubeconfig of the node tells where the API server is"), "name it, for example --server https://10.0.0.11:6443")
	}
	if _, err := bootstrap.Endpoint(a.server); err != nil {
		return nil, usageError{err}
	}
	return a, nil
}

// locate returns an API server and whom to trust for it, as flags say, else as
// the kubeconfigs below a root do. The authorities may remain unknown.
func locate(s streams, root, ca, server string) (*serverAnswer, error) {
	a := &serverAnswer{cluster: catalog.DefaultClusterName}
	if root != "" {
		if err := a.readRoot(root); err != nil && (ca == "" || server == "") {
			return nil, err
		}
	}
	if ca != "" {
		var err error
		if a.ca, err = readAnchors(s, ca); err != nil {
			return nil, err
		}
	}
	if server != "" {
		a.server = server
	}
	if a.server == "" {
		return nil, advise(usagef("--server: where the API server is, is not known"), "name it, for example --server https://10.0.0.11:6443")
	}
	return a, checkServer(a.server)
}

// readAnchors reads a file of authorities, and refuses what is none: nodes
// would trust it.
func readAnchors(s streams, name string) ([]byte, error) {
	data, err := readInput(s, name)
	if err != nil {
		return nil, fmt.Errorf("--certificate-authority: %w", err)
	}
	all, err := trust.ParseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("--certificate-authority %s: %w", name, err)
	}
	for i, c := range all {
		if !c.IsCA {
			return nil, fmt.Errorf("--certificate-authority %s: certificate %d, %s, is no authority", name, i+1, c.Subject)
		}
	}
	return trust.EncodeCertificates(all...), nil
}

// readRoot takes the first kubeconfig that clients of the cluster use, as
// kubeadm takes admin.conf; where there is none, the cluster's authority.
func (a *serverAnswer) readRoot(root string) error {
	nodes, _, err := readCluster(cluster{nodes: []nodeRoot{{dir: root}}})
	if err != nil {
		return advise(err, "name a node's / with --root, or the authorities with --certificate-authority and --server")
	}
	for _, name := range []string{"admin.conf", "super-admin.conf", "controller-manager.conf", "scheduler.conf", "kubelet.conf"} {
		for i := range nodes {
			if a.take(&nodes[i], name) {
				return nil
			}
		}
	}
	all, err := (&authorityFlags{root: root}).readFolder()
	if err != nil {
		return err
	}
	ca := all.authority(catalog.ClusterCA)
	if ca == nil || !ca.certificate.OK() {
		return advise(fmt.Errorf("%s: there is neither a kubeconfig nor an authority of the cluster", root), "%s", all.what())
	}
	a.ca = trust.EncodeCertificates(all.anchors(&signer{Authority: issue.Authority{Certificate: ca.certificate.Certificates[0]}})...)
	return nil
}

// take reads a kubeconfig of a node, and tells whether it is of use.
func (a *serverAnswer) take(n *trust.Node, name string) bool {
	for _, k := range n.Kubeconfigs {
		if k.State != trust.Present || filepath.Base(k.Place.Path) != name || k.Server == "" {
			continue
		}
		for _, m := range n.Materials {
			if m.Place == k.CA && m.OK() && len(m.Certificates) > 0 {
				a.server, a.cluster, a.ca = k.Server, k.Cluster, trust.EncodeCertificates(m.Certificates...)
				return true
			}
		}
	}
	return false
}
