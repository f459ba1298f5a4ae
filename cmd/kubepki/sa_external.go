package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/jwtsigner"
	"github.com/kubepki/kubepki/token"
)

type saExternalOptions struct {
	socket    string
	kmsSocket string
	signing   string
	published []string
	legacy    []string
	issuers   []string
	users     []string
	maxLife   time.Duration
	refresh   time.Duration
	first     time.Duration
	metrics   string
	level     string
}

func newSAExternalSignerCommand(s streams) *cobra.Command {
	var o saExternalOptions
	c := &cobra.Command{
		Use:   "external-signer",
		Short: "Sign tokens for kube-apiserver, so that it needs no signing key",
		Long: `External-signer holds the key of the service accounts in the place of
kube-apiserver, which asks for signatures and for the keys that verify over a
unix socket (--service-account-signing-endpoint). The key is in a file that
kube-apiserver cannot read, or in a device, by kubepki-kms.

It signs nothing but tokens of service accounts, of its issuers, that live no
longer than --max-token-expiration. Root, the user who runs it and --allow-user
may connect. Whoever may, can still be any service account: the key cannot be
copied, but it can be used.

Files of keys are read again when they change. Another signing key is published
at once, and signs after --publish-first, when every API server and every cache
knows it, and if the key from before is in a file of --key. A restart takes what
is there at once. docs/sa-external-signer.md has the order of a rotation.

The log is JSON on stderr, one line for each signature, and holds no token.
SIGTERM ends it after what has been begun is finished.`,
		Example: `  # On a control-plane node, kube-apiserver with
  # --service-account-signing-endpoint=/run/kubepki-sa/signer.sock
  kubepki sa external-signer --issuer https://kubernetes.default.svc.cluster.local \
    --signing-key /etc/kubepki/sa.key --key /etc/kubepki/sa-keys.pem

  # The key in a device; the tokens of Secrets verify, but their key is not told to others
  kubepki sa external-signer --issuer https://issuer.example.com --signing-key kms:sa \
    --key /etc/kubepki/sa-keys.pem --legacy-key /etc/kubepki/legacy.pub

  # For an API server that is not root, with metrics
  kubepki sa external-signer --issuer https://issuer.example.com --signing-key sa.key \
    --allow-user kube-apiserver --metrics-listen 127.0.0.1:10271`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), s) },
	}
	f := c.Flags()
	f.StringVar(&o.socket, "socket", "/run/kubepki-sa/signer.sock", "path of the unix socket, in a folder in which others cannot write; unused when systemd passes the socket")
	f.StringVar(&o.signing, "signing-key", "", "private key that signs (PEM), or kms:NAME for a key that kubepki-kms holds")
	f.StringArrayVar(&o.published, "key", nil, "file of further keys that verify: public or private PEM, certificate, JWKS; repeatable")
	f.StringArrayVar(&o.legacy, "legacy-key", nil, "the same, for tokens of Secrets alone: told to kube-apiserver, and not published by it; repeatable")
	f.StringArrayVar(&o.issuers, "issuer", nil, "issuer whose tokens are signed: the first --service-account-issuer of kube-apiserver; repeatable while it changes")
	f.DurationVar(&o.maxLife, "max-token-expiration", 365*24*time.Hour, "how long a token lives at most, extended ones too")
	f.DurationVar(&o.refresh, "refresh-hint", 5*time.Minute, "after which time kube-apiserver asks for the keys again")
	f.DurationVar(&o.first, "publish-first", token.MaxAge*time.Second, "for how long a key is published before it signs")
	f.StringArrayVar(&o.users, "allow-user", nil, "further user who may connect, by name or number; repeatable (always: root and the user who runs this)")
	f.StringVar(&o.kmsSocket, "kms-socket", "/run/kubepki/kms.sock", "unix socket of kubepki-kms")
	f.StringVar(&o.metrics, "metrics-listen", "", "address of /livez, /readyz and /metrics, without TLS (default: none)")
	f.StringVar(&o.level, "log-level", "info", "debug, info, warn or error")
	return c
}

func (o *saExternalOptions) run(ctx context.Context, s streams) error {
	if err := o.check(); err != nil {
		return err
	}
	undumpable()
	r, err := o.prepare(s)
	if err != nil {
		return err
	}
	return r.run(ctx)
}

// check says what is wrong with the flags, before anything is opened.
func (o *saExternalOptions) check() error {
	switch {
	case o.signing == "":
		return advise(usagef("--signing-key is missing"), "name the file of the private key (sa.key), or kms:NAME")
	case len(o.issuers) == 0:
		return advise(usagef("--issuer is missing"), "it is the first --service-account-issuer of kube-apiserver, letter by letter")
	case slices.Contains(o.issuers, ""):
		return usagef("--issuer: an issuer is empty")
	case slices.Contains(o.issuers, token.LegacyIssuer):
		return usagef("--issuer: %s is the issuer of Secrets' tokens, which kube-controller-manager signs", token.LegacyIssuer)
	case o.maxLife < jwtsigner.MinLife || o.maxLife > jwtsigner.MaxLife || o.maxLife%time.Second != 0:
		return usagef("--max-token-expiration: %s is not between %s and %s in whole seconds", o.maxLife, jwtsigner.MinLife, jwtsigner.MaxLife)
	case o.refresh < time.Second || o.refresh%time.Second != 0:
		return usagef("--refresh-hint: %s is not one second or more, in whole seconds", o.refresh)
	case o.first < 0:
		return usagef("--publish-first: %s is negative", o.first)
	}
	return checkListen("metrics-listen", o.metrics)
}

// allowed are the ids of the users who may connect, and whether others than root
// and the user who runs this are among them.
func (o *saExternalOptions) allowed() (ids []uint32, others bool, err error) {
	ids = []uint32{0, uint32(os.Geteuid())}
	for _, name := range o.users {
		id, err := userID(name)
		if err != nil {
			return nil, false, usagef("--allow-user: %w", err)
		}
		if !slices.Contains(ids, id) {
			ids, others = append(ids, id), true
		}
	}
	return ids, others, nil
}

// userID is the id of a user who is named by name or number.
func userID(name string) (uint32, error) {
	number := name
	if _, err := strconv.ParseUint(name, 10, 32); err != nil {
		u, err := user.Lookup(name)
		if err != nil {
			return 0, err
		}
		number = u.Uid
	}
	id, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("user %q has the id %q", name, number)
	}
	return uint32(id), nil
}
