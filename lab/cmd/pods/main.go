// Command pods is one program that holds what runs in the lab's pods and is no
// component of Kubernetes. It runs the one that it is called by: link it under
// that name.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/kubepki/kubepki/lab/internal/node"
	"github.com/kubepki/kubepki/lab/internal/podclient"
	"github.com/kubepki/kubepki/lab/internal/proxyclient"
	"github.com/kubepki/kubepki/lab/internal/webhook"
)

func main() { os.Exit(run(filepath.Base(os.Args[0]), os.Args[1:])) }

func run(name string, args []string) int {
	if err := node.Enter(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	switch name {
	case "kube-proxy-client":
		return proxyclient.Main(args)
	case "pod-client":
		return podclient.Main(args)
	case "webhook":
		return webhook.Main(args)
	}
	fmt.Fprintf(os.Stderr, "pods: no program is called %q: link this one as kube-proxy-client, pod-client or webhook\n", name)
	return 2
}
