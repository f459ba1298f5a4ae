package cri

import (
	"context"
	"path/filepath"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// container is what the fake runtime does not know of a container.
type container struct {
	id      string
	sandbox string
	config  *runtimeapi.ContainerConfig
	log     *logFile
	process *process // nil: it runs nothing
}

// stop ends the container's process, if it has one that runs.
func (c *container) stop(ctx context.Context, grace time.Duration) error {
	if c.process == nil {
		return nil
	}
	return c.process.stop(ctx, grace)
}

// CreateContainer makes a container, which does not run yet.
func (s *Server) CreateContainer(ctx context.Context, request *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	answer, err := s.RemoteRuntime.CreateContainer(ctx, request)
	if err != nil {
		return nil, err
	}
	log := filepath.Join(request.SandboxConfig.GetLogDirectory(), request.Config.LogPath)
	c := &container{id: answer.ContainerId, sandbox: request.PodSandboxId, config: request.Config, log: newLog(filepath.Join(s.node.Root, log))}
	if name, ok := program(request.Config.Image.GetImage()); ok {
		c.process = newProcess(s.node, name, c.id, request.Config)
	}
	s.change(c.id, func(is *runtimeapi.ContainerStatus) {
		is.LogPath = log
		is.Mounts = request.Config.Mounts
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.containers[c.id] = c
	return answer, nil
}

// StartContainer runs a container.
func (s *Server) StartContainer(ctx context.Context, request *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	c, err := s.container(request.ContainerId)
	if err != nil {
		return nil, err
	}
	if err := c.log.open(); err != nil {
		return nil, err
	}
	if c.process == nil {
		c.log.line("stdout", "a container of "+c.config.Image.GetImage()+" runs nothing here: only images "+Registry+"PROGRAM do")
		return s.RemoteRuntime.StartContainer(ctx, request)
	}
	if err := c.process.start(c.log); err != nil {
		c.log.close()
		return nil, err
	}
	answer, err := s.RemoteRuntime.StartContainer(ctx, request)
	go s.await(c)
	return answer, err
}

// await notices the end of a container's process.
func (s *Server) await(c *container) {
	code := c.process.wait()
	c.log.close()
	s.change(c.id, func(is *runtimeapi.ContainerStatus) {
		is.State, is.FinishedAt = runtimeapi.ContainerState_CONTAINER_EXITED, time.Now().UnixNano()
		is.ExitCode, is.Reason = int32(code), "Completed"
		if code != 0 {
			is.Reason = "Error"
		}
	})
	close(c.process.ended)
}

// StopContainer ends a container: by SIGTERM, then, after the time that the
// kubelet allows, by SIGKILL.
func (s *Server) StopContainer(ctx context.Context, request *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	c, err := s.container(request.ContainerId)
	if err != nil {
		return &runtimeapi.StopContainerResponse{}, nil // the call may be repeated
	}
	if c.process != nil && c.process.started() {
		return &runtimeapi.StopContainerResponse{}, c.stop(ctx, time.Duration(request.Timeout)*time.Second)
	}
	defer c.log.close()
	s.change(c.id, func(is *runtimeapi.ContainerStatus) {
		if is.State != runtimeapi.ContainerState_CONTAINER_EXITED {
			is.State, is.FinishedAt, is.Reason = runtimeapi.ContainerState_CONTAINER_EXITED, time.Now().UnixNano(), "Completed"
		}
	})
	return &runtimeapi.StopContainerResponse{}, nil
}

// RemoveContainer removes a container, whether it runs or not.
func (s *Server) RemoveContainer(ctx context.Context, request *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	if _, err := s.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: request.ContainerId}); err != nil {
		return nil, err
	}
	s.mu.Lock()
	delete(s.containers, request.ContainerId)
	s.mu.Unlock()
	return s.RemoteRuntime.RemoveContainer(ctx, request)
}

// ReopenContainerLog goes on with a new file when the kubelet has put the old
// one aside.
func (s *Server) ReopenContainerLog(_ context.Context, request *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	c, err := s.container(request.ContainerId)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ReopenContainerLogResponse{}, c.log.open()
}

func (s *Server) container(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.containers[id]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "no container %q", id)
	}
	return c, nil
}

// change changes the state of a container, unless it has been removed.
func (s *Server) change(id string, f func(*runtimeapi.ContainerStatus)) {
	s.RuntimeService.Lock()
	defer s.RuntimeService.Unlock()
	if c, ok := s.RuntimeService.Containers[id]; ok {
		f(&c.ContainerStatus)
	}
}
