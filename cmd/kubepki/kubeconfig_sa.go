package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/token"
)

type kubeconfigSAOptions struct {
	from            saFlags
	mount           string
	server, cluster string
	namespace, file string
	dryRun          bool
}

func newKubeconfigSACommand(s streams) *cobra.Command {
	var o kubeconfigSAOptions
	c := &cobra.Command{
		Use:   "sa NAMESPACE/NAME",
		Short: "Make the kubeconfig of a service account",
		Long: `Make the kubeconfig of a service account, with a token in it that is made as kubepki
sa token makes it: by the cluster, or here with --key or --root. It ends when the
token does.

With --mount it names token and ca.crt in a folder that kubepki sa token
--write-mount keeps, or a pod's: clients read them again, so that it never ends.
No token is made then. Where the folder is below that of --file the paths are
relative, as kubectl writes them.`,
		Example: `  # For a day, from the cluster
  kubepki kubeconfig sa ci/robot --duration 24h --file robot.conf

  # Without a cluster, from the files of a control plane
  kubepki kubeconfig sa ci/robot --root ./cp1 --uid 6f5c0c2e-0c5c-4f0e-9d5b-2b7a3c1d9e10 --file robot.conf

  # With a folder in which a timer renews the token
  kubepki sa token ci/robot --write-mount /var/lib/robot
  kubepki kubeconfig sa ci/robot --mount /var/lib/robot --file robot.conf

  # For kube-proxy in a pod, as kubeadm makes it
  kubepki kubeconfig sa kube-system/kube-proxy --mount /var/run/secrets/kubernetes.io/serviceaccount --server https://10.0.0.11:6443`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c, s, args[0]) },
	}
	f := c.Flags()
	o.from.add(f)
	f.StringVar(&o.mount, "mount", "", "folder with token and ca.crt, which the kubeconfig names instead of a token")
	f.StringVar(&o.server, "server", "", "URL of the API server (default: that of the kubeconfigs below --root, or of your own)")
	f.StringVar(&o.cluster, "cluster-name", "", "name of the cluster entry (default: that of the node's own kubeconfigs, or "+catalog.DefaultClusterName+")")
	f.StringVar(&o.namespace, "namespace", "", "namespace of the context (default: that of the service account)")
	f.StringVarP(&o.file, "file", "f", "", "write to this file, mode 0600, instead of standard output; never overwrites")
	f.BoolVar(&o.dryRun, "dry-run", false, "check everything, and write nothing")
	return c
}

func (o *kubeconfigSAOptions) run(c *cobra.Command, s streams, name string) error {
	if err := o.check(c.Flags()); err != nil {
		return err
	}
	var spec layout.KubeconfigSpec
	var err error
	var a account
	if o.mount != "" {
		if a, err = parseAccount(name); err == nil {
			spec, err = o.byMount(s, a)
		}
	} else {
		var w *saWant
		if w, err = o.from.want(c.Flags(), name); err == nil {
			a = w.account
			spec, err = o.withToken(c.Context(), s, w)
		}
	}
	if err != nil {
		return err
	}
	spec.User, spec.Namespace = a.user(), a.namespace
	if o.namespace != "" {
		spec.Namespace = o.namespace
	}
	if o.cluster != "" {
		spec.Cluster = o.cluster
	}
	data, err := layout.EncodeKubeconfig(spec)
	if err != nil {
		return err
	}
	return writeKubeconfig(c.Context(), s, o.file, data, nil, o.dryRun)
}

// saNoToken are the flags that --mount has a use for all the same.
var saNoToken = []string{"mount", "root", "kubeconfig", "context", "server", "cluster-name", "namespace", "file", "dry-run"}

func (o *kubeconfigSAOptions) check(flags *pflag.FlagSet) error {
	switch {
	case flags.Changed("file") && o.file == "":
		return usagef("--file names no file")
	case flags.Changed("mount") && o.mount == "":
		return usagef("--mount names no folder")
	case flags.Changed("cluster-name") && o.cluster == "":
		return usagef("--cluster-name is empty")
	case o.dryRun && o.from.legacy && !o.from.offline():
		return usagef("--dry-run: --legacy makes a Secret in the cluster")
	case o.mount == "":
		return nil
	}
	var foreign string
	flags.Visit(func(f *pflag.Flag) {
		if !slices.Contains(saNoToken, f.Name) {
			foreign = f.Name
		}
	})
	if foreign != "" {
		return advise(usagef("--%s: --mount takes token and authorities from the folder", foreign), "kubepki sa token --write-mount %s makes them", o.mount)
	}
	if o.from.root != "" && (flags.Changed("kubeconfig") || flags.Changed("context")) {
		return usagef("--root and --kubeconfig both tell where the API server is: give one of them")
	}
	return nil
}

// withToken embeds a new token.
func (o *kubeconfigSAOptions) withToken(ctx context.Context, s streams, w *saWant) (layout.KubeconfigSpec, error) {
	source, err := o.from.open(s)
	if err != nil {
		return layout.KubeconfigSpec{}, err
	}
	spec, err := source.target(o.server)
	if err != nil {
		return spec, err
	}
	if o.file != "" && !o.dryRun {
		dir, name := filepath.Split(o.file)
		if err := refuseExisting(dir, name); err != nil {
			return spec, err // before a token is made
		}
	}
	made, err := o.from.make(ctx, s, source, w)
	if err != nil {
		return spec, err
	}
	spec.Token = made.text
	return spec, nil
}

// byMount names the files of a folder.
func (o *kubeconfigSAOptions) byMount(s streams, a account) (layout.KubeconfigSpec, error) {
	spec, err := o.where(s)
	if err != nil {
		return spec, err
	}
	if err := o.checkMount(s, a); err != nil {
		return spec, err
	}
	dir, err := o.mountPath()
	spec.CA, spec.CAFile, spec.TokenFile = nil, filepath.Join(dir, layout.MountCA), filepath.Join(dir, layout.MountToken)
	return spec, err
}

// where is where the API server is, for which no key is needed.
func (o *kubeconfigSAOptions) where(s streams) (layout.KubeconfigSpec, error) {
	if o.from.root != "" || o.server != "" {
		a, err := locate(s, o.from.root, "", o.server)
		if err != nil {
			return layout.KubeconfigSpec{}, err
		}
		return layout.KubeconfigSpec{Cluster: a.cluster, Server: a.server}, nil
	}
	api, err := connect(o.from.access)
	if err != nil {
		return layout.KubeconfigSpec{}, err
	}
	spec, err := api.target("")
	spec.Cluster = catalog.DefaultClusterName
	return spec, err
}

// checkMount refuses a folder with the token of somebody else. That there is none
// is no fault: the folder may be one of another machine, or of a pod.
func (o *kubeconfigSAOptions) checkMount(s streams, a account) error {
	file := filepath.Join(o.mount, layout.MountToken)
	data, err := readInput(s, file)
	if err != nil {
		fmt.Fprintf(s.err, "kubepki: warning: --mount: %v: kubepki sa token %s --write-mount %s makes it\n", err, a, o.mount)
		return nil
	}
	u, err := token.Parse(strings.TrimSpace(string(data)))
	if err != nil {
		return fmt.Errorf("--mount: %s holds no token: %w", file, err)
	}
	if is := (account{u.Claims.Namespace, u.Claims.ServiceAccount.Name}); is != a {
		return fmt.Errorf("--mount: %s is a token of %q, not of %s", file, is.String(), a)
	}
	return nil
}

// mountPath is the folder as a kubeconfig names it: relative where it stands
// below the kubeconfig's own folder, as
// k8s.io/client-go/tools/clientcmd/loader.go (MakeRelative) has it, else
// absolute.
func (o *kubeconfigSAOptions) mountPath() (string, error) {
	absolute, err := filepath.Abs(o.mount)
	if err != nil || o.file == "" || filepath.IsAbs(o.mount) {
		return absolute, err
	}
	base, err := filepath.Abs(filepath.Dir(o.file))
	if err != nil {
		return "", err
	}
	relative, err := filepath.Rel(base, absolute)
	if err != nil || relative == ".." || strings.HasPrefix(relative, "../") {
		return absolute, nil //nolint:nilerr // then it has no relative path
	}
	return relative, nil
}
