package kube

import (
	"errors"
	"fmt"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Access says how to reach a cluster, in the words of kubectl's flags.
type Access struct {
	Kubeconfig string // path of a kubeconfig; "": KUBECONFIG, then ~/.kube/config, then the pod's own account
	Context    string // name of a context; "": the current one
}

// Connect returns the configuration of a client without client-side limits:
// the API server's priority and fairness is what protects it.
func (a Access) Connect() (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = a.Kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules,
		&clientcmd.ConfigOverrides{CurrentContext: a.Context}).ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err) && a.Kubeconfig != "": // client-go would speak of a variable that nobody uses
		return nil, fmt.Errorf("kubeconfig %s: no cluster is in it", a.Kubeconfig)
	case clientcmd.IsEmptyConfig(err):
		return nil, errors.New("kubeconfig: none is there, or no cluster is in it")
	case err != nil:
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	config.QPS = -1
	config.UserAgent = "kubepki"
	return config, nil
}

// Namespace is that of the context, "default" where it names none; in a pod the pod's
// own.
func (a Access) Namespace() (string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = a.Kubeconfig
	namespace, _, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: a.Context}).Namespace()
	if err != nil {
		return "", fmt.Errorf("kubeconfig: %w", err)
	}
	return namespace, nil
}
