// Command kubernetes is one program that holds the real components of
// Kubernetes, kubeadm, kubectl and the sample extension API server. It runs the
// one that it is called by: link it under the name of the component.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kubepki/kubepki/lab/internal/node"
	"github.com/spf13/cobra"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubeadm "k8s.io/kubernetes/cmd/kubeadm/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
	sample "k8s.io/sample-apiserver/pkg/cmd/server"
)

func main() { os.Exit(run(filepath.Base(os.Args[0]))) }

func run(name string) int {
	if err := node.Enter(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	switch name {
	case "kubeadm":
		// kubeadm returns its error unprinted.
		if err := kubeadm.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	case "kubectl":
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			kubectlutil.CheckErr(err) // prints it and exits
		}
		return 0
	}
	components := map[string]func() *cobra.Command{
		"kube-apiserver":          apiserver.NewAPIServerCommand,
		"kube-controller-manager": controllermanager.NewControllerManagerCommand,
		"kube-proxy":              proxy.NewProxyCommand,
		"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
		"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
		"sample-apiserver": func() *cobra.Command {
			ctx := genericapiserver.SetupSignalContext() // the others call it by themselves
			return sample.NewCommandStartWardleServer(ctx, sample.NewWardleServerOptions(os.Stdout, os.Stderr), false)
		},
	}
	command, ok := components[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "kubernetes: no component is called %q: link this program under a component's name\n", name)
		return 2
	}
	return cli.Run(command())
}
