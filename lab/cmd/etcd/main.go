// Command etcd is the real etcd server, at the version that lab/go.mod pins, or
// go-1.35.mod: see build.sh.
package main

import (
	"fmt"
	"os"

	"github.com/kubepki/kubepki/lab/internal/node"
	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	if err := node.Enter(); err != nil {
		fmt.Fprintf(os.Stderr, "etcd: %v\n", err)
		os.Exit(1)
	}
	etcdmain.Main(os.Args)
}
