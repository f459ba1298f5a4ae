//go:build linux

package cri_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/wait"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	remote "k8s.io/cri-client/pkg"
	utilexec "k8s.io/utils/exec"

	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/cri"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m.Run)) }

// bench is a node with a runtime, and the kubelet's own client of it.
type bench struct {
	t       *testing.T
	node    *lab.Node
	server  *cri.Server
	client  internalapi.RuntimeService
	images  internalapi.ImageManagerService
	sandbox string
	attempt uint32
}

var sandboxConfig = &runtimeapi.PodSandboxConfig{
	Metadata:     &runtimeapi.PodSandboxMetadata{Name: "pod", Namespace: "default", Uid: "1"},
	LogDirectory: "/var/log/pods/default_pod_1",
}

// newBench makes a node whose programs folder has one program, greet.
func newBench(t *testing.T) *bench {
	t.Helper()
	root, programs := t.TempDir(), t.TempDir() // before the network: they are removed after all is unmounted
	if err := os.WriteFile(filepath.Join(programs, "greet"), []byte("#!/bin/sh\necho \"hello $1 $NAME\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	network, err := lab.NewNetwork()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, network.Close()) })
	b := &bench{t: t}
	b.node, err = network.Node(lab.NodeConfig{Name: "w1", Root: root, Programs: programs, Logs: t.TempDir(), Machine: true})
	check(t, err)
	b.server, err = cri.Start(b.node, netip.MustParseAddr("10.99.0.21"), netip.MustParseAddr("fd99::21"))
	check(t, err)
	t.Cleanup(func() { check(t, b.server.Close()) })
	b.connect()
	b.sandbox, err = b.client.RunPodSandbox(t.Context(), sandboxConfig, "")
	check(t, err)
	return b
}

// connect makes clients of the socket. A test's folder may be too long for its
// address.
func (b *bench) connect() {
	b.t.Helper()
	short, err := os.MkdirTemp("/tmp", "cri")
	check(b.t, err)
	b.t.Cleanup(func() { check(b.t, os.RemoveAll(short)) })
	check(b.t, os.Symlink(filepath.Join(b.node.Root, "run/kubepki-lab"), filepath.Join(short, "s")))
	endpoint := "unix://" + short + "/s/cri.sock"
	b.client, err = remote.NewRemoteRuntimeServiceBuilder().WithEndpoint(endpoint).WithConnectionTimeout(10 * time.Second).WithTracerProvider(noop.NewTracerProvider()).Build(b.t.Context())
	check(b.t, err)
	b.images, err = remote.NewRemoteImageServiceBuilder().WithEndpoint(endpoint).WithConnectionTimeout(10 * time.Second).WithTracerProvider(noop.NewTracerProvider()).Build(b.t.Context())
	check(b.t, err)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// create makes a container of an image of the lab.
func (b *bench) create(config *runtimeapi.ContainerConfig) string {
	b.t.Helper()
	b.attempt++
	config.Metadata = &runtimeapi.ContainerMetadata{Name: "c", Attempt: b.attempt}
	config.LogPath = fmt.Sprintf("c/%d.log", b.attempt)
	if config.Image == nil {
		config.Image = &runtimeapi.ImageSpec{Image: cri.Registry + "greet:v1"}
	}
	id, err := b.client.CreateContainer(b.t.Context(), b.sandbox, config, sandboxConfig)
	check(b.t, err)
	return id
}

// shell starts a container that runs a script of the shell.
func (b *bench) shell(script string) string {
	b.t.Helper()
	id := b.create(&runtimeapi.ContainerConfig{Command: []string{"sh", "-c", script}})
	check(b.t, b.client.StartContainer(b.t.Context(), id))
	return id
}

func (b *bench) status(id string) *runtimeapi.ContainerStatus {
	b.t.Helper()
	answer, err := b.client.ContainerStatus(b.t.Context(), id, false)
	check(b.t, err)
	return answer.Status
}

func (b *bench) eventually(what string, ask func() bool) {
	b.t.Helper()
	err := wait.PollUntilContextTimeout(b.t.Context(), 10*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) { return ask(), nil })
	if err != nil {
		b.t.Fatal(what)
	}
}

// exited waits for the end of a container.
func (b *bench) exited(id string) *runtimeapi.ContainerStatus {
	b.t.Helper()
	b.eventually("the container does not end", func() bool { return b.status(id).State == runtimeapi.ContainerState_CONTAINER_EXITED })
	return b.status(id)
}

// log is what the container wrote so far.
func (b *bench) log(id string) string {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.node.Root, b.status(id).LogPath))
	check(b.t, err)
	return string(data)
}

func TestAnImageWithoutACommandIsItsProgram(t *testing.T) {
	b := newBench(t)
	id := b.create(&runtimeapi.ContainerConfig{Args: []string{"dear"}, Envs: []*runtimeapi.KeyValue{{Key: "NAME", Value: []byte("world")}}})
	check(t, b.client.StartContainer(t.Context(), id))
	if is := b.exited(id); is.ExitCode != 0 || is.Reason != "Completed" || is.FinishedAt < is.StartedAt || is.StartedAt == 0 {
		t.Errorf("ended as %v", is)
	}
	if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d) stdout F hello dear world\n$`).MatchString(b.log(id)) {
		t.Errorf("the log is %q", b.log(id))
	}
}

func TestAProgramThatIsNotThereIsNamed(t *testing.T) {
	b := newBench(t)
	id := b.create(&runtimeapi.ContainerConfig{Image: &runtimeapi.ImageSpec{Image: cri.Registry + "nobody"}})
	if err := b.client.StartContainer(t.Context(), id); err == nil || !strings.Contains(err.Error(), `"nobody"`) {
		t.Errorf("%v", err)
	}
	check(t, b.client.RemoveContainer(t.Context(), id))
}

func TestExitCodesAreThoseOfAShell(t *testing.T) {
	b := newBench(t)
	for script, want := range map[string]int32{"exit 3": 3, "kill -9 $$": 137, "kill -15 $$": 143, "exit 255": 255} {
		if is := b.exited(b.shell(script)); is.ExitCode != want || is.Reason != "Error" {
			t.Errorf("%s: ended as %d, %s; want %d", script, is.ExitCode, is.Reason, want)
		}
	}
}

func TestLongAndUnfinishedLinesAreKept(t *testing.T) {
	b := newBench(t)
	id := b.shell(`head -c 40000 /dev/zero | tr '\0' x; echo; echo wrong >&2; printf unfinished`)
	b.exited(id)
	var whole strings.Builder
	var tags []string
	for line := range strings.Lines(b.log(id)) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		tags = append(tags, fields[1]+fields[2])
		whole.WriteString(fields[3])
	}
	for _, want := range []string{"wrong", "unfinished"} {
		if !strings.Contains(whole.String(), want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	if got := strings.Count(whole.String(), "x"); got != 40000 {
		t.Errorf("the log has %d of 40000 bytes of a line", got)
	}
	if got := strings.Count(strings.Join(tags, " "), "stdoutP"); got != 2 {
		t.Errorf("the lines are %q; want two parts before the end of the long one", tags)
	}
}

func TestTheLogGoesOnInANewFile(t *testing.T) {
	b := newBench(t)
	id := b.shell("echo before; while [ ! -e /go ]; do sleep 0.01; done; echo after")
	path := filepath.Join(b.node.Root, b.status(id).LogPath)
	b.eventually("there is no first line", func() bool { return strings.Contains(b.log(id), "before") })
	check(t, os.Rename(path, path+".1"))
	check(t, b.client.ReopenContainerLog(t.Context(), id))
	_, _, err := b.client.ExecSync(t.Context(), id, []string{"touch", "/go"}, time.Minute)
	check(t, err)
	b.exited(id)
	if log := b.log(id); strings.Contains(log, "before") || !strings.Contains(log, "after") {
		t.Errorf("the new log is %q", log)
	}
}

func TestStopAllowsTimeAndNoMore(t *testing.T) {
	b := newBench(t)
	polite := b.shell("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done")
	stubborn := b.shell("trap '' TERM; echo ready; while :; do sleep 0.01; done")
	for _, id := range []string{polite, stubborn} {
		b.eventually("it is not ready", func() bool { return strings.Contains(b.log(id), "ready") })
	}
	check(t, b.client.StopContainer(t.Context(), polite, 60))
	if is := b.status(polite); is.ExitCode != 5 {
		t.Errorf("the polite one ended as %v", is)
	}
	check(t, b.client.StopContainer(t.Context(), stubborn, 1))
	if is := b.status(stubborn); is.ExitCode != 137 {
		t.Errorf("the stubborn one ended as %v", is)
	}
	check(t, b.client.StopContainer(t.Context(), stubborn, 1))
	check(t, b.client.StopContainer(t.Context(), "unknown", 1))
}

func TestNothingOfAContainerIsLeft(t *testing.T) {
	b := newBench(t)
	id := b.shell("sleep 600 & echo $! >/pid; wait")
	folder := filepath.Join(b.node.Root, "run/kubepki-lab/containers")
	var pid string
	b.eventually("it started no child", func() bool {
		files, _ := filepath.Glob(filepath.Join(folder, "*/pid"))
		if len(files) != 1 {
			return false
		}
		data, err := os.ReadFile(files[0])
		pid = strings.TrimSpace(string(data))
		return err == nil && pid != ""
	})
	check(t, b.client.StopPodSandbox(t.Context(), b.sandbox))
	check(t, b.client.RemovePodSandbox(t.Context(), b.sandbox))
	b.eventually("its child runs on", func() bool {
		state, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
		return err != nil || bytes.Contains(state, []byte(") Z"))
	})
	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("left of its root folder: %v, %v", left, err)
	}
	if _, err := b.client.ContainerStatus(t.Context(), id, false); err == nil {
		t.Error("the runtime still knows it")
	}
	for range 2 { // calls may be repeated
		check(t, b.client.StopPodSandbox(t.Context(), b.sandbox))
		check(t, b.client.RemovePodSandbox(t.Context(), b.sandbox))
	}
}

func TestVolumesAreWhereTheContainerWantsThem(t *testing.T) {
	b := newBench(t)
	volume := filepath.Join(b.node.Root, "var/lib/volume")
	check(t, os.MkdirAll(volume, 0o755))
	check(t, os.WriteFile(filepath.Join(volume, "file"), []byte("content"), 0o600))
	// A link that is right on the node would lead to the machine's file.
	check(t, os.Symlink("/var/lib/volume/file", filepath.Join(b.node.Root, "etc/link")))
	id := b.create(&runtimeapi.ContainerConfig{
		Command: []string{"sh", "-c", "cat /a/b/file /one /two; echo x >/a/b/new && echo y >/a/c/file || echo read-only; ls /a/c"},
		Mounts: []*runtimeapi.Mount{
			{HostPath: "/var/lib/volume", ContainerPath: "/a/b"},
			{HostPath: "/var/lib/volume", ContainerPath: "/a/c", Readonly: true},
			{HostPath: "/var/lib/volume/file", ContainerPath: "/one"},
			{HostPath: "/etc/link", ContainerPath: "/two"},
			{HostPath: "/var/lib/new", ContainerPath: "/a"},
		},
	})
	check(t, b.client.StartContainer(t.Context(), id))
	b.exited(id)
	log := b.log(id)
	if strings.Count(log, "content") != 3 {
		t.Errorf("the volumes read %q", log)
	}
	if !strings.Contains(log, "read-only") {
		t.Errorf("a read-only volume was written to: %q", log)
	}
	if _, err := os.Stat(filepath.Join(volume, "new")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(b.node.Root, "var/lib/new")); err != nil {
		t.Errorf("a folder that was not there: %v", err)
	}
}

func TestAContainerCannotWriteToTheMachine(t *testing.T) {
	b := newBench(t)
	id := b.shell("cd " + lab.ProgramsDir + "; touch /usr/written written; rm -f greet /dev/null; ls")
	b.exited(id)
	if log := b.log(id); strings.Count(log, "Read-only file system") < 3 || !strings.Contains(log, "stdout F greet") {
		t.Errorf("it says %q", log)
	}
	if err := unix.Access("/dev/null", unix.W_OK); err != nil {
		t.Error(err)
	}
}

func TestExecSync(t *testing.T) {
	b := newBench(t)
	id := b.shell("while :; do sleep 0.1; done")
	stdout, stderr, err := b.client.ExecSync(t.Context(), id, []string{"sh", "-c", "echo out; echo err >&2; exit 4"}, time.Minute)
	var exit utilexec.ExitError
	if string(stdout) != "out\n" || string(stderr) != "err\n" || !errors.As(err, &exit) || exit.ExitStatus() != 4 {
		t.Errorf("%q, %q, %v", stdout, stderr, err)
	}
	if _, _, err := b.client.ExecSync(t.Context(), id, []string{"sleep", "600"}, time.Second); err == nil || !strings.Contains(err.Error(), "timed out") {
		t.Errorf("a command that does not end: %v", err)
	}
	if _, _, err := b.client.ExecSync(t.Context(), id, []string{"no-such-program"}, time.Second); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("a program that is not there: %v", err)
	}
	check(t, b.client.StopContainer(t.Context(), id, 0))
	if _, _, err := b.client.ExecSync(t.Context(), id, []string{"true"}, time.Second); err == nil || !strings.Contains(err.Error(), "does not run") {
		t.Errorf("in a container that has ended: %v", err)
	}
}

func TestStreamsAreServedOnTheNodeAlone(t *testing.T) {
	b := newBench(t)
	id := b.shell("while :; do sleep 0.1; done")
	answer, err := b.client.Exec(t.Context(), &runtimeapi.ExecRequest{ContainerId: id, Cmd: []string{"true"}, Stdout: true})
	check(t, err)
	if !strings.HasPrefix(answer.Url, "http://127.0.0.1:") {
		t.Errorf("streams are at %s", answer.Url)
	}
	if _, err := b.client.Attach(t.Context(), &runtimeapi.AttachRequest{ContainerId: id, Stdout: true}); err == nil || !strings.Contains(err.Error(), "logs or exec") {
		t.Errorf("attach: %v", err)
	}
	if _, err := b.client.PortForward(t.Context(), &runtimeapi.PortForwardRequest{PodSandboxId: "unknown"}); err == nil {
		t.Error("a sandbox that is not there has ports")
	}
}

func TestAnotherImageRunsNothing(t *testing.T) {
	b := newBench(t)
	for _, image := range []string{"registry.k8s.io/pause:3.10", cri.Registry, cri.Registry + "a/b", "lab.kubepki.dev.example.com/greet"} {
		id := b.create(&runtimeapi.ContainerConfig{Image: &runtimeapi.ImageSpec{Image: image}})
		check(t, b.client.StartContainer(t.Context(), id))
		if is := b.status(id); is.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Errorf("%s: %v", image, is)
		}
		if !strings.Contains(b.log(id), "runs nothing") {
			t.Errorf("%s: the log is %q", image, b.log(id))
		}
		if _, _, err := b.client.ExecSync(t.Context(), id, []string{"true"}, time.Second); err == nil || !strings.Contains(err.Error(), "runs nothing") {
			t.Errorf("%s: a command: %v", image, err)
		}
		check(t, b.client.StopContainer(t.Context(), id, 0))
		if is := b.status(id); is.State != runtimeapi.ContainerState_CONTAINER_EXITED || is.ExitCode != 0 {
			t.Errorf("%s: stopped: %v", image, is)
		}
	}
}

func TestAPodHasItsNodesAddresses(t *testing.T) {
	b := newBench(t)
	answer, err := b.client.PodSandboxStatus(t.Context(), b.sandbox, false)
	check(t, err)
	network := answer.Status.Network
	if network.Ip != "10.99.0.21" || len(network.AdditionalIps) != 1 || network.AdditionalIps[0].Ip != "fd99::21" {
		t.Errorf("the addresses are %v", network)
	}
}

func TestEveryImageIsThere(t *testing.T) {
	b := newBench(t)
	image := &runtimeapi.ImageSpec{Image: "registry.k8s.io/pause:3.10"}
	answer, err := b.images.ImageStatus(t.Context(), image, false)
	check(t, err)
	if answer.Image == nil || answer.Image.Id != image.Image {
		t.Errorf("%v", answer)
	}
	if ref, err := b.images.PullImage(t.Context(), image, nil, nil); err != nil || ref != image.Image {
		t.Errorf("pull: %q, %v", ref, err)
	}
}

func TestARuntimeStartsWhereOneHasCrashed(t *testing.T) {
	b := newBench(t)
	check(t, b.server.Close())
	again, err := cri.Start(b.node)
	check(t, err)
	t.Cleanup(func() { check(t, again.Close()) })
	b.connect()
	if _, err := b.client.Status(t.Context(), false); err != nil {
		t.Error(err)
	}
}
