package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

type kubeconfigSAOptions struct {
	from            saMakeFlags
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

  # For kube-proxy in a pod
  kubepki kubeconfig sa kube-system/kube-proxy --mount /var/run/secrets/kubernetes.io/serviceaccount --server https://10.0.0.11:6443`,
		Args: oneAccount,
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
	a, err := parseAccount(name)
	if err != nil {
		return err
	}
	if err := o.check(c.Flags(), a); err != nil {
		return err
	}
	if o.mount != "" {
		spec, err := o.byMount(s, a)
		if err != nil {
			return err
		}
		return o.write(c.Context(), s, spec, a)
	}
	w, err := o.from.want(c.Flags(), a)
	if err != nil {
		return err
	}
	if w.webhook() {
		return advise(usagef("--bound-object-kind %s: a token for a webhook must not be for the API server, so that no kubeconfig works with it", w.kind.Kind), "kubepki sa token makes it")
	}
	spec, made, err := o.withToken(c.Context(), s, w)
	if err != nil {
		return err
	}
	if err := o.write(c.Context(), s, spec, a); err != nil {
		return err
	}
	made.say(s)
	made.sayForeign(s)
	return nil
}

func (o *kubeconfigSAOptions) write(ctx context.Context, s streams, spec layout.KubeconfigSpec, a account) error {
	spec.User, spec.Namespace = a.user(), cmp.Or(o.namespace, a.namespace)
	spec.Cluster = cmp.Or(o.cluster, spec.Cluster)
	data, err := layout.EncodeKubeconfig(spec)
	if err != nil {
		return err
	}
	return writeKubeconfig(ctx, s, o.file, data, nil, o.dryRun)
}

// saMountFlags are those that --mount goes with. All others say how a token is
// made, and with --mount none is.
var saMountFlags = []string{"mount", "root", "kubeconfig", "context", "server", "cluster-name", "namespace", "file", "dry-run"}

func (o *kubeconfigSAOptions) check(flags *pflag.FlagSet, a account) error {
	switch {
	case flags.Changed("file") && o.file == "":
		return usagef("--file names no file")
	case flags.Changed("mount") && o.mount == "":
		return usagef("--mount names no folder")
	case flags.Changed("cluster-name") && o.cluster == "":
		return usagef("--cluster-name is empty")
	case flags.Changed("namespace") && len(validation.IsDNS1123Label(o.namespace)) > 0:
		return usagef("--namespace %q is no name of one: lower-case letters, digits and - (RFC 1123)", o.namespace)
	case o.dryRun && o.from.legacy && !o.from.offline():
		return usagef("--dry-run: --legacy makes a Secret in the cluster")
	case o.mount == "":
		return nil
	}
	var foreign string
	flags.Visit(func(f *pflag.Flag) {
		if !slices.Contains(saMountFlags, f.Name) {
			foreign = f.Name
		}
	})
	if foreign != "" {
		return advise(usagef("--%s: --mount takes token and authorities from the folder", foreign), "kubepki sa token %s --write-mount %s makes them", a, o.mount)
	}
	if o.from.root != "" && (flags.Changed("kubeconfig") || flags.Changed("context")) {
		return usagef("--root and --kubeconfig both tell where the API server is: give one of them")
	}
	return nil
}

// withToken embeds a new token.
func (o *kubeconfigSAOptions) withToken(ctx context.Context, s streams, w *saWant) (layout.KubeconfigSpec, *saMade, error) {
	source, err := o.from.open(s)
	if err != nil {
		return layout.KubeconfigSpec{}, nil, err
	}
	spec, err := source.target(o.server)
	if err != nil {
		return spec, nil, err
	}
	if o.file != "" && !o.dryRun {
		dir, name := filepath.Split(o.file)
		if err := refuseExisting(dir, name); err != nil {
			return spec, nil, err // before a token is made
		}
	}
	made, err := o.from.make(ctx, source, w)
	if err == nil {
		spec.Token = made.text
	}
	return spec, made, err
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

// checkMount refuses a folder with the token of somebody else. That it cannot be
// read is no fault: it may be one of another machine, or of a pod.
func (o *kubeconfigSAOptions) checkMount(s streams, a account) error {
	warn := func(format string, args ...any) {
		fmt.Fprintf(s.err, "kubepki: warning: --mount: %s\n", report.Plain(fmt.Sprintf(format, args...)))
	}
	t, err := mountedToken(s, o.mount)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		warn("%v: unless the folder is a pod's or on another machine, kubepki sa token %s --write-mount %s makes it", err, a, o.mount)
		return nil
	case errors.As(err, new(*layout.ReadError)):
		warn("%v: whose token it is was not seen", err)
		return nil
	case err != nil:
		return fmt.Errorf("--mount: %w", err)
	}
	if err := refuseOther(t, a); err != nil {
		return fmt.Errorf("--mount: %s: %w", o.mount, err)
	}
	for _, f := range t.Findings(time.Now()) {
		if f.Severity == "error" {
			warn("%s: %s", o.mount, f.Message)
		}
	}
	file := filepath.Join(o.mount, layout.MountCA)
	data, err := readInput(s, file)
	if err != nil {
		warn("%v", err)
	} else if _, err := trust.ParseCertificates(data); err != nil {
		warn("%s: %v", file, err)
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
