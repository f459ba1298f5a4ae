//go:build linux

// Command bench-csr measures how fast certificates of nodes are approved and
// signed: by kubepki controller, beside kube-controller-manager's controllers and
// beside the floor, on one and the same API server. It prints a Markdown table.
//
// Usage: bench-csr [-build DIR] [-requests N] [-many N] [-stale N] [-pairs N]
//
// The floor is the three writes that no approver can do without (create, approve,
// put the certificate there) and the signature, by one client that watches
// nothing and decides nothing.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/kubepki/kubepki/lab"
)

// options are the command line.
type options struct {
	build    string // absolute path of the folder of the programs
	requests int    // of a run
	many     int    // of the long run
	stale    int    // requests that lie around in the last run
	pairs    int    // runs of each kind
}

func main() {
	var o options
	flag.StringVar(&o.build, "build", filepath.Join("..", ".build"), "folder of the programs that lab/build.sh makes")
	flag.IntVar(&o.requests, "requests", 2000, "requests of a run")
	flag.IntVar(&o.many, "many", 10000, "requests of the long run")
	flag.IntVar(&o.stale, "stale", 50000, "requests that nobody has settled, in the last run")
	flag.IntVar(&o.pairs, "pairs", 3, "runs of the floor, of kubepki and of kube-controller-manager, in turns")
	flag.Parse()
	os.Exit(lab.Main(func() int {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		if err := run(ctx, o); err != nil {
			fmt.Fprintf(os.Stderr, "bench-csr: %v\n", err)
			return 1
		}
		return 0
	}))
}

func run(ctx context.Context, o options) (err error) {
	if o.build, err = filepath.Abs(o.build); err != nil {
		return err
	}
	temp, err := os.MkdirTemp("", "kubepki-bench-csr-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	b, err := begin(ctx, o, temp)
	if err != nil {
		return err
	}
	err = b.measure(ctx)
	if end := b.end(); err == nil {
		err = end
	}
	if err != nil {
		return err
	}
	return b.print(os.Stdout)
}
