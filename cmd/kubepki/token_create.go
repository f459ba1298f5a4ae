package main

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/bootstrap"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/report"
)

type tokenCreateOptions struct {
	access         kube.Access
	from           serverFlags
	token          tokenFlags
	ttl            string
	usages, groups []string
	description    string
	printJoin      bool
	certificateKey string
	manifests      string
	config         string
	dryRun         bool
}

func newTokenCreateCommand(s streams) *cobra.Command {
	var o tokenCreateOptions
	c := &cobra.Command{
		Use:   "create [TOKEN]",
		Short: "Make a bootstrap token, and print it or the command with which a node joins",
		Long: `Make a bootstrap token in the cluster, and print it; with --print-join-command,
the command with which a node joins. TOKEN is one that was made with kubepki
token generate; as an argument everybody who can list processes sees it.

With --manifests no cluster is asked. The file then holds all that a cluster
needs so that nodes can join, as kubeadm makes it: the token, the signed
ConfigMap cluster-info, and the roles; kubectl apply --server-side -f takes it
(without --server-side kubectl keeps a copy of the token in an annotation).`,
		Example: `  # A token for a day, for nodes
  sudo kubepki token create

  # For an hour, and the whole command
  kubepki token create --ttl 1h --description "rack 7" --print-join-command

  # Without a cluster: from the files of kubepki init
  kubepki token create --root ./cp1 --manifests bootstrap.yaml --print-join-command

  # Without its files either
  kubepki token create --certificate-authority ca.crt --server https://10.0.0.11:6443 --manifests - | kubectl apply --server-side -f -

  # One that was made before, which no list of processes shows
  kubepki token create --token-file token`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c, s, args) },
	}
	f := c.Flags()
	addAccess(f, &o.access)
	o.from.add(f)
	o.token.addFile(f)
	f.StringVar(&o.config, "config", "", "kubeadm's configuration, whose bootstrapTokens are made, instead of flags")
	f.StringVar(&o.ttl, "ttl", bootstrap.DefaultLife.String(), "life of the token, like 90m or 7d; 0: it never expires")
	f.StringSliceVar(&o.usages, "usages", []string{bootstrap.Signing, bootstrap.Authentication}, "what it may be used for: signing (nodes discover the cluster with it), authentication (nodes ask for certificates with it)")
	f.StringSliceVar(&o.groups, "groups", []string{bootstrap.NodeGroup}, "groups of whoever shows it, beside system:bootstrappers")
	f.StringVar(&o.description, "description", "", "what the token is for")
	f.BoolVar(&o.printJoin, "print-join-command", false, "print the kubeadm join command instead of the token")
	f.StringVar(&o.certificateKey, "certificate-key", "", "with --print-join-command: the key of kubeadm init phase upload-certs, for a node that joins as a control plane")
	f.StringVar(&o.manifests, "manifests", "", "write the manifests to this new file, mode 0600, or - for standard output, and ask no cluster")
	f.BoolVar(&o.dryRun, "dry-run", false, "have everything checked, and make nothing")
	return c
}

var certificateKey = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (o *tokenCreateOptions) run(c *cobra.Command, s streams, args []string) error {
	if err := o.check(c.Flags(), args); err != nil {
		return err
	}
	specs, err := o.specs(c, s, time.Now())
	if err != nil {
		return err
	}
	offline := c.Flags().Changed("manifests")
	if offline && len(specs) > 1 {
		return fmt.Errorf("--config %s: it has %d tokens, and --manifests is for one", o.config, len(specs))
	}
	for _, spec := range specs {
		if err := o.make(c, s, spec, offline); err != nil {
			return err
		}
	}
	return nil
}

// check refuses flags that contradict each other.
func (o *tokenCreateOptions) check(flags *pflag.FlagSet, args []string) error {
	offline := flags.Changed("manifests")
	switch {
	case o.certificateKey != "" && !o.printJoin:
		return usagef("--certificate-key is a part of the join command: add --print-join-command")
	case o.certificateKey != "" && !certificateKey.MatchString(o.certificateKey):
		return usagef("--certificate-key does not have 64 hexadecimal digits")
	case offline && o.manifests == "":
		return usagef("--manifests names no file")
	case offline && (flags.Changed("kubeconfig") || flags.Changed("context")):
		return usagef("--manifests asks no cluster: leave --kubeconfig and --context out")
	case o.manifests == "-" && o.printJoin:
		return usagef("--manifests - and --print-join-command both print: write the manifests to a file")
	case !offline && (flags.Changed("root") || o.from.ca != "" || o.from.server != ""):
		return usagef("--root, --certificate-authority and --server go with --manifests: a cluster's kubeconfig tells where it is")
	case len(args) > 0 && args[0] == "":
		return usagef("TOKEN is empty: leave it out, so that a token is made")
	case len(args) > 0 && flags.Changed("config"):
		return usagef("--config says what the tokens are: leave TOKEN out")
	case len(args) > 0:
		o.token.text = args[0]
	}
	for _, name := range []string{"ttl", "usages", "groups", "description", "token-file"} {
		if flags.Changed("config") && flags.Changed(name) { // as kubeadm refuses it
			return usagef("--config says what the tokens are: leave --%s out", name)
		}
	}
	return nil
}

// make makes one token, and prints the answer.
func (o *tokenCreateOptions) make(c *cobra.Command, s streams, spec *bootstrap.Spec, offline bool) error {
	var join *bootstrap.Join
	var err error
	if offline {
		join, err = o.write(c, s, spec)
	} else {
		join, err = o.create(c.Context(), s, spec)
	}
	if err != nil || o.manifests == "-" {
		return err
	}
	answer := spec.Token.Reveal()
	if o.printJoin {
		answer = join.Command()
	}
	_, err = fmt.Fprintln(s.out, answer)
	return err
}

// specs are the tokens to make: that of the flags, or those of --config.
func (o *tokenCreateOptions) specs(c *cobra.Command, s streams, now time.Time) (all []*bootstrap.Spec, err error) {
	if c.Flags().Changed("config") {
		all, err = readTokenConfig(s, o.config, now)
	} else {
		all = []*bootstrap.Spec{nil}
		all[0], err = o.spec(c, s, now)
	}
	if err != nil {
		return nil, err
	}
	for _, spec := range all {
		if spec.Token.IsZero() {
			if spec.Token, err = bootstrap.GenerateToken(); err != nil {
				return nil, err
			}
		}
		if spec.Token.Published() {
			fmt.Fprintf(s.err, "kubepki: warning: token %s is an example of the documentation, which everybody knows\n", spec.Token.ID())
		}
		if spec.Expires.IsZero() {
			fmt.Fprintf(s.err, "kubepki: warning: token %s never expires: whoever learns it can join nodes for ever\n", spec.Token.ID())
		}
	}
	return all, nil
}

// spec is what the flags say of the token.
func (o *tokenCreateOptions) spec(c *cobra.Command, s streams, now time.Time) (*bootstrap.Spec, error) {
	life, err := parseTTL("--ttl", o.ttl)
	if err != nil {
		return nil, err
	}
	spec := &bootstrap.Spec{Description: o.description, Expires: expiry(now, life), Usages: o.usages, Groups: o.groups}
	if !c.Flags().Changed("groups") && !spec.May(bootstrap.Authentication) {
		spec.Groups = nil // the default is for those who authenticate
	}
	if err := spec.Check(); err != nil {
		return nil, usageError{err}
	}
	spec.Token, err = o.token.read(s)
	return spec, err
}

// parseTTL reads a life; 0 is for ever.
func parseTTL(field, text string) (time.Duration, error) {
	if d, err := time.ParseDuration(text); err == nil && d == 0 {
		return 0, nil
	}
	if strings.HasPrefix(text, "-") {
		return 0, usagef("%s %q is negative: 0 is a token that never expires", field, text)
	}
	life, err := parseLife(field, text)
	if err == nil && life < time.Second {
		err = usagef("%s %q is less than a second: expirations are whole seconds", field, text)
	}
	return life, err
}

// create makes the token in the cluster. Whatever can go wrong with the join
// command goes wrong before there is a token.
func (o *tokenCreateOptions) create(ctx context.Context, s streams, spec *bootstrap.Spec) (*bootstrap.Join, error) {
	tokens, server, err := connectTokens(o.access)
	if err != nil {
		return nil, err
	}
	join := &bootstrap.Join{Token: spec.Token}
	if o.printJoin {
		if join, err = server.join(spec.Token, o.certificateKey); err != nil {
			return nil, err
		}
	}
	if err := tokens.Create(ctx, spec, o.dryRun); err != nil {
		return nil, withTokenHint(err)
	}
	o.say(s, "created", spec)
	if o.printJoin {
		warnClusterInfo(ctx, s, tokens, join)
	}
	return join, nil
}

// warnClusterInfo tells why nodes will not be able to join by the command.
func warnClusterInfo(ctx context.Context, s streams, tokens *kube.Tokens, join *bootstrap.Join) {
	warn := func(format string, args ...any) {
		fmt.Fprintf(s.err, "kubepki: warning: %s\n", report.Plain(fmt.Sprintf(format, args...)))
	}
	data, err := tokens.ClusterInfo(ctx)
	if err != nil {
		warn("%v", err)
		return
	}
	if data == nil {
		warn("the cluster has no cluster-info, so that nodes cannot discover it: kubepki token create --manifests makes it")
		return
	}
	info, err := bootstrap.ParseClusterInfo([]byte(data["kubeconfig"]))
	switch {
	case err != nil:
		warn("cluster-info: %v", err)
	case len(info.Pinned(join.Pins)) == 0:
		warn("cluster-info holds other authorities than the kubeconfig, so that nodes will refuse the cluster")
	}
}

// write makes the manifests.
func (o *tokenCreateOptions) write(c *cobra.Command, s streams, spec *bootstrap.Spec) (*bootstrap.Join, error) {
	server, err := o.from.read(s, c.Flags())
	if err != nil {
		return nil, err
	}
	join, err := server.join(spec.Token, o.certificateKey)
	if err != nil {
		return nil, err
	}
	objects, err := bootstrap.Manifests(spec, server.server, server.ca)
	if err != nil {
		return nil, err
	}
	data, err := bootstrap.EncodeManifests(objects)
	if err != nil {
		return nil, err
	}
	if o.manifests == "-" {
		if !o.dryRun {
			_, err = s.out.Write(data)
		}
		return join, err
	}
	dir, name := filepath.Split(o.manifests)
	if dir == "" {
		dir = "."
	}
	if err := writeNew(c.Context(), dir, []newFile{{name, data, 0o600}}, o.dryRun); err != nil {
		return nil, err
	}
	o.say(s, "wrote "+o.manifests+" with", spec)
	return join, nil
}

// say tells what was made.
func (o *tokenCreateOptions) say(s streams, did string, spec *bootstrap.Spec) {
	if o.dryRun {
		did = strings.NewReplacer("created", "would create", "wrote", "would write").Replace(did)
	}
	until := "for ever"
	if !spec.Expires.IsZero() {
		until = "until " + spec.Expires.UTC().Format(time.RFC3339)
	}
	fmt.Fprintf(s.err, "%s token %s: %s, for %s\n", did, spec.Token.ID(), until, strings.Join(spec.Usages, " and "))
}
