package restart

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kubepki/kubepki/internal/layout"
)

// Labels that the kubelet gives to each container (k8s.io/kubelet/pkg/types/labels.go).
const (
	labelPod       = "io.kubernetes.pod.name"
	labelNamespace = "io.kubernetes.pod.namespace"
	labelContainer = "io.kubernetes.container.name"
)

// runtimeSockets are where container runtimes listen by default (kubeadm
// cmd/kubeadm/app/constants/constants_unix.go), k3s' and k0s' own at the end.
var runtimeSockets = []string{"/run/containerd/containerd.sock", "/var/run/crio/crio.sock", "/run/cri-dockerd.sock",
	"/run/k3s/containerd/containerd.sock", "/run/k0s/containerd.sock"}

// runtimeCall bounds one question to the container runtime. Stopping takes the
// container's time of grace besides.
const runtimeCall = 10 * time.Second

// runtime is the container runtime of the machine.
type runtime struct {
	conn   *grpc.ClientConn
	client runtimeapi.RuntimeServiceClient
	socket string
}

// openRuntime asks the runtime that the kubelet uses: at its endpoint, or else where
// runtimes are by default.
func openRuntime(ctx context.Context, endpoint string) (*runtime, error) {
	sockets := runtimeSockets
	if endpoint != "" {
		sockets = []string{strings.TrimPrefix(endpoint, "unix://")}
	}
	var errs []error
	for _, socket := range sockets {
		if _, err := os.Stat(socket); err != nil {
			if endpoint != "" || !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("container runtime at %s: %w", socket, layout.Cause(err)))
			}
			continue
		}
		r, err := dialRuntime(ctx, socket)
		if err == nil {
			return r, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		errs = append(errs, errors.New("no container runtime listens where they do by default, and the kubelet's configuration names none"))
	}
	return nil, errors.Join(errs...)
}

func dialRuntime(ctx context.Context, socket string) (*runtime, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("container runtime at %s: %w", socket, err)
	}
	r := &runtime{conn: conn, client: runtimeapi.NewRuntimeServiceClient(conn), socket: socket}
	ctx, cancel := context.WithTimeout(ctx, runtimeCall)
	defer cancel()
	if _, err := r.client.Version(ctx, &runtimeapi.VersionRequest{}); err != nil {
		_ = conn.Close() // nothing was said over it
		return nil, fmt.Errorf("container runtime at %s does not answer: %w", socket, err)
	}
	return r, nil
}

func (r *runtime) close() { _ = r.conn.Close() } // what was asked has been answered

// containers are those of a static pod's component in a state, the newest first.
func (r *runtime) containers(ctx context.Context, pod layout.StaticPod, state runtimeapi.ContainerState) ([]*runtimeapi.Container, error) {
	ctx, cancel := context.WithTimeout(ctx, runtimeCall)
	defer cancel()
	answer, err := r.client.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		State:         &runtimeapi.ContainerStateValue{State: state},
		LabelSelector: map[string]string{labelContainer: pod.Container, labelNamespace: pod.Namespace},
	}})
	if err != nil {
		return nil, fmt.Errorf("container runtime at %s: list containers: %w", r.socket, err)
	}
	var all []*runtimeapi.Container
	for _, c := range answer.Containers {
		// The kubelet calls a static pod NAME-NODE (k/k pkg/kubelet/config/common.go).
		if strings.HasPrefix(c.Labels[labelPod], pod.Name+"-") {
			all = append(all, c)
		}
	}
	sortNewest(all)
	return all, nil
}

// stop ends a container as the kubelet does. The kubelet starts it again.
func (r *runtime) stop(ctx context.Context, id string, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, grace+runtimeCall)
	defer cancel()
	if _, err := r.client.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: int64(grace / time.Second)}); err != nil {
		return fmt.Errorf("container runtime at %s: stop container %s: %w", r.socket, short(id), err)
	}
	return nil
}

// lastEnd says how the newest container of a component that has ended did so; empty
// where none has.
func (r *runtime) lastEnd(ctx context.Context, pod layout.StaticPod) string {
	ended, err := r.containers(ctx, pod, runtimeapi.ContainerState_CONTAINER_EXITED)
	if err != nil || len(ended) == 0 {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, runtimeCall)
	defer cancel()
	answer, err := r.client.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: ended[0].Id})
	if err != nil || answer.Status == nil {
		return ""
	}
	return fmt.Sprintf("its container %s ended with exit code %d (%s)", short(ended[0].Id), answer.Status.ExitCode, answer.Status.Reason)
}

// short is an id as crictl shows it and takes it.
func short(id string) string { return id[:min(len(id), 13)] }

func sortNewest(all []*runtimeapi.Container) {
	slices.SortStableFunc(all, func(a, b *runtimeapi.Container) int { return cmp.Compare(b.CreatedAt, a.CreatedAt) })
}
