package cri

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"

	"github.com/kubepki/kubepki/lab"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/fake"
)

// Server is the container runtime of one node. It runs in the calling program.
type Server struct {
	*fake.RemoteRuntime

	node *lab.Node
	grpc *grpc.Server
}

// Start serves the container runtime interface to the kubelet of a node.
func Start(node *lab.Node) (*Server, error) {
	s := &Server{RemoteRuntime: fake.NewFakeRemoteRuntime(), node: node, grpc: grpc.NewServer()}
	s.RuntimeService.FakeStatus = &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true},
		{Type: runtimeapi.NetworkReady, Status: true},
	}}
	runtimeapi.RegisterRuntimeServiceServer(s.grpc, s)
	runtimeapi.RegisterImageServiceServer(s.grpc, s)
	listener, err := listen(node.Root)
	if err != nil {
		return nil, fmt.Errorf("container runtime of node %s: %w", node.Name, err)
	}
	go func() { _ = s.grpc.Serve(listener) }() // it ends by Close alone
	return s, nil
}

// Close ends the runtime.
func (s *Server) Close() error {
	s.grpc.Stop()
	return nil
}

// listen makes the socket. The address of a socket has room for 108 bytes, which
// a node's root folder alone may fill, so the folder is named by its descriptor.
func listen(root string) (net.Listener, error) {
	endpoint, err := url.Parse(Endpoint)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(root, endpoint.Path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	// One that a crash left.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	listener, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(path)))
	if err != nil {
		return nil, err
	}
	// The name by which it was made is gone with the descriptor: whoever removes
	// it then would remove what has that number by then.
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	return listener, nil
}
