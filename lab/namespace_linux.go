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

// insideEnv marks the program that was started again inside the namespaces:
// as their first process, and as the one that does the work.
const (
	insideEnv     = "KUBEPKI_LAB_INSIDE"
	insideFirst   = "first"
	insideProgram = "program"
)

// Outside is what a program of the lab has to do with the world outside of its
// namespaces.
type Outside struct {
	// Files are handed in: inside they are file descriptors 3, 4 and so on. A
	// socket that listens stays in the network that it was made in, so that the
	// lab can be called from outside by it.
	Files []*os.File
	// Started, if not nil, is called outside with the number, there, of the first
	// process inside. All of the lab ends with that process.
	Started func(pid int) error
}

// Main runs a program inside namespaces of its own and returns its exit code,
// for os.Exit. It starts the calling program again, with the same arguments,
// folder and streams; there Main calls run. A user namespace is used where the
// kernel allows it; where it does not, root can do without.
//
// Main says on stderr why the namespaces could not be made, and returns 1. It
// must be called from the main goroutine before any other is started.
func Main(run func() int) int { return Outside{}.Main(run) }

// Inside tells whether the calling program was started again by [Main], and so
// runs inside the lab's namespaces.
func Inside() bool { return os.Getenv(insideEnv) != "" }

// Main is [Main] with ties to the outside.
func (o Outside) Main(run func() int) int {
	switch os.Getenv(insideEnv) {
	case insideProgram:
		return run()
	case insideFirst:
		return first()
	}
	code, err := o.reexec(syscall.CLONE_NEWUSER)
	if errors.Is(err, ErrNamespaces) && os.Geteuid() == 0 {
		code, err = o.reexec(0)
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

// ErrNamespaces tells that the machine does not allow the lab's namespaces.
var ErrNamespaces = errors.New("the kernel refuses user, network, mount or process namespaces; allow unprivileged user namespaces, or run as root")

// reexec starts the program again in new namespaces and waits for its end.
func (o Outside) reexec(flags uintptr) (int, error) {
	// The parent-death signal comes when the thread that started the child
	// ends, so this thread must stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd, err := again(insideFirst)
	if err != nil {
		return 0, err
	}
	cmd.ExtraFiles = o.Files
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: flags | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if flags&syscall.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNamespaces, err)
	}
	if o.Started != nil {
		if err := o.Started(cmd.Process.Pid); err != nil {
			return 0, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
		}
	}
	defer relay(cmd.Process)()
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("wait for the program inside the namespaces: %w", err)
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code, nil
	}
	return 0, fmt.Errorf("the program inside the namespaces ended by a signal: %w", err)
}

// again prepares to start the running program again, marked by role.
func again(role string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the running program: %w", err)
	}
	cmd := exec.Command(self)
	cmd.Args = os.Args
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"="+role)
	return cmd, nil
}

// relay passes signals on to a process until the returned function is called.
func relay(process *os.Process) func() {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				_ = process.Signal(s) // it has ended: nothing to tell
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(signals); close(done) }
}

// Enter puts the calling program on a node that runs already: into its network,
// by the file of NodeConfig.Handle, and into its root folder. The program must be
// in the lab's namespaces, and is to become another one by exec at once: only the
// calling goroutine's thread, which stays locked, is on the node's network.
func Enter(handle, root string) error {
	runtime.LockOSThread()
	network, err := os.Open(handle)
	if err != nil {
		return err
	}
	defer network.Close()
	if err := unix.Setns(int(network.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network of %s: %w", handle, err)
	}
	if err := unix.Chroot(root); err != nil {
		return fmt.Errorf("change root to %s: %w", root, err)
	}
	return os.Chdir("/")
}
