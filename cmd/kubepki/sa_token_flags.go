package main

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/token"
)

// saMakeFlags say which token of a service account is to be made, and who makes
// it: a signing key, or a cluster.
type saMakeFlags struct {
	access                         kube.Access
	key, socket, root, ca          string
	issuer                         string
	audiences                      []string
	duration, warnAfter, at        string
	uid                            string
	boundKind, boundName, boundUID string
	nodeName, nodeUID              string
	attestations                   []string
	legacy                         bool
	manifest                       bool // --secret of sa token: the Secret is wanted, not its token alone
	secretName                     string
	timeout                        time.Duration
}

func (f *saMakeFlags) add(flags *pflag.FlagSet) {
	flags.Var(&once{text: &f.key}, "key", "sign here, with this private key (PEM file, -: standard input, or kms:NAME for one that kubepki-kms holds)")
	flags.StringVar(&f.socket, "kms-socket", "/run/kubepki/kms.sock", "unix socket of kubepki-kms")
	flags.Var(&once{text: &f.root}, "root", "sign here, with key, issuer and audiences of the kube-apiserver of the control plane whose / this folder is")
	addAccess(flags, &f.access)
	flags.StringVar(&f.ca, "certificate-authority", "", "file of the authorities to trust (default: those of --root, or of the cluster)")
	flags.Var(&once{text: &f.issuer}, "issuer", "issuer of the token (default: with --root, the first --service-account-issuer)")
	flags.Var((*texts)(&f.audiences), "audience", "audience of the token (repeatable; default: those of the API server, else the issuer)")
	flags.StringVar(&f.duration, "duration", "", "life of the token, like 90m or 7d (default 1h; 10m for a webhook)")
	flags.StringVar(&f.uid, "uid", "", "uid of the service account, which without a cluster must be given")
	flags.StringVar(&f.boundKind, "bound-object-kind", "", "kind of the object that the token dies with: "+boundKinds())
	flags.StringVar(&f.boundName, "bound-object-name", "", "its name")
	flags.StringVar(&f.boundUID, "bound-object-uid", "", "its uid, which without a cluster must be given")
	flags.StringVar(&f.nodeName, "node-name", "", "node that the pod of --bound-object-name runs on, which the token then tells")
	flags.StringVar(&f.nodeUID, "node-uid", "", "its uid")
	flags.Var((*texts)(&f.attestations), "attestation", "KEY=VALUE that a token for a webhook attests: "+token.APIGroupsAttestation+"=GROUP")
	flags.StringVar(&f.warnAfter, "warn-after", "", "time after which a pod should have read a newer token, while this one is still good")
	flags.StringVar(&f.at, "at", "", "make the token as of this time (RFC 3339, or a date) instead of now")
	flags.BoolVar(&f.legacy, "legacy", false, "make a token of a Secret, which never expires, for old clusters")
	flags.StringVar(&f.secretName, "secret-name", "", "with --legacy: name of the Secret (default NAME-token)")
	flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "with --legacy: how long to wait for the cluster to fill the Secret")
}

// once is the text of a flag that is given once. Elsewhere these flags take
// several values, of which the last would win here without a word.
type once struct {
	text  *string
	given bool
}

// Set takes the text.
func (o *once) Set(text string) error {
	if o.given {
		return errors.New("it is given twice: which one is meant?")
	}
	*o.text, o.given = text, true
	return nil
}

// String returns the text for help texts.
func (o *once) String() string {
	if o.text == nil {
		return ""
	}
	return *o.text
}

// Type names the text in help texts.
func (o *once) Type() string { return "string" }

func boundKinds() string {
	var all []string
	for _, k := range token.BoundKinds() {
		all = append(all, k.Kind)
	}
	return strings.Join(all, ", ")
}

// offline tells whether the token is signed here.
func (f *saMakeFlags) offline() bool { return f.key != "" || f.root != "" }

// ofSecret tells whether the token is to be one of a Secret.
func (f *saMakeFlags) ofSecret() bool { return f.legacy || f.manifest }

// Flags that only one way of making a token has.
var (
	saSignedHere  = []string{"issuer", "node-name", "node-uid", "warn-after", "at"}
	saProjected   = []string{"issuer", "audience", "duration", "bound-object-kind", "bound-object-name", "bound-object-uid", "node-name", "node-uid", "attestation", "warn-after", "at"}
	saOfSecrets   = []string{"secret-name", "timeout"}
	saWhichServer = []string{"kubeconfig", "context"}
)

// exclude refuses flags that contradict each other.
func (f *saMakeFlags) exclude(flags *pflag.FlagSet) error {
	changed := func(names []string) string {
		for _, n := range names {
			if flags.Changed(n) {
				return "--" + n
			}
		}
		return ""
	}
	which := changed(saWhichServer)
	switch {
	case flags.Changed("key") && f.key == "", f.key == "kms:":
		return usagef("--key names no key")
	case flags.Changed("root") && f.root == "":
		return usagef("--root names no folder")
	case f.offline() && which != "":
		return usagef("%s: with --key or --root no cluster is asked: give one or the other", which)
	case f.key == "-" && f.ca == "-":
		return usagef("--key and --certificate-authority cannot both be standard input")
	case flags.Changed("kms-socket") && !strings.HasPrefix(f.key, "kms:"):
		return usagef("--kms-socket is for a key that kubepki-kms holds: --key kms:NAME")
	case slices.Contains(f.audiences, ""):
		return usagef("--audience is empty")
	case flags.Changed("duration") && f.duration == "":
		return usagef("--duration is empty")
	case f.ofSecret() && flags.Changed("duration"):
		return usagef("--duration: a token of a Secret (--legacy) never expires")
	}
	if name := changed(saProjected); f.ofSecret() && name != "" {
		return usagef("%s: a token of a Secret (--legacy) says nothing of that", name)
	}
	if name := changed(saOfSecrets); !f.ofSecret() && name != "" {
		return usagef("%s is for tokens of Secrets: add --legacy", name)
	}
	if name := changed(saSignedHere); !f.offline() && name != "" {
		return usagef("%s is for tokens that are signed here, with --key or --root: in a cluster, the API server says it", name)
	}
	return nil
}
