package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kubepki/kubepki/internal/kube"
)

func newCertCommand(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "cert",
		Short: "Certificates of workloads (cert-manager.io): make, list, renew and approve them, and see what one waits for",
		Long: `Cert works on the Certificates of cert-manager.io in a cluster, whether cert-manager
serves them or kubepki controller --enable workloads.`,
		Example: `  # What does it wait for?
  kubepki cert why web -n shop

  # All of the cluster, what is most urgent first
  kubepki cert status -A

  # One more, for a name
  kubepki cert create web -n shop --issuer shop-ca --dns web.example.com --wait`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("cert: say what to do: create, status, renew, why, review, approve or deny")
		},
	}
	c.AddCommand(newCertWhyCommand(s), newCertStatusCommand(s), newCertRenewCommand(s), newCertCreateCommand(s),
		newCertReviewCommand(s), newCertApproveCommand(s), newCertDenyCommand(s))
	return c
}

// certAccess says which cluster and namespace are meant.
type certAccess struct {
	kube.Access
	namespace string
}

func (a *certAccess) add(f *pflag.FlagSet) {
	addAccess(f, &a.Access)
	f.StringVarP(&a.namespace, "namespace", "n", "", "namespace (default: that of the context)")
}

// connect also settles the namespace.
func (a *certAccess) connect() (*kube.Certs, error) {
	if a.namespace != "" && len(validation.IsDNS1123Label(a.namespace)) > 0 {
		return nil, usagef("--namespace %q is no name of one: lower-case letters, digits and - (RFC 1123)", a.namespace)
	}
	config, err := configure(a.Access)
	if err != nil {
		return nil, err
	}
	if a.namespace == "" {
		if a.namespace, err = a.Namespace(); err != nil {
			return nil, err
		}
		a.namespace = cmp.Or(a.namespace, "default")
	}
	return kube.NewCerts(config)
}

// certName takes NAME and certificate/NAME, and the short names that kubectl knows.
func certName(arg string) (string, error) {
	kind, name, ok := strings.Cut(arg, "/")
	if !ok {
		kind, name = "certificate", arg
	}
	switch strings.ToLower(kind) {
	case "certificate", "certificates", "cert", "certs", "certificate.cert-manager.io", "certificates.cert-manager.io":
		return name, checkObjectName(name)
	}
	return "", usagef("%s: name a Certificate", arg)
}

func checkObjectName(name string) error {
	if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
		return usagef("%q is no name of an object: %s", name, problems[0])
	}
	return nil
}

// adviseCert adds to an answer of the API server what can be done about it; right is what
// the command needs, as "list certificates.cert-manager.io".
func adviseCert(err error, right string) error {
	switch {
	case err == nil:
		return nil
	case kube.IsNoKind(err):
		return advise(errors.New("the API server knows no Certificates: the CRDs of cert-manager.io are not installed"),
			"kubectl apply -f https://github.com/cert-manager/cert-manager/releases/download/v1.21.2/cert-manager.crds.yaml")
	case apierrors.IsForbidden(err):
		return advise(err, "give yourself the right to %s", right)
	case apierrors.IsUnauthorized(err):
		return advise(err, "the kubeconfig's credential is not accepted: is it expired? kubepki show KUBECONFIG tells")
	}
	return err
}

// certResource names a Certificate as kubectl does.
func certResource(name string) string { return "certificate.cert-manager.io/" + name }

// selection says which Certificates are meant.
type selection struct {
	all      bool   // of all namespaces
	selector string // of labels
}

func (l *selection) add(f *pflag.FlagSet) {
	f.BoolVarP(&l.all, "all-namespaces", "A", false, "those of all namespaces")
	f.StringVarP(&l.selector, "selector", "l", "", "only those with these labels, like app=web")
}

func (l *selection) check(a *certAccess) error {
	if l.all && a.namespace != "" {
		return usagef("--all-namespaces and --namespace say different things: leave one out")
	}
	return nil
}

// where is the namespace to list, and in words.
func (l *selection) where(a *certAccess) (namespace, words string) {
	if l.all {
		return "", "in any namespace"
	}
	return a.namespace, fmt.Sprintf("in namespace %s", a.namespace)
}
