package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
)

// TestMain lets the test binary act as kubepki, for scripts and for tests that
// start and kill it; at the time of KUBEPKI_TEST_NOW, and under the name kubectl as
// that, for tests of clusters that are of another day.
func TestMain(m *testing.M) {
	if at, err := time.Parse(time.RFC3339, os.Getenv("KUBEPKI_TEST_NOW")); err == nil {
		clock = func() time.Time { return at }
	}
	if filepath.Base(os.Args[0]) == "kubectl" {
		kubectlConfig(os.Args[1:])
		return
	}
	testscript.Main(m, map[string]func(){"kubepki": main})
}

func TestScripts(t *testing.T) {
	var servers apiServers
	testscript.Run(t, testscript.Params{Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true, Cmds: map[string]func(*testscript.TestScript, bool, []string){
		"exitcode": exitCode, "serve": serve, "joinserver": joinserver,
		"apiserver": servers.start, "conflict": servers.conflict, "proxy": servers.proxy, "request": request, "secrets": serveSecrets, "accounts": serveAccounts,
		"asksigner": askSigner, "objects": serveObjects, "certs": serveCerts, "age": age,
	}})
}

// exitCode runs a program that must end with a code: exitcode 2 kubepki …
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode CODE PROGRAM [ARGS]")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("%s ended with %d, want %s", args[1], got, args[0])
	}
}

// TestHelpHasThreeExamples of each command, as users of kubectl expect.
func TestHelpHasThreeExamples(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Runnable() && c.Name() != "completion" && c.Name() != "help" && c.Parent() != nil && c.Parent().Name() != "completion" {
			if n := strings.Count(c.Example, "# "); n < 3 {
				t.Errorf("%s has %d examples, want three", c.CommandPath(), n)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand(streams{}))
}
