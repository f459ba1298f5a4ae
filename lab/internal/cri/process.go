package cri

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/kubepki/kubepki/lab"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// containersDir has the root folders of the containers that run, on the node.
	containersDir = "/run/kubepki-lab/containers"
	// searchPath is where a container's programs are looked for.
	searchPath = lab.ProgramsDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// outputWait is for output that comes after a process has ended, from one
	// that it started.
	outputWait = time.Second
)

// process is a container that is a process of the node.
type process struct {
	node    *lab.Node
	program string // the image's
	config  *runtimeapi.ContainerConfig
	root    string        // in the view of the lab
	ended   chan struct{} // closed when all of it has ended

	mu  sync.Mutex
	cmd *exec.Cmd // nil: not started
}

func newProcess(node *lab.Node, name, id string, config *runtimeapi.ContainerConfig) *process {
	sum := sha256.Sum256([]byte(id)) // the ID is long, and a path has an end
	root := filepath.Join(node.Root, containersDir, hex.EncodeToString(sum[:8]))
	return &process{node: node, program: name, config: config, root: root, ended: make(chan struct{})}
}

func (p *process) started() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil
}

// runs tells whether the process has started and not ended.
func (p *process) runs() bool {
	if !p.started() {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// start makes the container's root folder and runs its command there.
func (p *process) start(log *logFile) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return errors.New("the container has been started before")
	}
	if err := p.mount(); err != nil {
		return errors.Join(err, p.unmount())
	}
	cmd, err := p.command(context.Background(), p.entry())
	if err != nil {
		return errors.Join(err, p.unmount())
	}
	cmd.Stdout, cmd.Stderr = log.stream("stdout"), log.stream("stderr")
	if err := p.node.Launch(cmd); err != nil {
		return errors.Join(err, p.unmount())
	}
	p.cmd = cmd
	return nil
}

// entry is the container's command line: without a command in the pod, an image
// is its program.
func (p *process) entry() []string {
	command := p.config.Command
	if len(command) == 0 {
		command = []string{p.program}
	}
	return slices.Concat(command, p.config.Args)
}

// command prepares a command in the container. It has a process group of its
// own, all of which is killed when ctx ends.
func (p *process) command(ctx context.Context, args []string) (*exec.Cmd, error) {
	if len(args) == 0 {
		return nil, errors.New("no command")
	}
	path, err := p.look(args[0])
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path)
	cmd.Args = args
	cmd.Dir = cmp.Or(p.config.WorkingDir, "/")
	cmd.Env = []string{"PATH=" + searchPath, "HOME=/"}
	for _, e := range p.config.Envs {
		cmd.Env = append(cmd.Env, e.Key+"="+string(e.Value))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: p.root, Setpgid: true}
	cmd.Cancel = func() error { return killGroup(cmd) }
	cmd.WaitDelay = outputWait
	return cmd, nil
}

// look finds a program in the container, as a path there.
func (p *process) look(name string) (string, error) {
	candidates := []string{name}
	if !strings.Contains(name, "/") {
		candidates = nil
		for dir := range strings.SplitSeq(searchPath, ":") {
			candidates = append(candidates, filepath.Join(dir, name))
		}
	}
	for _, path := range candidates {
		// Links lead to places in the container, not on the machine.
		inside, err := securejoin.SecureJoin(p.root, path)
		if err != nil {
			return "", err
		}
		if info, err := os.Stat(inside); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return filepath.Join("/", path), nil
		}
	}
	return "", fmt.Errorf("no program %q in the container: neither the lab nor the machine has it in %s", name, searchPath)
}

// wait waits for the end of the container's process, ends those that it left,
// and returns its exit code as a shell would.
func (p *process) wait() int {
	_ = p.cmd.Wait() // the state says it
	_ = killGroup(p.cmd)
	_ = p.unmount() // what is left goes with the node
	return exitCode(p.cmd)
}

func exitCode(cmd *exec.Cmd) int {
	if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return 128 + int(s.Signal())
	}
	return cmd.ProcessState.ExitCode()
}

// stop ends the process: by SIGTERM, then, after the time of grace, or when ctx
// ends, by SIGKILL.
func (p *process) stop(ctx context.Context, grace time.Duration) error {
	if !p.started() {
		return nil
	}
	if grace > 0 {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // if it has ended, so much the better
		select {
		case <-p.ended:
		case <-time.After(grace):
		case <-ctx.Done():
		}
	}
	if err := killGroup(p.cmd); err != nil {
		return err
	}
	<-p.ended
	return nil
}

// killGroup kills a command and what it started, as far as it has not ended.
func killGroup(cmd *exec.Cmd) error {
	if err := unix.Kill(-cmd.Process.Pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", cmd.Process.Pid, err)
	}
	return nil
}
