// Command cert-manager is the real cert-manager of the version that go.mod pins: its
// controllers, its cainjector and its webhook, as
//
//	cert-manager controller|cainjector|webhook [flags]
//
// Its own main packages are modules that no proxy serves, so that what they put together
// is put together here: with their flags, defaults, feature gates, user agents and leader
// election. Left out are the issuers of others (ACME, Vault, Venafi), whose libraries
// would be most of the program, and profiling.
//
// The module lies below cert-manager's path because its webhook is among its internal
// packages, and is one of its own because cert-manager is built from other versions of
// Kubernetes' libraries than the components of the lab.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	logf "github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/cert-manager/cert-manager/pkg/util/feature"
)

// A program adds its flags, and returns what runs it once they are parsed.
type program func(*pflag.FlagSet) func(context.Context) error

var programs = map[string]program{"controller": controllers, "cainjector": injector, "webhook": webhook}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) == 0 || programs[args[0]] == nil {
		fmt.Fprintln(os.Stderr, "cert-manager: name the program: controller, cainjector or webhook")
		return 2
	}
	flags := pflag.NewFlagSet(args[0], pflag.ContinueOnError)
	gates := flags.StringToString("feature-gates", nil, "NAME=true|false, …")
	start := programs[args[0]](flags)
	if err := flags.Parse(args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "cert-manager %s: %v\n", args[0], err)
		return 2
	}
	for name, value := range *gates {
		if err := feature.DefaultMutableFeatureGate.SetFromMap(map[string]bool{name: value == "true"}); err != nil {
			fmt.Fprintf(os.Stderr, "cert-manager %s: --feature-gates: %v\n", args[0], err)
			return 2
		}
	}
	ctrl.SetLogger(klog.Background())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := start(logf.NewContext(ctx, klog.Background(), args[0])); err != nil {
		fmt.Fprintf(os.Stderr, "cert-manager %s: %v\n", args[0], err)
		return 1
	}
	return 0
}
