//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// subject is a controller that is measured.
type subject struct {
	name    string
	program string
	args    []string
	ready   string // the URL that answers 200 when it works
}

func (b *bench) ours() subject {
	const health = "127.0.0.1:8089"
	return subject{name: "kubepki", program: b.program, ready: "http://" + health + "/readyz", args: []string{
		"controller", "--kubeconfig=" + b.kubeconfig, "--enable=workloads", "--leader-elect=false", "--listen=" + health, "--log-level=warn",
	}}
}

// theirs is the real cert-manager of lab/certmanager, as it is by default. It limits itself
// to 20 requests a second only where the API server has no priority and fairness.
func (b *bench) theirs() subject {
	const health = "127.0.0.1:8090"
	return subject{name: "cert-manager", program: b.certManager, ready: "http://" + health + "/livez", args: []string{
		"controller", "--kubeconfig=" + b.kubeconfig, "--leader-elect=false", "--internal-healthz-listen-address=" + health, "--metrics-listen-address=127.0.0.1:8091",
	}}
}

// theirsLifted is cert-manager with four times the workers, and no limit that it could meet.
func (b *bench) theirsLifted() subject {
	s := b.theirs()
	s.name += " with limits lifted"
	s.args = append(s.args, "--concurrent-workers=20", "--kube-api-qps=10000", "--kube-api-burst=20000")
	return s
}

// controller is a subject as a process.
type controller struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
}

// start starts it, and returns when it works.
func (s subject) start(ctx context.Context) (*controller, error) {
	c := &controller{cmd: exec.CommandContext(ctx, s.program, s.args...)}
	c.cmd.Stderr = &c.stderr
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for limited.Err() == nil {
		request, err := http.NewRequestWithContext(limited, http.MethodGet, s.ready, nil)
		if err != nil {
			return nil, err
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			_ = response.Body.Close() // nothing of it is read
			if response.StatusCode == http.StatusOK {
				return c, nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.end()
	return nil, fmt.Errorf("%s is not ready", s.name)
}

// end stops the controller; what it says is lost.
func (c *controller) end() {
	_ = c.cmd.Process.Signal(os.Interrupt)
	_ = c.cmd.Wait()
}

func (c *controller) words() []byte { return c.stderr.Bytes()[max(0, c.stderr.Len()-2000):] }

// processor is the time that the controller has taken of a processor, 0 where it cannot
// be read.
func (c *controller) processor() time.Duration {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	var ticks int
	for _, f := range fields[11:13] { // utime and stime, in hundredths of a second (proc(5))
		n, _ := strconv.Atoi(f)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// memory is the resident set, now and at its peak, in MiB; "?" where it cannot be read.
func (c *controller) memory() string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	mib := func(field string) string {
		for line := range strings.Lines(string(data)) {
			if value, ok := strings.CutPrefix(line, field+":"); ok {
				kib, _ := strconv.Atoi(strings.Fields(value)[0])
				return strconv.Itoa(kib / 1024)
			}
		}
		return "?"
	}
	return fmt.Sprintf("%s MiB (peak %s)", mib("VmRSS"), mib("VmHWM"))
}
