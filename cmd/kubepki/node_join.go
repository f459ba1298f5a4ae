package main

import (
	"context"
	"fmt"
	"net"

	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kubepki/kubepki/internal/bootstrap"
	"github.com/kubepki/kubepki/internal/join"
	"github.com/kubepki/kubepki/internal/kube"
)

type nodeJoinOptions struct {
	files    clientFlags
	renewal  renewalFlags
	nodeName string

	server   string
	token    tokenFlags
	pins     []string
	unpinned bool

	user   string
	groups []string
}

func newNodeJoinCommand(s streams) *cobra.Command {
	var o nodeJoinOptions
	c := &cobra.Command{
		Use:   "join",
		Short: "Get this node's client certificate by token, and write what its kubelet starts with",
		Long: `Get a client certificate for this node with a bootstrap token, and write it as the
kubelet does: kubelet.conf, and kubelet-client-current.pem leading to a dated
file. The key is made here and never leaves. The API server, the token and the
cluster's authority come from the bootstrap kubeconfig, or from --server with
--token and --discovery-token-ca-cert-hash as kubeadm join takes them.

It waits until the request is approved and signed. When a call with the new
files has succeeded the bootstrap kubeconfig is removed. Interrupted at any
moment, run it again: it goes on with the same request. On a node that has
joined it does nothing.

With --user it joins any other client: by the signer kube-apiserver-client,
whose requests a person approves. The files stand beside --kubeconfig, and the
bootstrap kubeconfig stays.`,
		Example: `  # With the bootstrap kubeconfig that was brought to /etc/kubernetes/bootstrap-kubelet.conf
  sudo kubepki node join

  # As kubeadm join does
  sudo kubepki node join --server 10.0.0.11:6443 --token-file token --discovery-token-ca-cert-hash sha256:...

  # Another client of the cluster
  kubepki node join --user backup --group ops --kubeconfig ./backup.conf --bootstrap-kubeconfig ./bootstrap.conf`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c, s) },
	}
	f := c.Flags()
	o.files.add(f)
	o.renewal.add(f, 5*time.Minute)
	f.StringVar(&o.nodeName, "node-name", "", "name of the node (default: that of this machine, in lower case)")
	f.StringVar(&o.server, "server", "", "HOST:PORT or URL of the API server, instead of a bootstrap kubeconfig")
	o.token.add(f)
	f.StringSliceVar(&o.pins, "discovery-token-ca-cert-hash", nil, "sha256:HEX of the public key of the cluster's authority, with --server (repeatable)")
	f.BoolVar(&o.unpinned, "discovery-token-unsafe-skip-ca-verification", false, "join without one: whoever knows the token can pose as the cluster")
	f.StringVar(&o.user, "user", "", "join as this user instead of as a node")
	f.StringSliceVar(&o.groups, "group", nil, "with --user: group of the user (repeatable)")
	return c
}

func (o *nodeJoinOptions) run(c *cobra.Command, s streams) error {
	options, err := o.options(c)
	if err != nil {
		return err
	}
	if err := o.renewal.set(&options, s); err != nil {
		return err
	}
	if o.server != "" {
		discovery, err := o.discovery(s)
		if err != nil {
			return err
		}
		if options.Bootstrap, err = discover(c.Context(), discovery, options); err != nil {
			return err
		}
	}
	r, err := join.Join(c.Context(), options)
	if err != nil {
		return err
	}
	return o.renewal.say(s, options, r)
}

// options refuses flags that contradict each other.
func (o *nodeJoinOptions) options(c *cobra.Command) (join.Options, error) {
	changed := c.Flags().Changed
	switch {
	case o.server == "" && (changed("token") || changed("token-file") || len(o.pins) > 0 || o.unpinned):
		return join.Options{}, usagef("--token, --token-file and --discovery-token-... go with --server: which cluster is it?")
	case o.server != "" && changed("bootstrap-kubeconfig"):
		return join.Options{}, usagef("--server and --bootstrap-kubeconfig contradict each other: give one of them")
	case o.user == "" && (changed("user") || len(o.groups) > 0):
		return join.Options{}, usagef("--group is for --user: nodes are in the group system:nodes")
	case o.user != "" && changed("node-name"):
		return join.Options{}, usagef("--user and --node-name contradict each other: give one of them")
	}
	options, err := o.files.options()
	if err != nil {
		return options, err
	}
	if o.user == "" {
		return options, nodeIdentity(&options, o.nodeName, changed("node-name"))
	}
	return options, o.asUser(&options, changed("kubeconfig"), changed("cert-dir"))
}

// asUser puts the files of a user beside his kubeconfig.
func (o *nodeJoinOptions) asUser(options *join.Options, hasKubeconfig, hasCertDir bool) error {
	name, isConf := strings.CutSuffix(path.Base(options.Kubeconfig), ".conf")
	switch {
	case strings.HasPrefix(o.user, "system:"):
		return usagef("--user %s is one of Kubernetes' own: a node joins with --node-name", o.user)
	case !hasKubeconfig:
		return usagef("--kubeconfig is missing: where is that of user %s to be written?", o.user)
	case !isConf || name == "":
		return usagef("--kubeconfig %s: give it a name that ends with .conf, the other files are named after it", options.Kubeconfig)
	}
	options.Identity = join.Identity{CommonName: o.user, Organization: o.groups}
	options.Prefix, options.AuthorityFile, options.KeepBootstrap = name+"-client", "", true
	if !hasCertDir {
		options.CertDir = path.Dir(options.Kubeconfig)
	}
	return nil
}

// discovery reads the flags with which a cluster is found.
func (o *nodeJoinOptions) discovery(s streams) (bootstrap.Discovery, error) {
	d := bootstrap.Discovery{Unpinned: o.unpinned, Retry: 2 * time.Second}
	var err error
	if d.Endpoint, err = endpoint(o.server); err != nil {
		return d, usagef("--server: %w", err)
	}
	if d.Token, err = o.token.need(s); err != nil {
		return d, err
	}
	for _, text := range o.pins {
		p, err := bootstrap.ParsePin(text)
		if err != nil {
			return d, usagef("--discovery-token-ca-cert-hash: %w", err)
		}
		d.Pins = append(d.Pins, p)
	}
	if len(d.Pins) == 0 && !o.unpinned {
		return d, usagef("--discovery-token-ca-cert-hash is missing: without it whoever knows the token can pose as the cluster")
	}
	return d, nil
}

// endpoint takes HOST:PORT, and a URL.
func endpoint(server string) (string, error) {
	if strings.Contains(server, "://") {
		return bootstrap.Endpoint(server)
	}
	host, port, err := net.SplitHostPort(server)
	if err != nil || host == "" || port == "" {
		return "", fmt.Errorf("%q is not HOST:PORT", server)
	}
	return server, nil
}

// discover makes what a bootstrap kubeconfig would say.
func discover(ctx context.Context, d bootstrap.Discovery, o join.Options) (*clientcmdapi.Config, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	info, err := kube.Discover(ctx, d)
	if err != nil {
		return nil, err
	}
	return &clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"kubernetes": {Server: info.Server, CertificateAuthorityData: info.CA}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{d.Token.User(): {Token: d.Token.Reveal()}},
		Contexts:       map[string]*clientcmdapi.Context{"join": {Cluster: "kubernetes", AuthInfo: d.Token.User()}},
		CurrentContext: "join",
	}, nil
}
