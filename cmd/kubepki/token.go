package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/bootstrap"
	"github.com/kubepki/kubepki/internal/kube"
)

func newTokenCommand(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "token",
		Short: "Make, list, judge and delete the bootstrap tokens by which nodes join",
		Long: `Make, list, judge and delete bootstrap tokens: Secrets in kube-system with which a
node that knows nothing yet learns which cluster to trust (usage signing) and
asks it for a certificate (usage authentication). What is made is what kubeadm
makes.

A token is shown by its id, which is public. Its secret is printed by create and
generate, whose answer it is, and where --reveal asks for it.`,
		Example: `  # A token for a day, and the command with which a node joins
  sudo kubepki token create --print-join-command

  # All that a cluster needs for joins, without a cluster at hand
  kubepki token create --root ./cp1 --manifests bootstrap.yaml

  # Which tokens are there, and what is wrong with one of them
  kubepki token list
  kubepki token show abcdef`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("token: say what to do: create, list, show, verify, delete or generate")
		},
	}
	c.AddCommand(newTokenCreateCommand(s), newTokenListCommand(s), newTokenShowCommand(s), newTokenVerifyCommand(s),
		newTokenDeleteCommand(s), newTokenGenerateCommand(s))
	return c
}

func newTokenGenerateCommand(s streams) *cobra.Command {
	return &cobra.Command{
		Use:   "generate",
		Short: "Print a random token, and make it nowhere",
		Example: `  # For the configuration of a cluster that is to be
  kubepki token generate

  # In kubeadm's configuration
  echo "bootstrapTokens: [{token: $(kubepki token generate)}]"

  # Made later, without ever being an argument
  (umask 077; kubepki token generate > token)
  kubepki token create --token-file token`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			t, err := bootstrap.GenerateToken()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(s.out, t.Reveal())
			return err
		},
	}
}

// connectTokens returns the tokens of a cluster, and its API server.
func connectTokens(a kube.Access) (*kube.Tokens, *serverAnswer, error) {
	config, err := configure(a)
	if err != nil {
		return nil, nil, err
	}
	tokens, err := kube.NewTokens(config)
	if err != nil {
		return nil, nil, err
	}
	server, ca, err := kube.Server(config)
	return tokens, &serverAnswer{server: server, ca: ca, err: err}, nil
}

// tokenFlags say which token: on the command line or, so that no list of
// processes shows it, in a file.
type tokenFlags struct{ text, file string }

func (t *tokenFlags) add(f *pflag.FlagSet) {
	f.StringVar(&t.text, "token", "", "the token; everybody who can list processes sees it: prefer --token-file")
	t.addFile(f)
}

func (t *tokenFlags) addFile(f *pflag.FlagSet) {
	f.StringVar(&t.file, "token-file", "", "file that holds the token alone; -: standard input")
}

// read returns the token, a zero one when none is given.
func (t *tokenFlags) read(s streams) (bootstrap.Token, error) {
	if t.text != "" && t.file != "" {
		return bootstrap.Token{}, usagef("the token is given twice: as an argument and as --token-file")
	}
	text, from := t.text, "the token"
	switch {
	case t.file != "":
		data, err := readInput(s, t.file)
		if err != nil {
			return bootstrap.Token{}, fmt.Errorf("--token-file: %w", err)
		}
		text, from = strings.TrimSpace(string(data)), cmp.Or(strings.TrimPrefix(t.file, "-"), "standard input")
	case text == "":
		return bootstrap.Token{}, nil
	}
	token, err := bootstrap.ParseToken(text)
	if err != nil {
		return token, usagef("%s %w", from, err)
	}
	if t.file == "" {
		warnOfArgument(s)
	}
	return token, nil
}

func warnOfArgument(s streams) {
	fmt.Fprintln(s.err, "kubepki: warning: whoever can list the processes of this machine sees the token: use --token-file")
}

// need is read for commands that cannot do without.
func (t *tokenFlags) need(s streams) (bootstrap.Token, error) {
	token, err := t.read(s)
	if err == nil && token.IsZero() {
		err = usagef("no token is given: name its file with --token-file")
	}
	return token, err
}

// wantedToken is one that is asked for by its id or as a whole.
type wantedToken struct {
	id    string
	whole bootstrap.Token // zero when the id alone is given
}

// wanted reads arguments, which are ids or whole tokens, and --token-file. It
// returns at least one.
func (t *tokenFlags) wanted(s streams, args []string) ([]wantedToken, error) {
	var all []wantedToken
	seen := false
	for _, a := range args {
		w := wantedToken{id: a}
		if !bootstrap.IsTokenID(a) {
			whole, err := bootstrap.ParseToken(a)
			if err != nil {
				// It may be a token with a typing error: it is not repeated.
				return nil, usagef("an argument is neither the id of a token, [a-z0-9]{6}, nor a whole token")
			}
			w, seen = wantedToken{whole.ID(), whole}, true
		}
		all = append(all, w)
	}
	if seen {
		warnOfArgument(s)
	}
	if len(all) > 0 && t.file == "" {
		return all, nil
	}
	whole, err := t.need(s)
	return append(all, wantedToken{whole.ID(), whole}), err
}

// compare refuses a whole token that is not the one of the cluster.
func (w wantedToken) compare(e *bootstrap.Entry) error {
	switch {
	case w.whole.IsZero() || e.Token.Equal(w.whole):
		return nil
	case e.Token.IsZero():
		return fmt.Errorf("token %q: the cluster's is malformed: nobody joins with the given one", w.id)
	}
	return fmt.Errorf("token %q: the cluster's has another secret: nobody joins with the given one", w.id)
}

// withTokenHint adds what helps against errors of the cluster.
func withTokenHint(err error) error {
	switch {
	case errors.Is(err, kube.ErrTokenExists):
		return advise(err, "leave the token out, so that a new one is made, or delete that one first")
	case errors.Is(err, kube.ErrNoToken):
		return advise(err, "kubepki token list shows which there are")
	}
	return err
}
