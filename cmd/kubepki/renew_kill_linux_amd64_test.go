package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/kubepki/kubepki/internal/apply"
)

// What a traced run suffers at one of its file operations.
type suffering int

const (
	killed   suffering = iota // kill -9 before the operation
	diskFull                  // it fails with ENOSPC
	denied                    // it fails with EACCES
)

// changesFiles tells which system calls of a program change files or make them durable.
func changesFiles(nr uint64, args [6]uint64) bool {
	switch nr {
	case syscall.SYS_MKDIRAT, syscall.SYS_UNLINKAT, syscall.SYS_RENAMEAT, 316 /* renameat2 */, syscall.SYS_LINKAT, syscall.SYS_SYMLINKAT,
		syscall.SYS_FCHMODAT, 452 /* fchmodat2 */, syscall.SYS_FCHMOD, syscall.SYS_FCHOWNAT, syscall.SYS_FSYNC, syscall.SYS_PWRITE64:
		return true
	case syscall.SYS_WRITE:
		return args[0] > 2 && args[2] != 8 // the Go runtime wakes itself with eight bytes
	case syscall.SYS_OPENAT:
		return args[2]&syscall.O_CREAT != 0
	}
	return false
}

// callInfo is ptrace_syscall_info of linux/ptrace.h, at the entry of a call.
type callInfo struct {
	op, _, _, _ uint8
	arch        uint32
	_, _        uint64 // instruction and stack
	nr          uint64
	args        [6]uint64
	_           uint64
}

// Requests and options of ptrace(2) that package syscall does not name.
const (
	getSyscallInfo = 0x420e
	atEntry        = 1
	exitKill       = 0x100000
	sysGood        = 1
	wall           = 0x40000000
)

// traced runs kubepki and lets it suffer at its n-th file operation, counted from 0. It
// tells whether there were so many, and whether it ended with code 0.
func traced(t *testing.T, n int, what suffering, args ...string) (reached, done bool) {
	t.Helper()
	runtime.LockOSThread() // ptrace(2) is for the thread that began it
	defer runtime.UnlockOSThread()
	c := exec.Command("kubepki", args...)
	c.Env = append(environment(), "GOMAXPROCS=2")
	c.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	pid := c.Process.Pid
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, wall, nil); err != nil {
		t.Fatal(err)
	}
	if err := syscall.PtraceSetOptions(pid, exitKill|sysGood|syscall.PTRACE_O_TRACECLONE|syscall.PTRACE_O_TRACEFORK|syscall.PTRACE_O_TRACEVFORK); err != nil {
		t.Fatal(err)
	}
	count, failing := 0, map[int]bool{}
	for tid := pid; ; {
		signal := 0
		if status.Stopped() {
			switch s := status.StopSignal(); {
			case s == syscall.SIGTRAP|0x80:
				info := callInfo{}
				if _, _, e := syscall.Syscall6(syscall.SYS_PTRACE, getSyscallInfo, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0); e != 0 && e != syscall.ESRCH {
					t.Fatal(e)
				}
				switch {
				case failing[tid]:
					delete(failing, tid)
					failCall(t, tid, what)
				case info.op == atEntry && changesFiles(info.nr, info.args):
					if count == n {
						reached = true
						if what == killed {
							_ = syscall.Kill(pid, syscall.SIGKILL)
						} else {
							skipCall(t, tid)
							failing[tid] = true
						}
					}
					count++
				}
			case s != syscall.SIGTRAP && s != syscall.SIGSTOP:
				signal = int(s)
			}
		}
		if err := syscall.PtraceSyscall(tid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
		var err error
		if tid, err = syscall.Wait4(-pid, &status, wall, nil); err != nil {
			t.Fatal(err)
		}
		if tid == pid && (status.Exited() || status.Signaled()) {
			return reached, status.Exited() && status.ExitStatus() == 0
		}
	}
}

// skipCall makes a thread call nothing, at the entry of a call.
func skipCall(t *testing.T, tid int) {
	var regs syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(tid, &regs); err != nil {
		t.Fatal(err)
	}
	regs.Orig_rax = ^uint64(0)
	if err := syscall.PtraceSetRegs(tid, &regs); err != nil {
		t.Fatal(err)
	}
}

// failCall gives the call that was skipped its error.
func failCall(t *testing.T, tid int, what suffering) {
	var regs syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(tid, &regs); err != nil {
		t.Fatal(err)
	}
	errno := syscall.ENOSPC
	if what == denied {
		errno = syscall.EACCES
	}
	regs.Rax = -uint64(errno)
	if err := syscall.PtraceSetRegs(tid, &regs); err != nil {
		t.Fatal(err)
	}
}

// renewable is a node on which a renewal replaces files, makes one that is missing and
// leads a kubelet's link elsewhere.
func renewable(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "cp1")
	inProcess(t, "init", "--root", root, "--manifests", "--key-algorithm", "ECDSA-P256", "--node-name", "cp1", "--apiserver-advertise-address", "10.0.0.11")
	pki := filepath.Join(root, "var/lib/kubelet/pki")
	conf := filepath.Join(root, "etc/kubernetes/kubelet.conf")
	dated := "/var/lib/kubelet/pki/kubelet-client-2026-01-02-03-04-05.pem"
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	var pair []byte
	for _, field := range []string{"client-certificate", "client-key"} {
		_, value, _ := strings.Cut(string(text), field+"-data: ")
		value, _, _ = strings.Cut(value, "\n")
		der, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			t.Fatal(err)
		}
		pair = append(pair, der...)
		text = bytes.Replace(text, []byte(field+"-data: "+value), []byte(field+": "+filepath.Join(filepath.Dir(dated), "kubelet-client-current.pem")), 1)
	}
	for _, err := range []error{
		os.MkdirAll(pki, 0o755), os.WriteFile(conf, text, 0o600), os.WriteFile(filepath.Join(root, dated), pair, 0o600),
		os.Symlink(dated, filepath.Join(pki, "kubelet-client-current.pem")), os.Remove(filepath.Join(root, "etc/kubernetes/pki/etcd/peer.crt")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// copyTree copies a root with modes and links.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// inProcess runs a command that must succeed.
func inProcess(t *testing.T, args ...string) {
	t.Helper()
	var out, talk bytes.Buffer
	if code := run(context.Background(), args, streams{in: strings.NewReader(""), out: &out, err: &talk}); code != exitDone {
		t.Fatalf("kubepki %v: exit code %d: %s%s", args, code, out.String(), talk.String())
	}
}

// contents are the files and links of a tree but for backups; what a transaction has
// for itself is told apart.
func contents(t *testing.T, root string) (files map[string]string, left []string) {
	t.Helper()
	files = map[string]string{}
	err := filepath.WalkDir(root, func(at string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(d.Name(), ".kubepki-"):
			left = append(left, at)
		case d.Name() == "kubepki-backup":
			return filepath.SkipDir
		case d.Type() == fs.ModeSymlink:
			files[at], err = os.Readlink(at)
		case !d.IsDir():
			var data []byte
			data, err = os.ReadFile(at)
			files[at] = string(data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, left
}

// difference counts the files that are other than before.
func difference(before, now map[string]string) int {
	n := 0
	for at, was := range before {
		if is, there := now[at]; !there || is != was {
			n++
		}
	}
	for at := range now {
		if _, there := before[at]; !there {
			n++
		}
	}
	return n
}

// TestRenewSuffersAtItsFileOperations lets kubepki be killed, the disk be full and the
// permission be missing at the file operations of a renewal and of its undo. What stands
// then is the old or the new, each file whole; after the recovery all is old or all is
// new, and the same command completes.
func TestRenewSuffersAtItsFileOperations(t *testing.T) {
	stride := 17
	if os.Getenv("KUBEPKI_LAB_LONG") != "" {
		stride = 1 // every one
	}
	old := renewable(t)
	renewed := filepath.Join(t.TempDir(), "cp1")
	copyTree(t, old, renewed)
	commands := map[string]struct {
		root string
		args []string
	}{
		"renewal": {old, []string{"renew", "apiserver", "scheduler.conf", "etcd-peer", "kubelet.conf", "--yes", "--root"}},
		"undo":    {renewed, []string{"renew", "--undo", "--yes", "--root"}},
	}
	inProcess(t, append(commands["renewal"].args, renewed)...)
	seen := map[string]int{}
	for name, c := range commands {
		t.Run(name, func(t *testing.T) {
			before, _ := contents(t, c.root)
			for n := 0; ; n += stride {
				for i, what := range []suffering{killed, diskFull, denied} {
					if stride > 1 && n%3 != i {
						continue
					}
					root := filepath.Join(t.TempDir(), "cp1")
					copyTree(t, c.root, root)
					reached, done := traced(t, n, what, append(c.args, root)...)
					if !reached {
						if !done || n < 100 {
							t.Fatalf("after %d operations it ends: %t", n, done)
						}
						seen[name] = n
						return
					}
					afterSuffering(t, root, rebased(before, c.root, root), fmt.Sprintf("operation %d, %d", n, what), what, done)
					if now, _ := contents(t, root); name == "renewal" || difference(rebased(before, c.root, root), now) == 0 { // an undo once more would bring the new ones back
						inProcess(t, append(c.args, root)...)
						if now, left := contents(t, root); len(left) > 0 || difference(rebased(before, c.root, root), now) < changes {
							t.Errorf("operation %d: the second run does not complete: %v", n, left)
						}
					}
					if t.Failed() {
						return
					}
				}
			}
		})
	}
	t.Logf("file operations: %v", seen)
}

// rebased are the contents of one root as those of another.
func rebased(files map[string]string, from, to string) map[string]string {
	out := map[string]string{}
	for at, is := range files {
		out[to+strings.TrimPrefix(at, from)] = is
	}
	return out
}

// changes are those of a renewal: apiserver's and etcd-peer's pairs, scheduler.conf, the
// kubelet's link and its new file.
const changes = 7

// afterSuffering asserts that each file is whole, and that after the recovery all
// changes stand or none: all where the run ended well, none where it said that it did not.
func afterSuffering(t *testing.T, root string, before map[string]string, when string, what suffering, done bool) {
	t.Helper()
	now, _ := contents(t, root)
	for at, is := range now {
		if is == "" || strings.HasSuffix(at, ".crt") && !strings.HasSuffix(is, "-----END CERTIFICATE-----\n") || strings.HasSuffix(at, ".key") && !strings.HasSuffix(is, "PRIVATE KEY-----\n") {
			t.Errorf("%s: %s is torn: %d bytes", when, at, len(is))
		}
	}
	if _, _, err := apply.Mend(root); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	now, left := contents(t, root)
	differ := difference(before, now)
	if differ != 0 && differ != changes || len(left) > 0 || done && differ == 0 || what != killed && !done && differ != 0 {
		t.Errorf("%s: done %t, %d of %d changes stand after the recovery, left over are %v", when, done, differ, changes, left)
	}
}
