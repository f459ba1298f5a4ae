package lab

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// first is the work of the first process of the namespaces: it starts the
// program once more, as a process of its own, and waits for whatever ends. The
// kernel gives it every process whose parent has died, as it does to init, and
// the program's own waiting for its processes must not be disturbed by that.
func first() int {
	code, err := startAndReap()
	if err != nil {
		fmt.Fprintf(os.Stderr, "lab: %v\n", err)
		return 1
	}
	return code
}

func startAndReap() (int, error) {
	if err := ownMounts(); err != nil {
		return 0, err
	}
	cmd, err := again(insideProgram)
	if err != nil {
		return 0, err
	}
	for _, fd := range inherited() {
		syscall.CloseOnExec(int(fd)) // of the first process's own; ExtraFiles hands copies on
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(fd, "inherited"))
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start the program inside the namespaces: %w", err)
	}
	defer relay(cmd.Process)()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for processes: %w", err)
		case pid == cmd.Process.Pid && status.Signaled():
			return 128 + int(status.Signal()), nil // as a shell says it
		case pid == cmd.Process.Pid:
			return status.ExitStatus(), nil
		}
	}
}

// inherited are the file descriptors from 3 on, without a gap, that were handed
// in by [Outside]. Go opens its own after them, and marks those close-on-exec.
func inherited() []uintptr {
	var fds []uintptr
	for fd := uintptr(3); ; fd++ {
		flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_GETFD, 0)
		if errno != 0 || flags&syscall.FD_CLOEXEC != 0 {
			return fds
		}
		fds = append(fds, fd)
	}
}
