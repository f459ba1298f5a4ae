package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/config"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// kubeconfigOptions are the flags that component, node and user share.
type kubeconfigOptions struct {
	from                authorityFlags
	server, cluster     string
	namespace, file     string
	embed, dryRun       bool
	validity, algorithm string
	groups              []string
	privileged          bool
}

func newKubeconfigCommand(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Make a kubeconfig for a component, a node, a user or a service account, or merge several into one",
		Example: `  # A user in two groups, for 30 days
  sudo kubepki kubeconfig user jane --group dev --group ops --validity 30d > jane.conf

  # A kubelet that joins without a bootstrap token
  sudo kubepki kubeconfig node w2 --file w2.conf

  # Several clusters in one file
  kubepki kubeconfig merge east=east/admin.conf west=west/admin.conf --file both.conf`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("kubeconfig: say for whom: component NAME, node NAME, user NAME, sa NAMESPACE/NAME or bootstrap; or merge FILE...")
		},
	}
	c.AddCommand(newKubeconfigComponentCommand(s), newKubeconfigNodeCommand(s), newKubeconfigUserCommand(s), newKubeconfigSACommand(s), newKubeconfigBootstrapCommand(s), newMergeCommand(s))
	return c
}

// componentFiles names the kubeconfig of each component, as kubeadm does.
var componentFiles = map[string]string{
	catalog.ControllerManager: "controller-manager.conf",
	catalog.Scheduler:         "scheduler.conf",
	catalog.KubeProxy:         "kube-proxy.conf",
	catalog.Admin:             "admin.conf",
	catalog.SuperAdmin:        "super-admin.conf",
}

var componentNames = []string{catalog.ControllerManager, catalog.Scheduler, catalog.KubeProxy, catalog.Admin, catalog.SuperAdmin}

func newKubeconfigComponentCommand(s streams) *cobra.Command {
	var o kubeconfigOptions
	c := &cobra.Command{
		Use:   "component NAME",
		Short: "Make the kubeconfig of a component",
		Long: `Make the kubeconfig of a component with the identity that Kubernetes knows it by.
Components: ` + strings.Join(componentNames, ", ") + `.`,
		Example: `  # A new kubeconfig of this node's scheduler, printed
  sudo kubepki kubeconfig component kube-scheduler

  # Of a controller-manager elsewhere, by paths instead of embedded
  kubepki kubeconfig component kube-controller-manager --root ./cp1 --embed-certs=false --file ./out/controller-manager.conf

  # Of kube-proxy, with another address of the API server
  kubepki kubeconfig component kube-proxy --root ./cp1 --server https://api.example.test:6443`,
		Args:      cobra.ExactArgs(1),
		ValidArgs: componentNames,
		RunE: func(c *cobra.Command, args []string) error {
			e, err := componentEntry(args[0])
			if err != nil {
				return err
			}
			return o.run(c, s, e, componentFiles[args[0]])
		},
	}
	o.add(c)
	return c
}

// isNodeName tells whether the API takes a name for a node's: no address, no *.
func isNodeName(name string) bool {
	_, err := netip.ParseAddr(name)
	return err != nil && !strings.HasPrefix(name, "*") && config.CheckNames("NAME", []string{name}) == nil
}

func newKubeconfigNodeCommand(s streams) *cobra.Command {
	var o kubeconfigOptions
	c := &cobra.Command{
		Use:   "node NAME",
		Short: "Make the kubeconfig of a node's kubelet",
		Long: `Make the kubeconfig of a node's kubelet: user system:node:NAME in the group
system:nodes. The kubelets' own authority signs where there is one.`,
		Example: `  # A new worker
  sudo kubepki kubeconfig node w2 --file w2.conf

  # From a copy of a control plane, for a year and a half
  kubepki kubeconfig node w2 --root ./cp1 --validity 547d

  # With a key as small as possible
  kubepki kubeconfig node w2 --root ./cp1 --key-algorithm ECDSA-P256`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if a, err := netip.ParseAddr(args[0]); err == nil {
				return usagef("NAME %s is an address: a node is called by its name", a)
			}
			if !isNodeName(args[0]) {
				return usagef("NAME %q is not a node name: lower-case letters, digits, - and . (RFC 1123)", args[0])
			}
			e := catalog.Entry{CommonName: nodePrefix + args[0], Organization: []string{nodeGroup}, Authorities: []string{catalog.KubeletCA, catalog.ClusterCA}}
			return o.run(c, s, e, "kubelet.conf")
		},
	}
	o.add(c)
	return c
}

func newKubeconfigUserCommand(s streams) *cobra.Command {
	var o kubeconfigOptions
	c := &cobra.Command{
		Use:   "user NAME",
		Short: "Make the kubeconfig of a user",
		Long: `Make the kubeconfig of a user. Kubernetes takes the certificate's common name for
the user and its organizations for the groups; what they may do, role bindings
say. A certificate cannot be taken back, so give it a short life.`,
		Example: `  # A user in two groups, for 30 days
  sudo kubepki kubeconfig user jane --group dev --group ops --validity 30d > jane.conf

  # Into a file, from a copy of a control plane
  kubepki kubeconfig user jane --group dev --root ./cp1 --file jane.conf

  # With a namespace of its own
  kubepki kubeconfig user robot --root ./cp1 --namespace ci --cluster-name prod`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if args[0] == "" || strings.ContainsFunc(args[0], func(r rune) bool { return r < 0x20 || r == 0x7f }) {
				return usagef("NAME %q is no plain text", args[0])
			}
			return o.run(c, s, catalog.Entry{CommonName: args[0], Organization: o.groups, Authorities: []string{catalog.ClusterCA}}, "admin.conf")
		},
	}
	o.add(c)
	f := c.Flags()
	f.Var((*texts)(&o.groups), "group", "group of the user (repeatable)")
	f.Var((*texts)(&o.groups), "org", "the same as --group")
	f.BoolVar(&o.privileged, "allow-privileged", false, "allow groups that may do everything, and system: users")
	return c
}

func (o *kubeconfigOptions) add(c *cobra.Command) {
	f := c.Flags()
	o.from.add(f)
	f.StringVar(&o.server, "server", "", "URL of the API server (default: that of the node's own kubeconfigs)")
	f.StringVar(&o.cluster, "cluster-name", "", "name of the cluster entry (default: that of the node's own kubeconfigs, or kubernetes)")
	f.StringVar(&o.namespace, "namespace", "", "namespace of the context")
	f.BoolVar(&o.embed, "embed-certs", true, "embed certificates and key; with =false they are files beside --file")
	f.StringVarP(&o.file, "file", "f", "", "write to this file, mode 0600, instead of standard output; never overwrites")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be granted, and write nothing")
	addKeyFlags(f, &o.validity, &o.algorithm)
}

// componentEntry takes the identity of a component from the catalogue.
func componentEntry(name string) (catalog.Entry, error) {
	file, ok := componentFiles[name]
	if !ok {
		err := usagef("component %q is none of %s", name, strings.Join(componentNames, ", "))
		if name == catalog.Kubelet {
			err = advise(err, "a kubelet has its node's name: kubepki kubeconfig node NAME")
		}
		return catalog.Entry{}, err
	}
	node := catalog.ControlPlane{Name: "node", Address: netip.IPv6Loopback(), BindPort: catalog.DefaultBindPort}
	c := catalog.Cluster{ServiceSubnet: catalog.DefaultServiceSubnet, ControlPlanes: []catalog.ControlPlane{node}, KubeProxy: true}
	nodes, err := c.Entries()
	if err != nil {
		return catalog.Entry{}, err
	}
	i := slices.IndexFunc(nodes[0].Entries, func(e catalog.Entry) bool { return e.Name == file })
	return nodes[0].Entries[i], nil
}

// run makes the kubeconfig of an identity; like names the node's kubeconfig
// whose server it takes.
func (o *kubeconfigOptions) run(c *cobra.Command, s streams, e catalog.Entry, like string) error {
	if err := o.check(c, e); err != nil {
		return err
	}
	all := &folder{from: o.from.root}
	var err error
	if !isAuthorityFile(o.from.authority) || c.Flags().Changed("root") || o.from.pki != "" {
		if all, err = o.from.readFolder(); err != nil {
			return err
		}
	}
	authority, err := o.from.choose(all, e.Authorities...)
	if err != nil {
		return err
	}
	warnForeign(s, all, authority)
	spec := layout.KubeconfigSpec{User: e.CommonName, Namespace: o.namespace, CA: trust.EncodeCertificates(all.anchors(authority)...)}
	if spec.Server, spec.Cluster, err = o.target(all, like); err != nil {
		return err
	}
	g, key, err := o.certify(e, authority)
	if err != nil {
		return err
	}
	spec.Certificate = trust.EncodeCertificates(g.chain...)
	if spec.Key, err = issue.EncodePrivateKey(key); err != nil {
		return err
	}
	if err := o.write(c.Context(), s, spec); err != nil {
		return err
	}
	g.say(s, o.dryRun)
	return nil
}

// certify makes a key and its client certificate.
func (o *kubeconfigOptions) certify(e catalog.Entry, a *signer) (*granted, crypto.Signer, error) {
	validity, err := parseLife("--validity", o.validity)
	if err != nil {
		return nil, nil, err
	}
	algorithm, err := issue.ParseAlgorithm(o.algorithm)
	if err != nil {
		return nil, nil, usagef("--key-algorithm: %w", err)
	}
	key, err := issue.GenerateKey(algorithm)
	if err != nil {
		return nil, nil, err
	}
	w := &wanted{subject: pkix.Name{CommonName: e.CommonName, Organization: e.Organization}, usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	g, err := sign(w.template(clock(), validity), key.Public(), a, w)
	return g, key, err
}

func (o *kubeconfigOptions) check(c *cobra.Command, e catalog.Entry) error {
	if err := o.from.check(c.Flags()); err != nil {
		return err
	}
	switch {
	case c.Flags().Changed("file") && o.file == "":
		return usagef("--file names no file")
	case !o.embed && o.file == "":
		return usagef("--embed-certs=false puts the certificates beside the kubeconfig: name it with --file")
	case c.Flags().Lookup("group") == nil || o.privileged:
		return nil
	case strings.HasPrefix(e.CommonName, "system:"):
		return advise(fmt.Errorf("user %s is one of Kubernetes' own", e.CommonName), "make it with kubeconfig component or kubeconfig node, or add --allow-privileged")
	}
	for _, g := range e.Organization {
		if slices.Contains(privilegedGroups, g) {
			return advise(fmt.Errorf("group %s may do everything in the cluster", g), "if that is meant, add --allow-privileged")
		}
	}
	return nil
}

// warnForeign: etcd and the front proxy have authorities of their own, whose
// clients the API server does not let in.
func warnForeign(s streams, all *folder, a *signer) {
	cluster := all.authority(catalog.ClusterCA)
	foreign := a.name == catalog.EtcdCA || a.name == catalog.FrontProxyCA
	if foreign && cluster != nil && cluster.certificate.OK() && !cluster.certificate.Certificates[0].Equal(a.Certificate) {
		fmt.Fprintf(s.err, "kubepki: warning: the API server lets in no client of authority %s: leave out --authority\n", a.name)
	}
}

// target returns the server and the name of the cluster: as flags say, or as
// the node's own kubeconfigs do.
func (o *kubeconfigOptions) target(all *folder, like string) (server, cluster string, err error) {
	server, cluster = o.server, o.cluster
	for _, name := range []string{like, "admin.conf", "super-admin.conf", "kubelet.conf", "controller-manager.conf", "scheduler.conf"} {
		for _, k := range all.kubeconfigs {
			if k.State != trust.Present || filepath.Base(k.Place.Path) != name {
				continue
			}
			if server == "" {
				server = k.Server
			}
			if cluster == "" {
				cluster = k.Cluster
			}
		}
	}
	if cluster == "" {
		cluster = catalog.DefaultClusterName
	}
	if server == "" {
		return "", "", advise(usagef("--server: no kubeconfig of the node tells where the API server is"), "name it, for example --server https://10.0.0.11:6443")
	}
	return server, cluster, checkServer(server)
}

// checkServer refuses what no kubeconfig can dial.
func checkServer(server string) error {
	if u, err := url.Parse(server); err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return usagef("--server %q is not a URL like https://10.0.0.11:6443", server)
	}
	return nil
}

// write prints or writes the kubeconfig, and with it the files that it names.
func (o *kubeconfigOptions) write(ctx context.Context, s streams, spec layout.KubeconfigSpec) error {
	var beside []newFile
	if !o.embed {
		base := strings.TrimSuffix(filepath.Base(o.file), filepath.Ext(o.file))
		beside = []newFile{{base + "-ca.crt", spec.CA, 0o644}, {base + ".crt", spec.Certificate, 0o644}, {base + ".key", spec.Key, 0o600}}
		// Relative, as kubectl writes them: they are looked for beside the file.
		spec.CAFile, spec.CertificateFile, spec.KeyFile = beside[0].name, beside[1].name, beside[2].name
		spec.CA, spec.Certificate, spec.Key = nil, nil, nil
	}
	data, err := layout.EncodeKubeconfig(spec)
	if err != nil {
		return err
	}
	return writeKubeconfig(ctx, s, o.file, data, beside, o.dryRun)
}

func writeKubeconfig(ctx context.Context, s streams, file string, data []byte, beside []newFile, dryRun bool) error {
	if file == "" {
		if dryRun {
			return nil
		}
		_, err := s.out.Write(data)
		return err
	}
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		return fmt.Errorf("--file %s is a folder", file)
	}
	dir, name := filepath.Split(file)
	if dir == "" {
		dir = "."
	}
	files := append(beside, newFile{name, data, 0o600})
	if slices.ContainsFunc(beside, func(f newFile) bool { return f.name == name }) {
		return errors.New("--file " + file + ": the certificate beside it would have the same name: choose another, such as one that ends with .conf")
	}
	if err := writeNew(ctx, dir, files, dryRun); err != nil {
		return err
	}
	did := "wrote"
	if dryRun {
		did = "would write"
	}
	for _, f := range files {
		fmt.Fprintf(s.err, "%s %s\n", did, filepath.Join(dir, f.name))
	}
	return nil
}
