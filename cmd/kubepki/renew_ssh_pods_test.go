package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// podRuntime is the container runtime of a machine, with the container of one static pod,
// and its kubelet, which starts that again.
type podRuntime struct {
	runtimeapi.UnimplementedRuntimeServiceServer

	mu        sync.Mutex
	component string
	node      string
	lives     int
	stopped   bool // it does not run at this moment
	broken    bool // it is not started again
}

func (r *podRuntime) id() string { return fmt.Sprintf("%s-life-%d", r.component, r.lives) }

func (r *podRuntime) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0"}, nil
}

func (r *podRuntime) ListContainers(_ context.Context, q *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	runs := q.Filter.State.State == runtimeapi.ContainerState_CONTAINER_RUNNING
	if q.Filter.LabelSelector["io.kubernetes.container.name"] != r.component || runs == r.stopped {
		return &runtimeapi.ListContainersResponse{}, nil
	}
	return &runtimeapi.ListContainersResponse{Containers: []*runtimeapi.Container{{Id: r.id(), CreatedAt: int64(r.lives),
		Labels: map[string]string{"io.kubernetes.pod.name": r.component + "-" + r.node, "io.kubernetes.pod.namespace": "kube-system", "io.kubernetes.container.name": r.component}}}}, nil
}

func (r *podRuntime) ContainerStatus(_ context.Context, q *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{Id: q.ContainerId, ExitCode: 1, Reason: "Error"}}, nil
}

func (r *podRuntime) StopContainer(_ context.Context, q *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q.ContainerId != r.id() {
		return nil, fmt.Errorf("no container %s", q.ContainerId)
	}
	r.stopped = true
	if !r.broken {
		time.AfterFunc(20*time.Millisecond, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.lives++
			r.stopped = false
		})
	}
	return &runtimeapi.StopContainerResponse{}, nil
}

func (r *podRuntime) restarts() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lives
}

// serve listens below a node's root, where its kubelet's configuration says.
func (r *podRuntime) serve(t *testing.T, root string) {
	t.Helper()
	// The path of a socket has room for 108 bytes.
	dir, err := os.MkdirTemp("", "cri")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(server, r)
	go func() { _ = server.Serve(l) }() // until it is stopped
	t.Cleanup(func() { server.Stop(); os.RemoveAll(dir) })
	if err := os.MkdirAll(filepath.Join(root, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(root, "run/cri")); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(root, "var/lib/kubelet/config.yaml")
	text := "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncontainerRuntimeEndpoint: unix:///run/cri/s\n"
	if err := os.MkdirAll(filepath.Dir(config), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRenewOverSSHRestartsStaticPods by the container runtime of each far machine, one
// control plane after the other; the first that does not come back is the last.
func TestRenewOverSSHRestartsStaticPods(t *testing.T) {
	c := newSSHCluster(t, haFlags...)
	runtimes := map[string]*podRuntime{}
	for name, m := range c.machines {
		root := filepath.Join(c.dir, name)
		r := &podRuntime{component: "kube-scheduler", node: name}
		r.serve(t, root)
		runtimes[name] = r
		if manifest := filepath.Join(root, "etc/kubernetes/manifests/kube-scheduler.yaml"); name != "w1" {
			// What the pod's probe asks is this test's.
			healthy := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }))
			t.Cleanup(healthy.Close)
			at, err := url.Parse(healthy.URL)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.ReplaceAll(readAll(t, manifest), "10259", at.Port())
			if err := os.WriteFile(manifest, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		script := "#!/bin/sh\nexec kubepki \"$@\" --root \"$PWD\"\n"
		if err := os.WriteFile(filepath.Join(m.Home, "bin", "kubepki-there"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	flags := c.ssh("w1", "cp1", "cp2")
	at := slices.Index(flags, "--ssh-root")
	flags = slices.Delete(flags, at, at+2)
	flags[slices.Index(flags, "--ssh-command")+1] = "kubepki-there"
	flags = append(flags, "scheduler.conf", "--restart", "--yes")
	counts := func() string {
		return fmt.Sprint(runtimes["cp1"].restarts(), runtimes["cp2"].restarts(), runtimes["w1"].restarts())
	}
	r := c.renew(append(slices.Clone(flags), "--restart-by", "cri")...)
	if r.code != 0 || counts() != "1 1 0" {
		t.Fatalf("ended with %d, restarted %s: %s", r.code, counts(), r.err)
	}
	first, second := strings.Index(r.err, "cp1/kube-scheduler restarted and proved"), strings.Index(r.err, "restarting cp2/kube-scheduler")
	if first < 0 || second < first {
		t.Errorf("not in order: %s", r.err)
	}
	wants(t, r.err, "by the container runtime, the kubelet started it again")

	runtimes["cp1"].broken = true
	before := c.trees()
	r = c.renew(append(slices.Clone(flags), "--restart-timeout", "2s")...)
	if r.code != exitFailed || counts() != "1 1 0" {
		t.Errorf("ended with %d, restarted %s", r.code, counts())
	}
	if got := c.changed(before); !slices.Equal(got, []string{"cp1"}) {
		t.Errorf("changed %v", got)
	}
	wants(t, r.err, "cp1/kube-scheduler did not come back", "ended with exit code 1 (Error)", "not begun: cp2", "on cp1: sudo kubepki node restart kube-scheduler")
}
