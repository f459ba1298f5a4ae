package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/report"
)

type saTokenOptions struct {
	from   saMakeFlags
	mount  string
	output string
}

func newSATokenCommand(s streams) *cobra.Command {
	var o saTokenOptions
	c := &cobra.Command{
		Use:   "token NAMESPACE/NAME",
		Short: "Make a token of a service account, with its signing key or in a cluster",
		Long: `Make a token of a service account, and print it. The cluster makes it (TokenRequest),
as for kubectl create token; or, with --key or --root, it is signed here, claim by
claim as kube-apiserver signs it: while the API server is down, on a machine that
does not reach it, for a pod that is to be. What the API server looks up must be
said then: uids.

With --write-mount the token goes with ca.crt and namespace into a folder as pods
have it in /var/run/secrets/kubernetes.io/serviceaccount. Run again, it replaces
all of them by one rename: who follows ..data once never reads files of two runs.

With --legacy the token is one of a Secret, as Kubernetes made them before 1.24. It
never expires. --secret prints the Secret, which must be in the cluster for the
token to be taken; with an ECDSA key nothing else is made here.

A token cannot be taken back but by deleting what it is bound to: keep it short.`,
		Example: `  # As kubectl create token, for a day
  kubepki sa token ci/robot --duration 24h

  # Without a cluster, from the files of a control plane
  kubepki sa token ci/robot --root ./cp1 --uid 6f5c0c2e-0c5c-4f0e-9d5b-2b7a3c1d9e10

  # For one pod, and for a service of its own
  kubepki sa token ci/robot --audience vault --bound-object-kind Pod --bound-object-name build-7

  # A folder for a program outside of the cluster, renewed by a timer
  kubepki sa token kube-system/kube-proxy --write-mount /var/lib/kube-proxy/serviceaccount

  # The Secret that kube-proxy of old mounts
  kubepki sa token kube-system/kube-proxy --root ./cp1 --uid a77d7ba1-fc3b-47a3-ac4d-2ead913d5082 --secret | kubectl apply --server-side -f -`,
		Args: oneAccount,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c, s, args[0]) },
	}
	f := c.Flags()
	o.from.add(f)
	f.BoolVar(&o.from.manifest, "secret", false, "print the Secret that holds the token; implies --legacy")
	f.StringVar(&o.mount, "write-mount", "", "write token, ca.crt and namespace into this folder instead")
	f.StringVarP(&o.output, "output", "o", "", "output: json or yaml, instead of the token alone")
	return c
}

func (o *saTokenOptions) run(c *cobra.Command, s streams, name string) error {
	if err := o.check(c.Flags()); err != nil {
		return err
	}
	a, err := parseAccount(name)
	if err != nil {
		return err
	}
	w, err := o.from.want(c.Flags(), a)
	if err != nil {
		return err
	}
	source, err := o.from.open(s)
	if err != nil {
		return err
	}
	var made *saMade
	if o.mount != "" {
		made, err = o.writeMount(c.Context(), s, source, w)
	} else if made, err = o.from.make(c.Context(), source, w); err == nil {
		err = o.print(s, made)
	}
	if err != nil {
		return err
	}
	made.say(s)
	return nil
}

func (o *saTokenOptions) print(s streams, made *saMade) error {
	switch {
	case o.from.manifest:
		return report.Document(s.out, cmp.Or(o.output, "yaml"), made.secret)
	case o.output != "":
		return report.Document(s.out, o.output, newSATokenDocument(made))
	}
	_, err := fmt.Fprintln(s.out, made.text)
	return err
}

func (o *saTokenOptions) check(flags *pflag.FlagSet) error {
	switch {
	case flags.Changed("write-mount") && o.mount == "":
		return usagef("--write-mount names no folder")
	case o.mount != "" && o.from.manifest:
		return usagef("--write-mount and --secret: the token goes to a folder or into a manifest: give one of them")
	case o.mount != "" && o.output != "":
		return usagef("--output: with --write-mount nothing is printed")
	case o.from.ca != "" && o.mount == "" && !o.from.manifest:
		return usagef("--certificate-authority is for --write-mount and --secret: a token alone says nothing of that")
	case !slices.Contains([]string{"", "json", "yaml"}, o.output):
		return usagef("--output: unknown format %q: use json or yaml", o.output)
	}
	return nil
}

// saSource makes tokens.
type saSource interface {
	// token makes a projected token.
	token(context.Context, *saWant) (string, error)
	// secret makes the token of a Secret.
	secret(context.Context, *saWant) (*corev1.Secret, error)
	// apiAudiences are those that the API server goes by, as far as they are known.
	apiAudiences(issuer string) []string
	// anchors are the PEM certificates by which pods of a namespace trust the
	// API server.
	anchors(ctx context.Context, namespace string) ([]byte, error)
	// target is a kubeconfig that lacks a user; server is dialled instead of what
	// the source knows.
	target(server string) (layout.KubeconfigSpec, error)
}

func (f *saMakeFlags) open(s streams) (saSource, error) {
	if f.offline() {
		return f.openOffline(s)
	}
	return f.openCluster(s)
}
