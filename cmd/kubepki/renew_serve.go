package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/remote"
)

// serveFlags are those by which renew is the node's end of renew --ssh.
type serveFlags struct {
	on, removeItself bool
}

func (o *serveFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&o.on, "serve-stdio", false, "be the node's end of renew --ssh, on stdin and stdout")
	f.BoolVar(&o.removeItself, "remove-itself", false, "remove the folder that renew --ssh copied this program into")
	_ = f.MarkHidden("serve-stdio")
	_ = f.MarkHidden("remove-itself")
}

// run answers what the other end asks. What it may ask for is what whoever runs this
// here may do.
func (o *serveFlags) run(ctx context.Context, s streams, roots []string) error {
	if o.removeItself {
		if err := removeCopy(); err != nil {
			return err
		}
	}
	nodes, err := parseRoots(roots)
	if err != nil {
		return err
	}
	if len(nodes) > 1 {
		return usagef("--serve-stdio: is for one node: give one --root")
	}
	return (&remote.Server{Root: nodes[0].dir, Version: versionText(), Restarter: &farRestarter{root: nodes[0].dir}}).Serve(ctx, s.in, s.out)
}

// removeCopy removes the program that runs and the folder that was made for it. It
// removes nothing where that folder is not one of renew --ssh.
func removeCopy() error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if dir := filepath.Dir(program); strings.HasPrefix(filepath.Base(dir), ".kubepki-ssh-") {
		return os.RemoveAll(dir)
	}
	return nil
}
