package apart

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// processesEnv says how many tests run at once.
const processesEnv = "KUBEPKI_LAB_PROCESSES"

// Main is for TestMain, before [testing.M.Run]. Where KUBEPKI_LAB_PROCESSES is
// above 1 it runs every test and example of the calling program, each in a process
// of its own, so many at once, and returns the exit code and true. The tests named
// first begin first: the longest, so that nothing else waits for them at the end;
// a name that no test has is a failure.
//
// What a test writes, it writes to a file, which is shown as a whole when the test
// has ended. A process that ran no test is a failure too.
//
// Main returns false, and has done nothing, where the variable is not set, and
// where flags choose tests or ask for a profile, which is for one process.
func Main(first ...string) (code int, ran bool) {
	started := time.Now()
	at, err := atOnce()
	if err == nil && at < 2 {
		return 0, false
	}
	var names []string
	if err == nil {
		names, err = listed(first)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "apart: %v\n", err)
		return 1, true
	}
	if !runAll(os.Stdout, names, at, started) {
		fmt.Println("FAIL")
		return 1, true
	}
	fmt.Println("PASS")
	return 0, true
}

// atOnce is the number of tests to run at once; 1 where they are not to be split.
func atOnce() (int, error) {
	text := os.Getenv(processesEnv)
	if text == "" {
		return 1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 64 {
		return 0, fmt.Errorf("%s=%q: give a number of processes from 1 to 64", processesEnv, text)
	}
	flag.Parse()
	for _, name := range []string{"run", "skip", "list", "bench", "fuzz", "coverprofile", "cpuprofile", "memprofile", "blockprofile", "mutexprofile", "trace"} {
		if f := flag.Lookup("test." + name); f != nil && f.Value.String() != "" {
			return 1, nil
		}
	}
	return n, nil
}

// listed are the tests and examples of the calling program, the first ones first.
func listed(first []string) ([]string, error) {
	cmd, err := again("-test.list=.")
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the tests: %w", err)
	}
	names := regexp.MustCompile(`(?m)^(Test|Example|Fuzz)\S*$`).FindAllString(string(out), -1)
	return order(names, first)
}

// order puts the first names before the others.
func order(names, first []string) ([]string, error) {
	for _, name := range first {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("%s is to run first, and there is no such test: correct the list in TestMain", name)
		}
	}
	others := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(first, name) })
	return slices.Concat(first, others), nil
}

// runAll runs the tests, at once as many as said, and tells whether all passed.
func runAll(w io.Writer, names []string, at int, started time.Time) bool {
	var (
		mu   sync.Mutex // of what follows, and of w
		next int
		good = true
		done sync.WaitGroup
	)
	for range at {
		done.Go(func() {
			// A child ends with the thread that started it: it must not live longer
			// than this program, and not less because a thread was let go.
			runtime.LockOSThread()
			for {
				mu.Lock()
				if next == len(names) {
					mu.Unlock()
					return
				}
				name := names[next]
				next++
				mu.Unlock()

				out, err := runOne(name, started)

				mu.Lock()
				_, _ = w.Write(out)
				if err != nil {
					good = false
					fmt.Fprintf(w, "FAIL: %s: %v\n", name, err)
				}
				mu.Unlock()
			}
		})
	}
	done.Wait()
	return good
}

// runOne runs one test in a process of its own and returns what it wrote, without
// the verdict on the whole process at its end.
func runOne(name string, started time.Time) ([]byte, error) {
	args := []string{"-test.run=^" + name + "$"}
	if timeout, err := time.ParseDuration(flag.Lookup("test.timeout").Value.String()); err == nil && timeout > 0 {
		// Of what is left of the whole, so that the one that hangs says where.
		args = append(args, "-test.timeout="+max(timeout-time.Since(started), time.Second).String())
	}
	cmd, err := again(args...)
	if err != nil {
		return nil, err
	}
	// A file, not a pipe: a component that outlives its test may keep it open.
	file, err := os.CreateTemp("", "kubepki-apart-")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := os.Remove(file.Name()); err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = file, file
	ended := cmd.Run()
	out, err := io.ReadAll(io.NewSectionReader(file, 0, 1<<62))
	if err != nil {
		return nil, err
	}
	if ended == nil && bytes.Contains(out, []byte("testing: warning: no tests to run")) {
		ended = errors.New("the process has run no test")
	}
	for _, verdict := range []string{"PASS\n", "FAIL\n"} {
		if rest, is := bytes.CutSuffix(out, []byte(verdict)); is && (len(rest) == 0 || rest[len(rest)-1] == '\n') {
			out = rest
		}
	}
	return out, ended
}

// again prepares to start the calling program again with its own arguments and
// more, for one test. It ends when the calling thread does.
func again(more ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the running program: %w", err)
	}
	var args []string
	for _, arg := range os.Args[1:] {
		// What go test keeps for its cache is of one process.
		if name := strings.TrimLeft(arg, "-"); !strings.HasPrefix(name, "test.testlogfile=") {
			args = append(args, arg)
		}
	}
	cmd := exec.Command(self, append(args, more...)...)
	cmd.Env = append(os.Environ(), processesEnv+"=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd, nil
}
