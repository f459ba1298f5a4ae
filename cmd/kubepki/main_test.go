package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the test binary act as kubepki, for scripts and for tests that
// start and kill it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kubepki": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true})
}
