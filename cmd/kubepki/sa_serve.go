package main

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/token"
)

// saServeOptions are the flags of sa serve. Those of files and those of the
// server are told apart by onlyOut and onlyListen.
type saServeOptions struct {
	tokens saTokenFlags
	jwks   string

	out    string
	output string

	listen         string
	certificate    string
	key            string
	clientCA       string
	allowedNames   []string
	review         bool
	usernamePrefix string
	groupsPrefix   string
	cacheSize      int
	cacheLife      time.Duration
	metricsListen  string
	level          string
}

func newSAServeCommand(s streams) *cobra.Command {
	var o saServeOptions
	c := &cobra.Command{
		Use:   "serve",
		Short: "Publish the keys that verify the cluster's tokens, and say of tokens whether they are good",
		Long: `Let others trust the cluster's tokens. With --out, write the documents by which an
issuer is discovered as files for a static web host: a cloud or another cluster
then verifies tokens without ever reaching this one. With --listen, serve them,
and answer TokenReviews (authentication.k8s.io/v1) at /tokenreview: for another
cluster's kube-apiserver (--authentication-token-webhook-config-file), or for any
service that would rather ask than verify.

Private keys may be given as well as public ones: only public halves are ever
published. Files of keys, the server's certificate and the client authorities are
read again when they change. A new key has to be published for an hour before it
signs: that is for how long others keep what they have.

A review looks at the token alone: a token that is bound to a pod is accepted
until it expires, even when the pod is gone. Who asks has to show a certificate of
--client-ca-file; without it whoever reaches the server can try tokens. Names of
users are those of the cluster that the tokens are from: where another cluster
takes them in, tell them apart with --username-prefix and --groups-prefix.

The log is JSON, on stderr. --metrics-listen serves /livez, /readyz and /metrics.
SIGTERM ends it after the requests that have begun.`,
		Example: `  # Files for a static web host, such as a bucket
  kubepki sa serve --out ./www --key sa.pub --issuer https://tokens.example.com/east

  # The same, on a control plane
  sudo kubepki sa serve --out ./www --root /

  # Serve them, and let the API server of another cluster ask about tokens
  kubepki sa serve --listen :8443 --tls-cert-file tls.crt --tls-private-key-file tls.key \
    --key sa.pub --issuer https://tokens.example.com/east \
    --client-ca-file west-ca.crt --allowed-name kube-apiserver --username-prefix east: --groups-prefix east:

  # While the key is replaced: both are published, and verify
  kubepki sa serve --out ./www --key sa.pub --key sa-new.pub --issuer https://tokens.example.com/east

  # The documents alone, for everybody
  kubepki sa serve --listen :443 --tls-cert-file tls.crt --tls-private-key-file tls.key \
    --key sa.pub --issuer https://tokens.example.com/east --review=false`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(c *cobra.Command, _ []string) error { return o.run(c, s) },
	}
	f := c.Flags()
	o.tokens.add(f)
	f.StringVar(&o.jwks, "jwks-uri", "", "URL at which others find the keys (default: openid/v1/jwks below the issuer)")
	f.StringVar(&o.out, "out", "", "write the documents below this folder, the root of the web host, at the paths of their URLs")
	f.StringVarP(&o.output, "output", "o", "table", "with --out: table, json or yaml")
	o.addServer(f)
	for flag, values := range map[string][]string{"output": {"table", "json", "yaml"}, "log-level": {"debug", "info", "warn", "error"}} {
		_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) // an error: no such flag
	}
	return c
}

func (o *saServeOptions) addServer(f *pflag.FlagSet) {
	f.StringVar(&o.listen, "listen", "", "serve on this address, such as :8443")
	f.StringVar(&o.certificate, "tls-cert-file", "", "certificate of the server; those above it may follow (PEM)")
	f.StringVar(&o.key, "tls-private-key-file", "", "its key (PEM)")
	f.StringVar(&o.clientCA, "client-ca-file", "", "authorities of those who may ask for reviews (PEM)")
	f.StringArrayVar(&o.allowedNames, "allowed-name", nil, "common name of one who may ask; repeatable (default: every client of --client-ca-file)")
	f.BoolVar(&o.review, "review", true, "answer TokenReviews at /tokenreview")
	f.StringVar(&o.usernamePrefix, "username-prefix", "", "put this before the names of users in answers")
	f.StringVar(&o.groupsPrefix, "groups-prefix", "", "put this before the names of groups in answers")
	f.IntVar(&o.cacheSize, "cache-size", token.DefaultCacheSize, "how many accepted tokens are remembered at most; one takes some 2 KiB")
	f.DurationVar(&o.cacheLife, "cache-ttl", token.DefaultCacheLife, "for how long at most; 0: none is remembered")
	f.StringVar(&o.metricsListen, "metrics-listen", "127.0.0.1:10270", "address of /livez, /readyz and /metrics, without TLS; empty: none")
	f.StringVar(&o.level, "log-level", "info", "debug, info, warn or error")
}

// Flags that mean nothing without --listen, and without --out.
var (
	onlyListen = []string{
		"tls-cert-file", "tls-private-key-file", "client-ca-file", "allowed-name", "review", "username-prefix", "groups-prefix", "cache-size", "cache-ttl",
		"metrics-listen", "log-level", "audience", "api-audience", "no-legacy",
	}
	onlyOut = []string{"output"}
)

func (o *saServeOptions) run(c *cobra.Command, s streams) error {
	if err := o.check(c.Flags(), s); err != nil {
		return err
	}
	if o.out != "" {
		return o.write(c.Context(), s)
	}
	return o.serve(c.Context(), s)
}

// check refuses flags that contradict each other.
func (o *saServeOptions) check(f *pflag.FlagSet, s streams) error {
	switch {
	case o.out == "" && o.listen == "":
		return usagef("sa serve: say where to: --out DIR writes files, --listen ADDRESS serves")
	case o.out != "" && o.listen != "":
		return usagef("--out and --listen do not go together: one writes files, the other serves")
	}
	mode, foreign := "--listen", onlyListen
	if o.listen != "" {
		mode, foreign = "--out", onlyOut
	}
	for _, name := range foreign {
		if f.Changed(name) {
			return usagef("--%s goes with %s", name, mode)
		}
	}
	if err := o.tokens.check(s); err != nil {
		return err
	}
	if o.listen != "" {
		return o.checkServer(f)
	}
	return checkTokenOutput(o.output)
}

func (o *saServeOptions) checkServer(f *pflag.FlagSet) error {
	switch {
	case o.certificate == "" || o.key == "":
		return usagef("--listen needs --tls-cert-file and --tls-private-key-file: tokens are secrets, and keys must not be changed on their way")
	case o.clientCA != "" && !o.review:
		return usagef("--client-ca-file says who may ask for reviews: it does not go with --review=false")
	case len(o.allowedNames) > 0 && o.clientCA == "":
		return usagef("--allowed-name needs --client-ca-file: names are those of certificates")
	case slices.ContainsFunc(o.allowedNames, func(n string) bool { return strings.TrimSpace(n) == "" }):
		return usagef("--allowed-name is empty")
	case f.Changed("username-prefix") != f.Changed("groups-prefix"):
		return usagef("--username-prefix and --groups-prefix go together: with one alone, accounts have what another cluster gives to its own by the other name. An empty one (--groups-prefix=) says that this is meant")
	case o.cacheSize < 1:
		return usagef("--cache-size: %d is not positive: --cache-ttl 0 remembers nothing", o.cacheSize)
	case o.cacheLife < 0:
		return usagef("--cache-ttl: %s is negative", o.cacheLife)
	}
	if err := checkListen("listen", o.listen); err != nil {
		return err
	}
	return checkListen("metrics-listen", o.metricsListen)
}
