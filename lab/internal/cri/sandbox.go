package cri

import (
	"context"
	"errors"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RunPodSandbox makes the place of a pod. Its addresses are the node's.
func (s *Server) RunPodSandbox(ctx context.Context, request *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	answer, err := s.RemoteRuntime.RunPodSandbox(ctx, request)
	if err != nil {
		return nil, err
	}
	network := &runtimeapi.PodSandboxNetworkStatus{}
	for i, a := range s.addresses {
		if i == 0 {
			network.Ip = a.String()
		} else {
			network.AdditionalIps = append(network.AdditionalIps, &runtimeapi.PodIP{Ip: a.String()})
		}
	}
	s.RuntimeService.Lock()
	defer s.RuntimeService.Unlock()
	s.RuntimeService.Sandboxes[answer.PodSandboxId].Network = network
	return answer, nil
}

// StopPodSandbox ends what still runs in a sandbox.
func (s *Server) StopPodSandbox(ctx context.Context, request *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	var errs []error
	for _, c := range s.inSandbox(request.PodSandboxId) {
		_, err := s.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: c.id})
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if !s.hasSandbox(request.PodSandboxId) {
		return &runtimeapi.StopPodSandboxResponse{}, nil // the call may be repeated
	}
	return s.RemoteRuntime.StopPodSandbox(ctx, request)
}

// RemovePodSandbox removes a sandbox with its containers.
func (s *Server) RemovePodSandbox(ctx context.Context, request *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	var errs []error
	for _, c := range s.inSandbox(request.PodSandboxId) {
		_, err := s.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.id})
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s.RemoteRuntime.RemovePodSandbox(ctx, request)
}

func (s *Server) hasSandbox(id string) bool {
	s.RuntimeService.Lock()
	defer s.RuntimeService.Unlock()
	_, ok := s.RuntimeService.Sandboxes[id]
	return ok
}

// inSandbox are the containers of a sandbox.
func (s *Server) inSandbox(id string) []*container {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*container
	for _, c := range s.containers {
		if c.sandbox == id {
			all = append(all, c)
		}
	}
	return all
}
