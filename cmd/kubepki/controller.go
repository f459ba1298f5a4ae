package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/controller"
	"github.com/kubepki/kubepki/internal/kube"
)

type controllerOptions struct {
	access  kube.Access
	enable  []string
	listen  string
	level   string
	lease   leaseFlags
	csr     csrLoopFlags
	signing signingFlags
	pods    podFlags

	workloads workloadFlags
}

// leaseFlags say how a leader is chosen.
type leaseFlags struct {
	elect     bool
	namespace string
	name      string
	identity  string
}

func newControllerCommand(s streams) *cobra.Command {
	var o controllerOptions
	c := &cobra.Command{
		Use:   "controller",
		Short: "Approve and sign the certificate requests of a cluster",
		Long: `Controller watches the CertificateSigningRequests of a cluster, decides on them,
and signs what is approved, by it or by others. It takes the place of three
controllers of kube-controller-manager, which are turned off there with

  --controllers=*,-certificatesigningrequest-approving-controller,` + `
-certificatesigningrequest-signing-controller,` + `
-certificatesigningrequest-cleaner-controller

(one flag, without blanks), or it works beside them with the parts that they
lack: --approve=kubelet-serving --sign= --clean=false approves serving
certificates, which nobody else does, and needs no key.

A request is approved where it is certainly right, denied where it is certainly
wrong, and otherwise waits: for facts, or for a person. An error never denies.
kubepki csr review shows what would be decided, and why.

The log is JSON, one line for each decision, on stderr. --listen serves /livez,
/readyz and /metrics. SIGTERM ends it after what has been begun is finished;
SIGHUP opens the issuance log anew.`,
		Example: `  # On a control-plane node, as kube-controller-manager would
  kubepki controller --kubeconfig /etc/kubernetes/controller-manager.conf \
    --cluster-signing-cert-file /etc/kubernetes/pki/ca.crt \
    --cluster-signing-key-file /etc/kubernetes/pki/ca.key

  # In a pod, beside kube-controller-manager: only serving certificates, no key
  kubepki controller --approve kubelet-serving --sign= --clean=false

  # With a policy, and a record of every certificate
  kubepki controller --policy policy.yaml --issuance-log /var/log/kubepki/issued.jsonl \
    --cluster-signing-cert-file ca.crt --cluster-signing-key-file ca.key`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), s) },
	}
	f := c.Flags()
	f.StringVar(&o.access.Kubeconfig, "kubeconfig", "", "path of a kubeconfig (default: KUBECONFIG, ~/.kube/config, then the pod's service account)")
	f.StringVar(&o.access.Context, "context", "", "context of the kubeconfig (default: the current one)")
	f.StringSliceVar(&o.enable, "enable", []string{"csr"}, "what to run: "+strings.Join(partNames(), ", "))
	f.StringVar(&o.listen, "listen", "127.0.0.1:10269", "address of /livez, /readyz and /metrics, without TLS; empty: none")
	f.StringVar(&o.level, "log-level", "info", "debug, info, warn or error")
	f.BoolVar(&o.lease.elect, "leader-elect", true, "work only as the leader among all that share the lease")
	f.StringVar(&o.lease.namespace, "leader-elect-namespace", "", "namespace of the lease (default: the pod's, or kube-system)")
	f.StringVar(&o.lease.name, "leader-elect-name", "kubepki-controller", "name of the lease")
	f.StringVar(&o.lease.identity, "leader-elect-identity", "", "name of this process in the lease (default: the host's name and a random part)")
	o.csr.add(f)
	o.signing.add(f)
	o.pods.add(f)
	o.workloads.add(f)
	return c
}

// part is a thing that the controller can run.
type part struct {
	name string
	// prepare opens all that the part needs, before anything is dialled.
	prepare func(*controllerOptions, *controllerRun) error
	// build makes the loops of one term as the leader.
	build func(*controllerRun) ([]controller.Loop, error)
}

// parts are the things that --enable names.
func parts() []part {
	return []part{
		{"csr", (*controllerOptions).prepareCSR, (*controllerRun).csrLoops},
		{"podcerts", (*controllerOptions).preparePods, (*controllerRun).podLoops},
		{"trustbundles", (*controllerOptions).prepareBundles, (*controllerRun).bundleLoops},
		{"workloads", (*controllerOptions).prepareWorkloads, (*controllerRun).workloadLoops},
	}
}

func partNames() []string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

// enabled are the parts of --enable.
func (o *controllerOptions) enabled() ([]part, error) {
	var chosen []part
	for _, name := range o.enable {
		i := slices.IndexFunc(parts(), func(p part) bool { return p.name == name })
		if i < 0 {
			return nil, usagef("--enable: there is no part %q: use %s", name, strings.Join(partNames(), ", "))
		}
		chosen = append(chosen, parts()[i])
	}
	if len(chosen) == 0 {
		return nil, usagef("--enable: nothing to run: use %s", strings.Join(partNames(), ", "))
	}
	return chosen, nil
}

func (o *controllerOptions) run(ctx context.Context, s streams) error {
	chosen, err := o.enabled()
	if err != nil {
		return err
	}
	r, err := o.prepare(ctx, s, chosen)
	if err != nil {
		return err
	}
	defer r.close()
	return r.run(ctx, chosen)
}

// flagDuration is a flag's duration that must be positive.
func flagDuration(name string, d time.Duration) error {
	if d <= 0 {
		return usagef("--%s: %s is not positive", name, d)
	}
	return nil
}

// longSignerName is the whole name of a built-in signer that a flag names.
func longSignerName(flag, name string) (string, error) {
	for _, long := range builtInSigners() {
		if name == long || "kubernetes.io/"+name == long {
			return long, nil
		}
	}
	return "", usagef("--%s: there is no built-in signer %q: use %s", flag, name, shortSigners())
}

func longSignerNames(flag string, names []string) ([]string, error) {
	var all []string
	for _, name := range names {
		long, err := longSignerName(flag, name)
		if err != nil {
			return nil, err
		}
		if slices.Contains(all, long) {
			return nil, usagef("--%s: %s is there twice", flag, name)
		}
		all = append(all, long)
	}
	return all, nil
}

// shortSigners are the built-in signers as flags name them.
func shortSigners() string {
	var short []string
	for _, long := range builtInSigners() {
		short = append(short, strings.TrimPrefix(long, "kubernetes.io/"))
	}
	return fmt.Sprintf("%s or %s", strings.Join(short[:len(short)-1], ", "), short[len(short)-1])
}
