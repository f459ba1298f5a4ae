package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/lab/internal/cluster"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
	"github.com/kubepki/kubepki/lab/internal/supervisor"
)

// lookEvery is how often up looks at a lab that starts.
const lookEvery = 250 * time.Millisecond

type upFlags struct {
	controlPlanes, nodes int
	lightNodes           int
	config, signer       string
	loopback, pods       bool
	signing, wait        time.Duration
}

func newUpCommand(p *place) *cobra.Command {
	var f upFlags
	c := &cobra.Command{
		Use:   "up",
		Short: "Create a cluster's credentials and start it, or resume it",
		Long: `Create the credentials of a cluster with kubepki and start all of its components,
or start again what stands in the folder already. It returns when all is ready.`,
		Example: `  # One control plane and two nodes
  kubepki-lab up --nodes 2
  eval "$(kubepki-lab env)" && kubectl get nodes

  # Three control planes behind a load balancer, in a folder of its own
  kubepki-lab up --control-planes 3 --nodes 2 --dir ./rehearsal

  # A copy of your own cluster's shape: kubeadm's configuration, or kubepki's
  kubepki-lab up --config cluster.yaml`,
		Args: none("up"),
		RunE: func(c *cobra.Command, _ []string) error { return runUp(c, p, &f) },
	}
	flags := c.Flags()
	flags.IntVar(&f.controlPlanes, "control-planes", 0, "control planes, 1 or 3, each with etcd (default 1)")
	flags.IntVar(&f.nodes, "nodes", 2, "nodes that join by bootstrap token (beside those of --config)")
	flags.IntVar(&f.lightNodes, "light-nodes", 0, "nodes for load, hundreds in one process: they join, renew and serve as others, and run no pods")
	flags.StringVar(&f.config, "config", "", "configuration of the cluster, as kubepki init takes it")
	flags.StringVar(&f.signer, "signer", cluster.ManagerSigner, "who approves and signs the nodes' certificates: kube-controller-manager, or kubepki (kubepki controller, on the control planes)")
	flags.DurationVar(&f.signing, "signing-duration", 0, "life of the nodes' certificates; of some minutes, to see them renewed (default a year)")
	flags.BoolVar(&f.pods, "pods", true, "run kube-proxy, an extension API server, a webhook and a client in pods too")
	flags.BoolVar(&f.loopback, "loopback", false, "use no namespaces: control planes and light nodes, on addresses of the machine's loopback (done by itself where namespaces are not allowed)")
	flags.DurationVar(&f.wait, "wait", 3*time.Minute, "how long to wait until all is ready; 0: not at all")
	return c
}

// none refuses arguments.
func none(command string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef("%s takes no arguments, and %q is one", command, args[0])
		}
		return nil
	}
}

func runUp(c *cobra.Command, p *place, f *upFlags) error {
	began := time.Now()
	ctx, talk := c.Context(), c.ErrOrStderr()
	folder, programs, err := p.both()
	if err != nil {
		return err
	}
	wanted, err := f.wanted(c, folder)
	if err != nil {
		return err
	}
	if err := folder.Make(); err != nil {
		return err
	}
	up, err := runs(folder)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	if up {
		fmt.Fprintf(talk, "the lab in %s is up already\n", folder)
	} else if err := say(ctx, talk, wanted); err != nil {
		return err
	} else if err := create(ctx, talk, folder, wanted, programs, ended); err != nil {
		return err
	}
	if f.wait > 0 {
		ctx, cancel := context.WithTimeout(ctx, f.wait)
		defer cancel()
		if err := awaitReady(ctx, talk, folder, began, ended); err != nil {
			return err
		}
	}
	said := fmt.Sprintf("up after %.1f s", time.Since(began).Seconds())
	if f.wait <= 0 {
		said = "started; kubepki-lab status tells when all is ready"
	}
	fmt.Fprintf(c.OutOrStdout(), "%s\n\n  eval \"$(kubepki-lab env --dir %s)\"\n  kubectl get nodes\n", said, quote(string(folder)))
	return nil
}

// wanted is what the lab is made from: what the folder says, or else the flags.
// They must not contradict each other.
func (f *upFlags) wanted(c *cobra.Command, folder cluster.Folder) (cluster.Wanted, error) {
	asked := cluster.Wanted{ControlPlanes: f.controlPlanes, Workers: f.nodes, ConfigName: f.config, WithoutPods: !f.pods, LightNodes: f.lightNodes, Signer: f.signer, SigningDuration: f.signing}
	if f.config != "" {
		data, err := readConfig(f.config)
		if err != nil {
			return asked, err
		}
		asked.Config = data
		if !c.Flags().Changed("nodes") {
			asked.Workers = 0
		}
	}
	was, err := folder.Wanted()
	if errors.Is(err, cluster.ErrNoLab) {
		if _, err := asked.Cluster(); err != nil {
			return asked, asUsage(err)
		}
		asked.Loopback = f.loopback || namespaces(c.Context()) != nil
		asked.WithoutKubelets = asked.Loopback || kubelet.Possible() != nil
		if _, err := asked.Cluster(); err != nil {
			return asked, asUsage(err)
		}
		err := folder.Claim(asked)
		if errors.Is(err, cluster.ErrForeign) {
			err = hintedError{err, "name a folder of its own with --dir: all of it belongs to the lab"}
		}
		return asked, err
	}
	if err != nil {
		return was, err
	}
	for _, flag := range []struct {
		name    string
		differs bool
	}{
		{"control-planes", asked.ControlPlanes != was.ControlPlanes && max(asked.ControlPlanes, was.ControlPlanes) > 1},
		{"nodes", asked.Workers != was.Workers},
		{"config", string(asked.Config) != string(was.Config)},
		{"light-nodes", asked.LightNodes != was.LightNodes},
		{"pods", f.pods == was.WithoutPods},
		{"loopback", f.loopback != was.Loopback},
		{"signing-duration", f.signing != was.SigningDuration},
		{"signer", f.signer != cmp.Or(was.Signer, cluster.ManagerSigner)},
	} {
		if c.Flags().Changed(flag.name) && flag.differs {
			return was, hintedError{usagef("--%s: the lab in %s was made otherwise", flag.name, folder), "leave the flag out to resume it, use another --dir, or remove it with kubepki-lab down --remove"}
		}
	}
	return was, nil
}

func asUsage(err error) error {
	if err != nil {
		return usageError{err}
	}
	return nil
}

// readConfig reads a configuration, - from standard input.
func readConfig(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(io.LimitReader(os.Stdin, configLimit))
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, configLimit))
}

// configLimit is one byte more than a configuration may have.
const configLimit = 1<<20 + 1

// create makes the credentials and starts the supervisor in the background. Its
// end is sent to ended.
func create(ctx context.Context, talk io.Writer, folder cluster.Folder, wanted cluster.Wanted, programs string, ended chan error) error {
	spec, err := wanted.Cluster()
	if err != nil {
		return err
	}
	warnings, err := folder.CreateCredentials(ctx, spec)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		fmt.Fprintf(talk, "kubepki-lab: warning: %s\n", w)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(folder.SupervisorLog(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the supervisor has a copy
	cmd := exec.Command(self, "supervise", "--dir", string(folder), "--programs", programs)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives the terminal
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { ended <- cmd.Wait() }()
	return awaitLock(ctx, folder, ended)
}

// awaitLock waits until the supervisor holds the lock: from then on the lab is
// seen to be up, and can be told to go down.
func awaitLock(ctx context.Context, folder cluster.Folder, ended <-chan error) error {
	for {
		if up, err := runs(folder); err != nil || up {
			return err
		}
		select {
		case err := <-ended:
			return supervisorEnded(folder, err)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// awaitReady waits until all is ready, and says what has become so meanwhile.
func awaitReady(ctx context.Context, talk io.Writer, folder cluster.Folder, began time.Time, ended <-chan error) error {
	client, err := supervisor.NewClient(folder)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	said := map[string]bool{}
	var last *supervisor.Status
	for {
		// No answer yet: the supervisor has only just been started.
		if status, err := client.Status(ctx); err == nil {
			last = status
			sayReady(talk, status, said, began)
			if status.Ready {
				return nil
			}
		}
		select {
		case err := <-ended:
			return supervisorEnded(folder, err)
		case <-ctx.Done():
			return hintedError{fmt.Errorf("not ready after %.0f s: %s", time.Since(began).Seconds(), missing(last)), "kubepki-lab status and kubepki-lab logs COMPONENT tell more; the lab goes on"}
		case <-time.After(lookEvery):
		}
	}
}

func sayReady(talk io.Writer, status *supervisor.Status, said map[string]bool, began time.Time) {
	for _, c := range status.Components {
		name := c.Component + " of " + c.Node
		if c.Ready && !said[name] {
			said[name] = true
			fmt.Fprintf(talk, "%5.1f s  %s is ready\n", time.Since(began).Seconds(), name)
		}
	}
	for _, w := range status.Workloads {
		if name := w.Kind + " " + w.Name; w.Ready && !said[name] {
			said[name] = true
			fmt.Fprintf(talk, "%5.1f s  %s is ready\n", time.Since(began).Seconds(), name)
		}
	}
	for _, n := range status.Nodes {
		if n.Ready && !said[n.Name] {
			said[n.Name] = true
			fmt.Fprintf(talk, "%5.1f s  node %s is Ready\n", time.Since(began).Seconds(), n.Name)
		}
	}
}

// missing says what is not ready.
func missing(status *supervisor.Status) string {
	if status == nil {
		return "the supervisor does not answer"
	}
	for _, c := range status.Components {
		if !c.Ready && c.State != "stopped" {
			return fmt.Sprintf("%s of %s is %s: %s", c.Component, c.Node, c.State, c.Message)
		}
	}
	for _, n := range status.Nodes {
		if !n.Ready {
			return fmt.Sprintf("node %s: %s", n.Name, n.Message)
		}
	}
	for _, w := range status.Workloads {
		if !w.Ready {
			return fmt.Sprintf("%s %s: %s", w.Kind, w.Name, w.Message)
		}
	}
	return status.Message
}

// supervisorEnded tells why, by the end of its log.
func supervisorEnded(folder cluster.Folder, err error) error {
	log, readErr := os.ReadFile(folder.SupervisorLog())
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	return fmt.Errorf("the supervisor ended (%w):\n%s", err, log[max(0, len(log)-4096):])
}
