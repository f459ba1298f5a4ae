//go:build linux

// Command bench measures kubepki as a process, beside kubeadm where kubeadm
// does the same, and prints a Markdown table.
//
// Usage: bench [-build DIR] [-pairs N] [-folders N] [-only init,verify,renew]
//
// The two programs of a pair run one after the other, in alternating order, so
// that whatever else the machine does meets both. Every run writes to a fresh
// folder below the temporary folder.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kubepki/kubepki/lab"
)

// options are the command line.
type options struct {
	build   string // absolute path of the folder of the programs
	pairs   int
	folders int
	only    string
}

func main() {
	var o options
	flag.StringVar(&o.build, "build", filepath.Join("..", ".build"), "folder of the programs that lab/build.sh makes, and kubeadm-alone beside them (make bench-kubeadm)")
	flag.IntVar(&o.pairs, "pairs", 20, "paired runs of kubepki init and kubeadm, and runs of the rest")
	flag.IntVar(&o.folders, "folders", 1000, "cluster folders to verify, and nodes to renew, in one call")
	flag.StringVar(&o.only, "only", "init,verify,renew", "what to measure, with commas between")
	flag.Parse()
	// kubeadm writes below a folder only by changing its root, which needs the
	// rights that the lab's namespaces give.
	os.Exit(lab.Main(func() int {
		if err := run(o); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %v\n", err)
			return 1
		}
		return 0
	}))
}

func run(o options) error {
	build, err := filepath.Abs(o.build)
	if err != nil {
		return err
	}
	o.build = build
	temp, err := os.MkdirTemp("", "kubepki-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	b := &bench{options: o, temp: temp}
	groups := map[string][]func() error{
		"init": {b.pairedInit}, "verify": {b.single, b.manyFolders}, "renew": {b.pairedRenew, b.manyRenewed},
	}
	for _, name := range strings.Split(o.only, ",") {
		if groups[name] == nil {
			return fmt.Errorf("-only %s: is none of init, verify, renew", name)
		}
		for _, measure := range groups[name] {
			if err := measure(); err != nil {
				return err
			}
		}
	}
	return b.print(os.Stdout)
}
