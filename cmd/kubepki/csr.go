package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/kube"
)

func newCSRCommand(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "csr",
		Short: "List, review, approve, deny and sign certificate signing requests of the API, and make one",
		Example: `  # What waits, and what would the policy say?
  kubepki csr list --state pending --review

  # Judge a request in a file, without a cluster
  kubepki csr review -f csr.yaml --nodes nodes.yaml -o json

  # From a key to a kubeconfig that works
  kubepki csr create --user jane --group dev --kubeconfig-out jane.conf`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("csr: say what to do: list, review, approve, deny, sign or create")
		},
	}
	c.AddCommand(newCSRListCommand(s), newCSRReviewCommand(s), newCSRApproveCommand(s), newCSRDenyCommand(s), newCSRSignCommand(s), newCSRCreateCommand(s))
	return c
}

// addAccess adds the flags that say how to reach a cluster.
func addAccess(flags *pflag.FlagSet, a *kube.Access) {
	flags.StringVar(&a.Kubeconfig, "kubeconfig", "", "kubeconfig to use (default: $KUBECONFIG, then ~/.kube/config, then the pod's own account)")
	flags.StringVar(&a.Context, "context", "", "context of the kubeconfig (default: the current one)")
}

// clusterAPI is how a cluster is asked.
type clusterAPI struct {
	config *rest.Config
	client kubernetes.Interface
}

func connect(a kube.Access) (*clusterAPI, error) {
	config, err := a.Connect()
	if err != nil {
		return nil, advise(err, "name a kubeconfig with --kubeconfig, or in the variable KUBECONFIG")
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return &clusterAPI{config, client}, nil
}

// Rights that the commands need, as advice where they are missing.
const (
	getRights  = "give yourself the right to get certificatesigningrequests of certificates.k8s.io"
	listRights = "give yourself the right to list certificatesigningrequests of certificates.k8s.io"
)

// adviseAPI adds to an answer of the API server what can be done about it.
func adviseAPI(err error, rights string) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err):
		return advise(err, "%s", rights)
	case apierrors.IsUnauthorized(err):
		return advise(err, "the kubeconfig's credential is not accepted: is it expired? kubepki show KUBECONFIG tells")
	case apierrors.IsNotFound(err):
		return advise(err, "requests are removed an hour after they were issued and a day after they were made: kubepki csr list")
	}
	return err
}
