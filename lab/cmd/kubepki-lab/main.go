// Command kubepki-lab runs a real Kubernetes cluster in plain processes: to
// rehearse on, to test on, without containers and without root.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// exitError ends the program with a code of its own and says nothing more.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// usageError is what the user has to say otherwise: exit code 2.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func run(ctx context.Context, args []string) int {
	root := newCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	}
	fmt.Fprintf(os.Stderr, "kubepki-lab: error: %v\n", err)
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(os.Stderr, "kubepki-lab: hint: %s\n", hint)
	}
	if errors.As(err, new(usageError)) {
		return 2
	}
	return 1
}

func newCommand() *cobra.Command {
	place := new(place)
	c := &cobra.Command{
		Use:   "kubepki-lab",
		Short: "Run a real Kubernetes cluster in plain processes",
		Long: `Run a real Kubernetes cluster in plain processes: etcd, kube-apiserver,
kube-controller-manager, kube-scheduler and kubelets, each node with an address of
its own, in a network of their own. No root, no containers; nothing is reachable
from outside this machine, and nothing outlives the lab.

Exit codes: 0 done or healthy, 1 could not do it, 2 wrong usage, 3 not ready (status), or
requests failed (load).`,
		SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q: see kubepki-lab --help", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	place.add(c.PersistentFlags())
	c.AddCommand(newUpCommand(place), newDownCommand(place), newStatusCommand(place), newEnvCommand(place),
		newExecCommand(place), newLogsCommand(place), newLoadCommand(place), newSuperviseCommand(place), newEnterCommand(place), newTryCommand())
	for _, verb := range verbs {
		c.AddCommand(newVerbCommand(place, verb))
	}
	return c
}

// hintOf finds what the user can do about an error.
func hintOf(err error) string {
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		return hinted.Hint()
	}
	return ""
}

// hintedError is an error with what the user can do about it.
type hintedError struct {
	error
	hint string
}

func (e hintedError) Hint() string  { return e.hint }
func (e hintedError) Unwrap() error { return e.error }
