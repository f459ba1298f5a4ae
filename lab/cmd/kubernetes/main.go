// Command kubernetes is one program that holds the real control plane of
// Kubernetes and kubeadm. It runs the one that it is called by: link it under
// the name of the component (kube-apiserver, kube-controller-manager,
// kube-scheduler, kubeadm).
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/kubepki/kubepki/lab/internal/node"
	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubeadm "k8s.io/kubernetes/cmd/kubeadm/app"
)

func main() { os.Exit(run(filepath.Base(os.Args[0]))) }

func run(name string) int {
	if err := node.Enter(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	components := map[string]func() *cobra.Command{
		"kube-apiserver":          apiserver.NewAPIServerCommand,
		"kube-controller-manager": controllermanager.NewControllerManagerCommand,
		"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	}
	if name == "kubeadm" {
		// kubeadm returns its error unprinted.
		if err := kubeadm.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	command, ok := components[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "kubernetes: no component is called %q: link this program under a component's name\n", name)
		return 2
	}
	return cli.Run(command())
}
