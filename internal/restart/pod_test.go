package restart

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kubepki/kubepki/internal/trust"
)

const podText = `{"kind": "Pod", "metadata": {"name": "etcd", "namespace": "kube-system"}, "spec": {"terminationGracePeriodSeconds": 7,
"containers": [{"name": "etcd", "command": ["etcd", "--name=cp1"]}]}}`

// machineNode is a node of files, with a /proc of its own and a kubelet that does what
// a kubelet does with a static pod.
type machineNode struct {
	dir, proc string
	mu        sync.Mutex
	pid       int
}

func newMachineNode(t *testing.T, components ...string) *machineNode {
	t.Helper()
	n := &machineNode{proc: t.TempDir(), pid: 10}
	n.dir, _ = nodeWith(t, map[string]string{manifestPath: podText})
	for _, c := range components {
		n.run(c)
	}
	return n
}

// run adds a process.
func (n *machineNode) run(component string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pid++
	at := filepath.Join(n.proc, strconv.Itoa(n.pid))
	stat := fmt.Sprintf("%d (a) b) S 1 %s %d 0", n.pid, strings.Repeat("0 ", 17), 1000+n.pid)
	if err := errors.Join(os.Mkdir(at, 0o700), os.WriteFile(filepath.Join(at, "stat"), []byte(stat), 0o600),
		os.WriteFile(filepath.Join(at, "cmdline"), []byte(component+"\x00--name=cp1\x00"), 0o600)); err != nil {
		panic(err)
	}
}

// lives are the numbers of the processes of a component.
func (n *machineNode) lives(component string) map[life]int { return livesOf(n.proc, component, nil) }

func (n *machineNode) end(component string) {
	for _, pid := range n.lives(component) {
		if err := os.RemoveAll(filepath.Join(n.proc, strconv.Itoa(pid))); err != nil {
			panic(err)
		}
	}
}

// kubelet ends and starts etcd as its manifest goes and comes, until ctx ends.
func (n *machineNode) kubelet(ctx context.Context, slowness time.Duration) {
	for {
		select {
		case <-time.After(slowness):
		case <-ctx.Done():
			return
		}
		_, err := os.Stat(filepath.Join(n.dir, manifestPath))
		switch runs := len(n.lives("etcd")) > 0; {
		case err != nil && runs:
			n.end("etcd")
		case err == nil && !runs:
			n.run("etcd")
		}
	}
}

func (n *machineNode) machine(by By) *Machine {
	return &Machine{Root: n.dir, Procfs: n.proc, By: by}
}

// startKubelet is a quick kubelet until the test ends, and has ended before its files go.
func (n *machineNode) startKubelet(t *testing.T) {
	t.Helper()
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	running.Go(func() { n.kubelet(ctx, 10*time.Millisecond) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// etcdOn is a graph with the kubelet of a node, and the target.
func etcdOn(socket string) (*trust.Graph, *Target) {
	kubelet := trust.Component{Name: "kubelet", Flags: map[string][]string{"container-runtime-endpoint": {"unix://" + socket}}}
	return &trust.Graph{Nodes: []trust.Node{{Components: []trust.Component{kubelet}}}},
		&Target{Component: "etcd", Kind: StaticPod, Source: trust.Place{Path: manifestPath}}
}

func TestAStaticPodIsRestartedByItsManifest(t *testing.T) {
	for name, c := range map[string]struct {
		runs     []string
		slowness time.Duration // of the kubelet; 0: it does nothing
		timeout  time.Duration // 0: 4 minutes
		want     string        // of the error
		same     bool          // etcd goes on
		took     time.Duration
	}{
		"by a kubelet that is notified":        {runs: []string{"etcd", "kubelet"}, slowness: time.Second, took: 5 * time.Second},
		"by a kubelet that looks now and then": {runs: []string{"etcd", "kubelet"}, slowness: 20 * time.Second, took: time.Minute},
		"a kubelet that hangs":                 {runs: []string{"etcd", "kubelet"}, timeout: time.Minute, want: "the kubelet did not end it when its manifest was gone", same: true, took: 61 * time.Second},
		"no kubelet":                           {runs: []string{"etcd"}, want: "no kubelet runs", same: true},
		"it does not run, and is started":      {runs: []string{"kubelet"}, slowness: 10 * time.Second, took: 11 * time.Second},
		"it does not run, and is not started":  {runs: []string{"kubelet"}, timeout: time.Minute, want: "no new process of etcd runs", took: 61 * time.Second},
		"where no process is to be seen":       {took: 48 * time.Second}, // twice as long as kubelets take to look, and the pod's time of grace
	} {
		t.Run(name, func(t *testing.T) {
			n := newMachineNode(t, c.runs...)
			before := n.lives("etcd")
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), orElse(c.timeout, 4*time.Minute))
				defer cancel()
				if c.slowness > 0 {
					go n.kubelet(ctx, c.slowness)
				}
				began := time.Now()
				g, target := etcdOn("/none")
				s, err := n.machine(ByManifest).Restart(ctx, g, target)
				if took := time.Since(began); took > c.took {
					t.Errorf("it took %s", took)
				}
				switch {
				case c.want == "" && err != nil:
					t.Error(err)
				case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
					t.Errorf("want %q, got %v", c.want, err)
				case err == nil:
					if err := s.Stands(ctx); err != nil || s.Over(ctx) {
						t.Error(err)
					}
				}
			})
			if text, err := os.ReadFile(filepath.Join(n.dir, manifestPath)); err != nil || string(text) != podText {
				t.Errorf("the manifest is not where it was: %v", err)
			}
			if left, err := Left(n.dir); len(left) > 0 || err != nil {
				t.Error(left, err)
			}
			for l := range before {
				if _, lives := n.lives("etcd")[l]; lives != c.same {
					t.Errorf("etcd lives on: %v", lives)
				}
			}
		})
	}
}

// TestANumberThatIsUsedAgainIsAnotherLife: processes are told apart by when they began.
func TestANumberThatIsUsedAgainIsAnotherLife(t *testing.T) {
	n := newMachineNode(t, "etcd")
	before := n.lives("etcd")
	stat := filepath.Join(n.proc, "11", "stat")
	text, err := os.ReadFile(stat)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(stat, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Replace(string(text), " 1011 ", " 2022 ", 1))
	after := n.lives("etcd")
	for l := range after {
		if _, same := before[l]; same || len(after) != 1 {
			t.Error(before, after)
		}
	}
	for _, ended := range []string{strings.Replace(string(text), ") S ", ") Z ", 1), "11 (etcd", ""} {
		write(ended)
		if got := n.lives("etcd"); len(got) != 0 {
			t.Errorf("%q: %v", ended, got)
		}
	}
}

// fakeRuntime is a container runtime with containers of one pod.
type fakeRuntime struct {
	runtimeapi.UnimplementedRuntimeServiceServer

	mu      sync.Mutex
	all     []*runtimeapi.Container
	begins  time.Duration // until the kubelet has started a stopped one again; <0: never
	grace   int64         // as it was told
	stopped []string
	made    int
	refuses bool
}

func (r *fakeRuntime) add(pod, name string, state runtimeapi.ContainerState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made++
	r.all = append(r.all, &runtimeapi.Container{Id: fmt.Sprintf("%s-%s-%d-0123456789abcdef", name, pod, r.made), State: state, CreatedAt: int64(r.made),
		Labels: map[string]string{labelPod: pod, labelNamespace: "kube-system", labelContainer: name}})
}

func (r *fakeRuntime) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0"}, nil
}

func (r *fakeRuntime) ListContainers(_ context.Context, q *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer := &runtimeapi.ListContainersResponse{}
	for _, c := range r.all {
		fits := c.State == q.Filter.State.State
		for k, v := range q.Filter.LabelSelector {
			fits = fits && c.Labels[k] == v
		}
		if fits {
			answer.Containers = append(answer.Containers, c)
		}
	}
	return answer, nil
}

func (r *fakeRuntime) ContainerStatus(_ context.Context, q *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{Id: q.ContainerId, ExitCode: 2, Reason: "Error"}}, nil
}

func (r *fakeRuntime) StopContainer(_ context.Context, q *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuses {
		return nil, errors.New("this runtime is ill")
	}
	r.grace, r.stopped = q.Timeout, append(r.stopped, q.ContainerId)
	for _, c := range r.all {
		if c.Id == q.ContainerId {
			c.State = runtimeapi.ContainerState_CONTAINER_EXITED
			if pod, name := c.Labels[labelPod], c.Labels[labelContainer]; r.begins >= 0 {
				time.AfterFunc(r.begins, func() { r.add(pod, name, runtimeapi.ContainerState_CONTAINER_RUNNING) })
			}
		}
	}
	return &runtimeapi.StopContainerResponse{}, nil
}

// serve listens on a socket of a node, and gives its root a short name, for the path
// of a socket has room for 108 bytes.
func (r *fakeRuntime) serve(t *testing.T, n *machineNode) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cri")
	if err != nil {
		t.Fatal(err)
	}
	short := filepath.Join(dir, "r")
	if err := os.Symlink(n.dir, short); err != nil {
		t.Fatal(err)
	}
	n.dir = short
	l, err := net.Listen("unix", filepath.Join(short, "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(server, r)
	go func() { _ = server.Serve(l) }() // until it is stopped
	t.Cleanup(func() { server.Stop(); os.RemoveAll(dir) })
	return "/s"
}

func TestAStaticPodIsRestartedByTheRuntime(t *testing.T) {
	const running, exited = runtimeapi.ContainerState_CONTAINER_RUNNING, runtimeapi.ContainerState_CONTAINER_EXITED
	for name, c := range map[string]struct {
		by     By
		change func(*fakeRuntime)
		stops  int
		how    string // part of it
		want   string // of the error
	}{
		"one container":                 {by: Auto, change: func(*fakeRuntime) {}, stops: 1, how: "by the container runtime"},
		"one that is slow to come back": {by: ByRuntime, change: func(r *fakeRuntime) { r.begins = 200 * time.Millisecond }, stops: 1, how: "by the container runtime"},
		"one that never comes back":     {by: ByRuntime, change: func(r *fakeRuntime) { r.begins = -1 }, stops: 1, want: "ended with exit code 2 (Error)"},
		"one that has ended already":    {by: ByRuntime, change: ended, how: "by the container runtime"},
		"a runtime that refuses":        {by: Auto, change: func(r *fakeRuntime) { r.refuses = true }, want: "this runtime is ill"},
		"a runtime that has none of it": {by: ByRuntime, change: func(r *fakeRuntime) { r.all = nil; r.add("other-cp1", "etcd", running) }, want: "has no container etcd of a pod kube-system/etcd-NODE"},
		"the same, and another way":     {by: Auto, change: func(r *fakeRuntime) { r.all = nil; r.add("other-cp1", "etcd", running) }, how: "by its manifest"},
		"a runtime that has two":        {by: ByRuntime, change: func(r *fakeRuntime) { r.add("etcd-cp2", "etcd", running) }, want: "has 2 containers"},
		"an older one is no second":     {by: ByRuntime, change: func(r *fakeRuntime) { r.add("etcd-cp1", "etcd", exited) }, stops: 1, how: "by the container runtime"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newMachineNode(t, "etcd", "kubelet")
			r := &fakeRuntime{begins: 0}
			r.add("etcd-cp1", "etcd", running)
			r.add("etcd-cp1", "sidecar", running)
			c.change(r)
			ctx, cancel := context.WithTimeout(t.Context(), timeFor(c.want))
			defer cancel()
			g, target := etcdOn(r.serve(t, n))
			n.startKubelet(t)
			m := n.machine(c.by)
			m.Poll = 10 * time.Millisecond
			s, err := m.Restart(ctx, g, target)
			switch {
			case c.want == "" && (err != nil || !strings.Contains(s.By, c.how)):
				t.Error(s, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("want %q, got %v", c.want, err)
			case err == nil:
				defer s.Close()
				if err := s.Stands(ctx); err != nil {
					t.Error(err)
				}
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if len(r.stopped) != c.stops || c.stops == 1 && (!strings.HasPrefix(r.stopped[0], "etcd-etcd-cp1-1-") || r.grace != 7) {
				t.Errorf("it stopped %v within %d s", r.stopped, r.grace)
			}
		})
	}
}

// timeFor is short where time is to run out.
func timeFor(want string) time.Duration {
	if want == "" {
		return time.Minute
	}
	return time.Second
}

// ended is a container that the kubelet starts again by itself.
func ended(r *fakeRuntime) {
	r.all[0].State = runtimeapi.ContainerState_CONTAINER_EXITED
	time.AfterFunc(100*time.Millisecond, func() { r.add("etcd-cp1", "etcd", runtimeapi.ContainerState_CONTAINER_RUNNING) })
}

func TestARuntimeThatIsNotThere(t *testing.T) {
	n := newMachineNode(t, "etcd", "kubelet")
	g, target := etcdOn("/none")
	if _, err := n.machine(ByRuntime).Restart(t.Context(), g, target); err == nil || !strings.Contains(err.Error(), "none: no such file") {
		t.Error(err)
	}
	var said []string
	m := n.machine(Auto)
	m.Poll, m.Say = 10*time.Millisecond, func(s string) { said = append(said, s) }
	n.startKubelet(t)
	if _, err := m.Restart(t.Context(), g, target); err != nil || len(said) == 0 || !strings.Contains(said[0], "its manifest is moved away and back instead") {
		t.Error(said, err)
	}
}

func TestBeganSince(t *testing.T) {
	n := newMachineNode(t, "etcd") // process 11, which began 10.11 s after the machine
	if err := os.WriteFile(filepath.Join(n.proc, "uptime"), []byte("100.00 1.00\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m, now := Machine{Procfs: n.proc}, time.Now()
	for name, c := range map[string]struct {
		component string
		at        time.Time
		want      bool
	}{
		"it began after the files":                  {"etcd", now.Add(-95 * time.Second), true},
		"it began before them":                      {"etcd", now.Add(-80 * time.Second), false},
		"it began within the second, and may not":   {"etcd", now.Add(-90*time.Second - 300*time.Millisecond), false},
		"nothing of that name runs":                 {"kube-scheduler", time.Time{}, false},
		"files that were written when nobody knows": {"etcd", time.Time{}, true},
	} {
		if got := m.BeganSince(c.component, c.at); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	n.run("etcd") // process 12, as old
	if !m.BeganSince("etcd", now.Add(-95*time.Second)) {
		t.Error("two that both began since")
	}
	if err := os.Remove(filepath.Join(n.proc, "uptime")); err != nil {
		t.Fatal(err)
	}
	if m.BeganSince("etcd", now.Add(-95*time.Second)) {
		t.Error("it is not known how long the machine runs, and so not when the process began")
	}
}
