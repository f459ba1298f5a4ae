package main

import (
	"bytes"
	"context"
	"os"
	"testing"

	"github.com/kubepki/kubepki/internal/testpki"
)

func TestTmp(t *testing.T) {
	for _, form := range []string{testpki.HardwayOpenssl, testpki.HardwayCfssl} {
		c := testpki.NewHardway(t, form)
		var out bytes.Buffer
		code := run(context.Background(), []string{"verify", c.Dir, "--at", testpki.At.Format("2006-01-02")}, streams{out: &out, err: os.Stderr})
		t.Log(code, out.String())
		out.Reset()
		run(context.Background(), []string{"show", c.Dir, "--at", testpki.At.Format("2006-01-02")}, streams{out: &out, err: os.Stderr})
		t.Log(out.String())
	}
}
