package main

import (
	"crypto/x509"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// trustTargets is a part of the help of each command below trust.
const trustTargets = `A target is one of
  [NODE/]COMPONENT/FLAG          what a flag of a component names, on all nodes that are given, e.g.
                                 kube-apiserver/client-ca-file (kubepki trust list -o name)
  file:PATH                      a file of this machine
  configmap/NAMESPACE/NAME[/KEY], secret/NAMESPACE/NAME[/KEY], clustertrustbundle/NAME,
  apiservice/NAME, customresourcedefinition/NAME,
  validatingwebhookconfiguration/NAME[/WEBHOOK], mutatingwebhookconfiguration/NAME[/WEBHOOK]
                                 of the cluster that --kubeconfig names`

func newTrustCommand(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "trust",
		Short: "List, add, remove, compare and prune the authorities that components trust",
		Long: `List, add, remove, compare and prune anchors: the authorities that a component, a
ConfigMap, a webhook or a ClusterTrustBundle trusts. Each change is judged on all
links of the nodes before anything is written, and each file appears whole.

` + trustTargets,
		Example: `  # Who trusts whom, on this node
  sudo kubepki trust list

  # Let the clients of a management platform in, on three control planes
  kubepki trust add kube-apiserver/client-ca-file platform-ca.crt --root cp1=./cp1 --root cp2=./cp2 --root cp3=./cp3

  # And out again
  kubepki trust remove kube-apiserver/client-ca-file platform-ca.crt --root cp1=./cp1 --root cp2=./cp2 --root cp3=./cp3`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("trust: say what to do: list, add, remove, diff or prune")
		},
	}
	c.AddCommand(newTrustListCommand(s), newTrustAddCommand(s), newTrustRemoveCommand(s), newTrustDiffCommand(s), newTrustPruneCommand(s))
	return c
}

// completeTargets completes the first arguments, as many as are targets, by the flags
// of the nodes of --root; after them come files. Objects are not asked for.
func (o *trustFlags) completeTargets(most int) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) >= most {
			return nil, cobra.ShellCompDirectiveDefault
		}
		roots := slices.Clone(o.roots) // cobra parses them twice to complete
		slices.Sort(roots)
		source := &trustSource{flags: &trustFlags{roots: slices.Compact(roots)}}
		if source.readNodes() != nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		var all []cobra.Completion
		for _, s := range source.nodes.Settings {
			if s.Role != trust.RoleBundle {
				continue
			}
			for _, name := range []string{path.Join(s.Component, s.Name), s.Target()} {
				if !slices.Contains(all, name) {
					all = append(all, name)
				}
			}
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

// trustFlags say where bundles are looked for.
type trustFlags struct {
	roots  []string
	layout string
	access kube.Access
	at     string
	output string
}

func (o *trustFlags) add(f *pflag.FlagSet, formats string) {
	f.StringArrayVar(&o.roots, "root", nil, "folder of a node that stands for its /, as [NAME=]DIR, or a folder of such roots; repeatable (default /)")
	layoutFlag(f, &o.layout)
	f.StringVar(&o.at, "at", "", "judge as of this time (RFC 3339, or a date) instead of now")
	f.StringVarP(&o.output, "output", "o", "table", "output: "+formats)
	addAccess(f, &o.access)
}

// time is that of --at, else now.
func (o *trustFlags) time() (time.Time, error) {
	if o.at == "" {
		return clock(), nil
	}
	at, err := parseTime(o.at)
	if err != nil {
		return at, usagef("--at: %w", err)
	}
	return at, nil
}

func (o *trustFlags) checkOutput(formats ...string) error {
	if !slices.Contains(formats, o.output) {
		return usagef("--output: unknown format %q: use one of %v", o.output, formats)
	}
	return nil
}

// anchorDocument is one anchor in machine output.
type anchorDocument struct {
	Subject   string    `json:"subject"`
	SHA256    string    `json:"sha256"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	// Fault tells why it serves as no anchor; absent where it does.
	Fault string `json:"fault,omitempty"`
	// Recertified are fingerprints of others of the bundle with its name and key.
	Recertified []string `json:"recertified,omitempty"`
	// Links are the numbers of the links of which it verifies a half; absent: not known.
	Links []int `json:"links,omitzero"`
}

func newAnchorDocument(c *x509.Certificate, at time.Time) anchorDocument {
	return anchorDocument{
		Subject: c.Subject.String(), SHA256: bundle.Fingerprint(c), NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
		Fault: bundle.NotAnchor(c, at),
	}
}

func anchorDocuments(all []*x509.Certificate, at time.Time) []anchorDocument {
	out := []anchorDocument{}
	for _, c := range all {
		out = append(out, newAnchorDocument(c, at))
	}
	return out
}

// shownDigits is how much of a fingerprint is shown: commands take as much.
const shownDigits = 16

// anchorText shows one anchor in a line.
func anchorText(c *x509.Certificate) string {
	return fmt.Sprintf("%s  sha256 %s  until %s", report.Plain(c.Subject.String()), bundle.Fingerprint(c)[:shownDigits], c.NotAfter.UTC().Format(time.DateOnly))
}
