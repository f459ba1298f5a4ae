package main

import (
	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/bootstrap"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
)

type kubeconfigBootstrapOptions struct {
	from    serverFlags
	token   tokenFlags
	cluster string
	file    string
	dryRun  bool
}

func newKubeconfigBootstrapCommand(s streams) *cobra.Command {
	var o kubeconfigBootstrapOptions
	c := &cobra.Command{
		Use:   "bootstrap",
		Short: "Make the kubeconfig with which a kubelet asks for its first certificate",
		Long: `Make the kubeconfig with which a kubelet asks for its first certificate, as kubeadm
join makes it: bootstrap-kubelet.conf, with a bootstrap token. The kubelet takes
it by --bootstrap-kubeconfig, and needs it until it has a certificate.`,
		Example: `  # From the files of a control plane
  kubepki token create > token
  kubepki kubeconfig bootstrap --root ./cp1 --token-file token -f bootstrap-kubelet.conf

  # On the node itself, where the kubelet looks
  sudo kubepki kubeconfig bootstrap --certificate-authority ca.crt --server https://10.0.0.11:6443 --token-file token -f /etc/kubernetes/bootstrap-kubelet.conf

  # Without any file but the authority
  kubepki token generate | kubepki kubeconfig bootstrap --token-file - --certificate-authority ca.crt --server https://10.0.0.11:6443`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c, s) },
	}
	f := c.Flags()
	o.from.add(f)
	o.token.add(f)
	f.StringVar(&o.cluster, "cluster-name", catalog.DefaultClusterName, "name of the cluster entry")
	f.StringVarP(&o.file, "file", "f", "", "write to this file, mode 0600, instead of standard output; never overwrites")
	f.BoolVar(&o.dryRun, "dry-run", false, "check everything, and write nothing")
	return c
}

func (o *kubeconfigBootstrapOptions) run(c *cobra.Command, s streams) error {
	switch {
	case c.Flags().Changed("file") && o.file == "":
		return usagef("--file names no file")
	case o.cluster == "":
		return usagef("--cluster-name is empty")
	case o.token.file == "-" && o.from.ca == "-":
		return usagef("--token-file and --certificate-authority cannot both be standard input")
	}
	token, err := o.token.need(s)
	if err != nil {
		return err
	}
	server, err := o.from.read(s, c.Flags())
	if err != nil {
		return err
	}
	data, err := layout.EncodeKubeconfig(layout.KubeconfigSpec{
		Cluster: o.cluster, Server: server.server, CA: server.ca, User: bootstrap.KubeconfigUser, Token: token.Reveal(),
	})
	if err != nil {
		return err
	}
	return writeKubeconfig(c.Context(), s, o.file, data, nil, o.dryRun)
}
