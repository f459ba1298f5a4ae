package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideEnv marks the program that was started again inside the namespaces.
const insideEnv = "KUBEPKI_LAB_INSIDE"

// Main runs a program inside namespaces of its own and returns its exit code,
// for os.Exit. It starts the calling program again, with the same arguments,
// folder and streams; there Main calls run. A user namespace is used where the
// kernel allows it; where it does not, root can do without.
//
// Main says on stderr why the namespaces could not be made, and returns 1. It
// must be called from the main goroutine before any other is started.
func Main(run func() int) int {
	if os.Getenv(insideEnv) != "" {
		if err := ownMounts(); err != nil {
			fmt.Fprintf(os.Stderr, "lab: %v\n", err)
			return 1
		}
		return run()
	}
	code, err := reexec(syscall.CLONE_NEWUSER)
	if errors.Is(err, errNamespaces) && os.Geteuid() == 0 {
		code, err = reexec(0)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "lab: %v\n", err)
		return 1
	}
	return code
}

// ownMounts keeps what is mounted inside from the machine outside, and shows the
// processes of the namespace alone where the kernel allows it. Where it does not,
// because parts of /proc are hidden in a container, the outer one serves too.
func ownMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts of the lab its own: %w", err)
	}
	err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

var errNamespaces = errors.New("the kernel refuses user, network, mount or process namespaces; allow unprivileged user namespaces, or run as root")

// reexec starts the program again in new namespaces and waits for its end.
func reexec(flags uintptr) (int, error) {
	// The parent-death signal comes when the thread that started the child
	// ends, so this thread must stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("find the running program: %w", err)
	}
	cmd := exec.Command(self)
	cmd.Args = os.Args
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: flags | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if flags&syscall.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("%w: %w", errNamespaces, err)
	}
	return wait(cmd)
}

// wait passes signals on to the program inside and returns its exit code.
func wait(cmd *exec.Cmd) (int, error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	defer signal.Stop(signals)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s) // it has ended: nothing to tell
			case <-ended:
				return
			}
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("wait for the program inside the namespaces: %w", err)
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code, nil
	}
	return 0, fmt.Errorf("the program inside the namespaces ended by a signal: %w", err)
}
