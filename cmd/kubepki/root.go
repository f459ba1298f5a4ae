package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/report"
)

// streams are what a command reads and writes: the answer goes to out, the
// talk to err.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// Exit codes, documented in the help of the root command.
const (
	exitDone     = 0 // done, or healthy
	exitFailed   = 1 // could not do it
	exitUsage    = 2 // wrong usage
	exitFindings = 3 // findings at or above --fail-on
)

// usageError is an error in the words of the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// errFindings makes the exit code 3; the answer has been printed already.
var errFindings = errors.New("findings")

func run(ctx context.Context, args []string, s streams) int {
	root := newRootCommand(s)
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	err := root.ExecuteContext(ctx)
	if err != nil && strings.HasPrefix(err.Error(), "unknown command") {
		err = usageError{err} // cobra has no type for it
	}
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errFindings):
		return exitFindings
	}
	fmt.Fprintf(s.err, "kubepki: error: %s\n", report.Plain(withoutTokens(oneLine(err))))
	for _, h := range hints(err) {
		fmt.Fprintf(s.err, "kubepki: hint: %s\n", report.Plain(withoutTokens(h)))
	}
	if errors.As(err, new(usageError)) {
		return exitUsage
	}
	return exitFailed
}

// oneLine joins the lines of joined errors.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// jwt is what a token of a service account looks like: two JSON objects and a
// signature in base64url, of which the first begins with { and then a quote or a
// blank.
var jwt = regexp.MustCompile(`e[wy][A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*`)

// withoutTokens hides tokens in what is said: one that was given where a command,
// a file or a flag's value is wanted would be repeated by whoever complains.
func withoutTokens(text string) string { return jwt.ReplaceAllString(text, "<token>") }

func newRootCommand(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "kubepki",
		Short: "Create, prove and show every credential of a Kubernetes cluster",
		Long: `kubepki creates every credential of a Kubernetes cluster, and proves, link by
link, that they work together.

Exit codes: 0 done or healthy, 1 could not do it, 2 wrong usage, 3 findings at
or above --fail-on.`,
		Example: `  # The credentials of a control-plane node, below ./node as if it were /
  kubepki init --root ./node --apiserver-advertise-address 10.0.0.11

  # Prove every link
  kubepki verify --root ./node

  # See what there is
  kubepki show --root ./node`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(commands(s)...)
	for _, c := range root.Commands() {
		wrapArgs(c)
	}
	return root
}

// wrapArgs makes complaints about arguments errors of usage.
func wrapArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		wrapArgs(sub)
	}
}

// isTerminal tells whether a writer is a terminal that wants colours and
// progress: NO_COLOR and a dumb terminal are honoured.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
