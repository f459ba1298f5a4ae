package main

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/kube"
)

// addAccess adds the flags that say how to reach a cluster.
func addAccess(flags *pflag.FlagSet, a *kube.Access) {
	flags.StringVar(&a.Kubeconfig, "kubeconfig", "", "kubeconfig of the cluster (default: $KUBECONFIG, ~/.kube/config, then "+adminConf+", then the pod's own account)")
	flags.StringVar(&a.Context, "context", "", "context of the kubeconfig (default: the current one)")
}

// clusterAPI is how a cluster is asked.
type clusterAPI struct {
	config *rest.Config
	client kubernetes.Interface
}

// adminConf is where kubeadm leaves the administrator's kubeconfig on a control
// plane.
var adminConf = catalog.Conf("admin.conf")

// configure returns how to reach a cluster. Where nothing else is named it looks
// where kubeadm does, so that a control plane needs no flag.
func configure(a kube.Access) (*rest.Config, error) {
	if a.Kubeconfig == "" && os.Getenv("KUBECONFIG") == "" && !exists(clientcmd.RecommendedHomeFile) && exists(adminConf) {
		a.Kubeconfig = adminConf
	}
	config, err := a.Connect()
	if err != nil {
		return nil, advise(err, "name a kubeconfig with --kubeconfig, or in the variable KUBECONFIG")
	}
	return config, nil
}

func connect(a kube.Access) (*clusterAPI, error) {
	config, err := configure(a)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return &clusterAPI{config, client}, nil
}
