package cri

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/kubepki/kubepki/lab"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/fake"
	"k8s.io/cri-streaming/pkg/streaming"
)

// Server is the container runtime of one node. It runs in the calling program,
// and answers calls of the kubelet alone.
type Server struct {
	// What is not overridden is Kubernetes' fake: it knows each sandbox and each
	// container, and their states.
	*fake.RemoteRuntime

	node      *lab.Node
	addresses []netip.Addr
	grpc      *grpc.Server
	streaming streaming.Server
	http      *http.Server // serves streaming

	mu         sync.Mutex
	containers map[string]*container // by ID
}

// Start serves the runtime of a node to the node's kubelet. The node must be a
// machine ([lab.NodeConfig.Machine]); addresses are those of the node, which its
// pods have too. A runtime must be closed before its network is.
func Start(node *lab.Node, addresses ...netip.Addr) (*Server, error) {
	s := &Server{RemoteRuntime: fake.NewFakeRemoteRuntime(), node: node, addresses: addresses, grpc: grpc.NewServer(), containers: map[string]*container{}}
	s.RuntimeService.FakeStatus = &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true},
		{Type: runtimeapi.NetworkReady, Status: true},
	}}
	runtimeapi.RegisterRuntimeServiceServer(s.grpc, s)
	runtimeapi.RegisterImageServiceServer(s.grpc, s)
	if err := s.start(); err != nil {
		return nil, fmt.Errorf("container runtime of node %s: %w", node.Name, err)
	}
	return s, nil
}

func (s *Server) start() error {
	streams, err := s.node.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	config := streaming.DefaultConfig
	config.BaseURL = &url.URL{Scheme: "http", Host: streams.Addr().String()}
	if s.streaming, err = streaming.NewServer(config, streamer{s}); err != nil {
		return errors.Join(err, streams.Close())
	}
	listener, err := listen(s.node.Root)
	if err != nil {
		return errors.Join(err, streams.Close())
	}
	s.http = &http.Server{Handler: s.streaming, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.http.Serve(streams) }()  // it ends by Close alone
	go func() { _ = s.grpc.Serve(listener) }() // so does this
	return nil
}

// Close ends the runtime and every process of its containers.
func (s *Server) Close() error {
	s.grpc.Stop()
	errs := []error{s.http.Close()}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.containers {
		errs = append(errs, c.stop(context.Background(), 0))
	}
	return errors.Join(errs...)
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
	// By the time it is closed, another folder may have that number.
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	return listener, nil
}

// Version tells what the node's status will say of its runtime.
func (s *Server) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "kubepki-lab", RuntimeVersion: "0.1.0", RuntimeApiVersion: "v1"}, nil
}

// Status is asked every few seconds.
func (s *Server) Status(ctx context.Context, request *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	// The fake notes each call, for tests of its own: for ever.
	s.RuntimeService.Lock()
	s.RuntimeService.Called = nil
	s.RuntimeService.Unlock()
	s.ImageService.Lock()
	s.ImageService.Called = nil
	s.ImageService.Unlock()
	return s.RemoteRuntime.Status(ctx, request)
}
