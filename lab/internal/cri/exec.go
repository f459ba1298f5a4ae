package cri

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// Exec tells the kubelet where to stream a command's input and output.
func (s *Server) Exec(_ context.Context, request *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	if _, err := s.running(request.ContainerId); err != nil {
		return nil, err
	}
	return s.streaming.GetExec(request)
}

// PortForward tells the kubelet where to stream a connection to a pod.
func (s *Server) PortForward(_ context.Context, request *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	if !s.hasSandbox(request.PodSandboxId) {
		return nil, status.Errorf(codes.NotFound, "no sandbox %q", request.PodSandboxId)
	}
	return s.streaming.GetPortForward(request)
}

// Attach is refused: the output of a container goes to its log.
func (s *Server) Attach(context.Context, *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	return nil, errAttach
}

var errAttach = status.Error(codes.Unimplemented, "nobody can attach to a container of the lab: use logs or exec")

// ExecSync runs a command and returns all of its output: a probe, or a hook.
func (s *Server) ExecSync(ctx context.Context, request *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	p, err := s.running(request.ContainerId)
	if err != nil {
		return nil, err
	}
	if request.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(request.Timeout)*time.Second)
		defer cancel()
	}
	cmd, err := p.command(ctx, request.Cmd)
	if err != nil {
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := p.node.Launch(cmd); err != nil {
		return nil, err
	}
	_ = cmd.Wait() // the state says it
	if ctx.Err() != nil {
		return nil, status.Errorf(codes.DeadlineExceeded, "command %q did not end in time", request.Cmd[0])
	}
	return &runtimeapi.ExecSyncResponse{Stdout: stdout.Bytes(), Stderr: stderr.Bytes(), ExitCode: int32(exitCode(cmd))}, nil
}

// running is the process of a container in which commands can run.
func (s *Server) running(id string) (*process, error) {
	c, err := s.container(id)
	if err != nil {
		return nil, err
	}
	if c.process == nil {
		return nil, status.Errorf(codes.FailedPrecondition, "a container of %s runs nothing here: only images %sPROGRAM do", c.config.Image.GetImage(), Registry)
	}
	if !c.process.runs() {
		return nil, status.Errorf(codes.FailedPrecondition, "container %q does not run", id)
	}
	return c.process, nil
}

// streamer does what is streamed.
type streamer struct{ server *Server }

// Exec runs a command with streams, and returns its exit code as an error of
// package k8s.io/utils/exec.
func (s streamer) Exec(ctx context.Context, id string, args []string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	p, err := s.server.running(id)
	if err != nil {
		return err
	}
	cmd, err := p.command(ctx, args)
	if err != nil {
		return err
	}
	if tty {
		err = p.runOnTerminal(ctx, cmd, in, out, resize)
	} else {
		err = p.runOnStreams(cmd, in, out, errOut)
	}
	if err != nil {
		return err
	}
	if code := exitCode(cmd); code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("exit status %d", code), Code: code}
	}
	return nil
}

// runOnStreams runs a command to its end. Its error tells that it did not run.
func (p *process) runOnStreams(cmd *exec.Cmd, in io.Reader, out, errOut io.Writer) error {
	if out != nil {
		cmd.Stdout = out
	}
	if errOut != nil {
		cmd.Stderr = errOut
	}
	if in != nil {
		// Not cmd.Stdin: the command's end is not to wait for the caller's.
		stdin, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(stdin, in)
			_ = stdin.Close()
		}()
	}
	if err := p.node.Launch(cmd); err != nil {
		return err
	}
	_ = cmd.Wait() // the state says it
	return nil
}

// runOnTerminal is runOnStreams with a terminal.
func (p *process) runOnTerminal(ctx context.Context, cmd *exec.Cmd, in io.Reader, out io.Writer, resize <-chan remotecommand.TerminalSize) error {
	control, terminal, err := pty.Open()
	if err != nil {
		return err
	}
	defer control.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	// A session is a process group, too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: p.root, Setsid: true, Setctty: true}
	err = p.node.Launch(cmd)
	_ = terminal.Close() // the command has a copy
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var resizing sync.WaitGroup
	resizing.Go(func() { resizeTerminal(ctx, control, resize) })
	defer func() { // before it is closed
		cancel()
		resizing.Wait()
	}()
	if in != nil {
		go func() { _, _ = io.Copy(control, in) }()
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		if out != nil {
			_, _ = io.Copy(out, control)
		}
	}()
	_ = cmd.Wait()
	select {
	case <-written:
	case <-time.After(outputWait):
	}
	return nil
}

// resizeTerminal does as it is told until ctx ends.
func resizeTerminal(ctx context.Context, control *os.File, resize <-chan remotecommand.TerminalSize) {
	for {
		select {
		case size, ok := <-resize:
			if !ok {
				return
			}
			_ = pty.Setsize(control, &pty.Winsize{Rows: size.Height, Cols: size.Width})
		case <-ctx.Done():
			return
		}
	}
}

// Attach is refused, as above.
func (s streamer) Attach(context.Context, string, io.Reader, io.WriteCloser, io.WriteCloser, bool, <-chan remotecommand.TerminalSize) error {
	return errAttach
}

// PortForward joins a stream to a port of the node, which is the pod's too.
func (s streamer) PortForward(ctx context.Context, _ string, port int32, stream io.ReadWriteCloser) error {
	conn, err := s.server.node.Dial(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var toPod sync.WaitGroup
	toPod.Go(func() {
		_, _ = io.Copy(conn, stream)
		if c, ok := conn.(*net.TCPConn); ok {
			_ = c.CloseWrite()
		}
	})
	_, err = io.Copy(stream, conn)
	_ = stream.Close()
	toPod.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
