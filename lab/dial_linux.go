package lab

import (
	"context"
	"net"
	"os"
)

// DialFrom returns a dialler that connects from a node that runs already, by the
// file of NodeConfig.Handle, so that 127.0.0.1 is the node's own. The address
// must be an IP address with a port. The program must be in the lab's namespaces.
func DialFrom(handle string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		file, err := os.Open(handle)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		return (&namespace{file: file}).dial(ctx, network, address)
	}
}
