package main

import (
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kubepki/kubepki/internal/testpki"
)

// age fakes the age of the node roots in DIR: age LEAVES AUTHORITIES FILES DIR [PART...] makes
// leaves, authorities and the files older by times such as 400d, -1h or 0h, in files
// whose path has one of the parts in it alone.
func age(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: age LEAVES AUTHORITIES FILES DIR [PART...]")
	}
	var by [3]time.Duration
	for i := range by {
		text, sign := args[i], time.Duration(1)
		if text[0] == '-' {
			text, sign = text[1:], -1
		}
		d, err := parseDays(text)
		ts.Check(err)
		by[i] = sign * d
	}
	roots, err := filepath.Glob(ts.MkAbs(args[3] + "/*"))
	ts.Check(err)
	ts.Check(testpki.Age(roots, testpki.Ageing{Leaves: by[0], Authorities: by[1], Files: by[2], Only: args[4:]}))
}
