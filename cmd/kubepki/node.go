package main

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/join"
	"github.com/kubepki/kubepki/internal/report"
)

func newNodeCommand(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "node",
		Short: "Join this node to a cluster by token, renew its certificate, restart its components, hand over what control planes share",
		Example: `  # Join with the bootstrap kubeconfig that was brought here
  sudo kubepki node join

  # Join as kubeadm join does
  sudo kubepki node join --server 10.0.0.11:6443 --token-file token --discovery-token-ca-cert-hash sha256:...

  # A new client certificate and key, now
  sudo kubepki node rotate --force

  # Hand over what a new control plane needs, encrypted, as kubeadm's upload-certs does
  sudo kubepki node upload-certs`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("node: say what to do: join, rotate, restart, upload-certs, download-certs or certificate-key")
		},
	}
	c.AddCommand(newNodeJoinCommand(s), newNodeRotateCommand(s), newNodeRestartCommand(s), newNodeUploadCertsCommand(s), newNodeDownloadCertsCommand(s), newNodeCertificateKeyCommand(s))
	return c
}

// clientFlags say where the files of a client stand.
type clientFlags struct {
	root, kubeconfig, bootstrap, certDir string
}

func (f *clientFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.root, "root", "/", "folder that stands for / of the node")
	f.addFiles(flags)
}

// addFiles adds the flags but for --root.
func (f *clientFlags) addFiles(flags *pflag.FlagSet) {
	flags.StringVar(&f.kubeconfig, "kubeconfig", join.Kubeconfig, "the client's kubeconfig: path on the node")
	flags.StringVar(&f.bootstrap, "bootstrap-kubeconfig", join.BootstrapKubeconfig, "kubeconfig to join with, removed when the node has joined: path on the node")
	flags.StringVar(&f.certDir, "cert-dir", join.CertDir, "folder of the certificate and key: path on the node")
}

// options are those of a node.
func (f *clientFlags) options() (join.Options, error) {
	o := join.Options{Root: f.root, Kubeconfig: f.kubeconfig, BootstrapKubeconfig: f.bootstrap, CertDir: f.certDir, Prefix: join.Prefix, AuthorityFile: join.AuthorityFile}
	if f.root == "" {
		return o, usagef("--root names no folder")
	}
	for flag, file := range map[string]*string{"kubeconfig": &o.Kubeconfig, "bootstrap-kubeconfig": &o.BootstrapKubeconfig, "cert-dir": &o.CertDir} {
		if *file == "" {
			return o, usagef("--%s names no file", flag)
		}
		if path.IsAbs(*file) {
			*file = path.Clean(*file)
			continue
		}
		if f.root != "/" {
			return o, usagef("--%s %s is not an absolute path: with --root it is the node's", flag, *file)
		}
		absolute, err := filepath.Abs(*file)
		if err != nil {
			return o, fmt.Errorf("--%s: %w", flag, err)
		}
		*file = absolute
	}
	return o, nil
}

// identity sets who joins. Without --node-name it is the machine's name, and
// whoever the node is already, it stays.
func nodeIdentity(o *join.Options, name string, given bool) error {
	var err error
	if !given {
		if o.Root != "/" {
			return usagef("--node-name is missing: the name of this machine is not that of the node below --root")
		}
		if name, err = join.DefaultNodeName(); err != nil {
			return err
		}
		o.AnyIdentity = true
	}
	if o.Identity, err = join.Node(name); err != nil {
		return usagef("--node-name: %w", err)
	}
	return nil
}

// lifetime reads --validity; empty is the signer's own.
func (f *renewalFlags) lifetime() (time.Duration, error) {
	if f.validity == "" {
		return 0, nil
	}
	d, err := parseLife("--validity", f.validity)
	if err == nil && d < 10*time.Minute {
		err = usagef("--validity %s: the API server takes no less than 10m", f.validity)
	}
	return d, err
}

// renewalFlags are those of every command that asks for a certificate.
type renewalFlags struct {
	validity string
	timeout  time.Duration
	output   string
}

func (f *renewalFlags) add(flags *pflag.FlagSet, timeout time.Duration) {
	flags.StringVar(&f.validity, "validity", "", "life to ask for, such as 30d; the signer may give less (default: as the signer likes)")
	flags.DurationVar(&f.timeout, "timeout", timeout, "how long to wait for the API server and for the certificate")
	flags.StringVarP(&f.output, "output", "o", "text", "text or json")
}

func (f *renewalFlags) set(o *join.Options, s streams) (err error) {
	switch {
	case f.output != "text" && f.output != "json":
		return usagef("--output %q is neither text nor json", f.output)
	case f.timeout <= 0:
		return usagef("--timeout: %s is no time to wait: use 5m", f.timeout)
	}
	o.Timeout = f.timeout
	o.Say = func(line string) { fmt.Fprintf(s.err, "%s\n", report.Plain(oneLineOf(line))) }
	o.Lifetime, err = f.lifetime()
	return err
}

func oneLineOf(text string) string { return strings.Join(strings.Fields(text), " ") }

// say prints what a run came to.
func (f *renewalFlags) say(s streams, o join.Options, r *join.Result) error {
	if f.output == "json" {
		return report.Document(s.out, "json", credentialDocument{
			APIVersion: report.APIVersion, Kind: "ClientCredential", Outcome: string(r.Outcome),
			User: r.Identity.CommonName, Groups: r.Identity.Organization, Server: r.Server, Kubeconfig: o.Kubeconfig,
			NotBefore: r.Leaf.NotBefore.UTC(), NotAfter: r.Leaf.NotAfter.UTC(), RotationDue: r.Due.UTC().Truncate(time.Second), Request: r.Request,
		})
	}
	if r.BootstrapRemoved {
		fmt.Fprintf(s.err, "removed %s\n", filepath.Join(o.Root, o.BootstrapKubeconfig))
	}
	said := map[join.Outcome]string{join.Joined: "joined", join.AlreadyJoined: "already joined", join.Rotated: "rotated", join.NotDue: "not due"}
	_, err := fmt.Fprintf(s.out, "%s: %s at %s, valid until %s, rotation due at %s: %s\n", said[r.Outcome], report.Plain(r.Identity.CommonName), r.Server,
		r.Leaf.NotAfter.UTC().Format(time.RFC3339), r.Due.UTC().Format(time.RFC3339), filepath.Join(o.Root, o.Kubeconfig))
	return err
}

// credentialDocument is the answer of join and rotate for machines.
type credentialDocument struct {
	APIVersion  string    `json:"apiVersion"`
	Kind        string    `json:"kind"`
	Outcome     string    `json:"outcome"`
	User        string    `json:"user"`
	Groups      []string  `json:"groups"`
	Server      string    `json:"server"`
	Kubeconfig  string    `json:"kubeconfig"`
	NotBefore   time.Time `json:"notBefore"`
	NotAfter    time.Time `json:"notAfter"`
	RotationDue time.Time `json:"rotationDue"`
	Request     string    `json:"request,omitempty"`
}
