package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kubepki/kubepki/lab/internal/node"
)

const (
	probeEvery  = 50 * time.Millisecond
	probeWait   = 5 * time.Second // for one answer
	stopWait    = 10 * time.Second
	tailBytes   = 6 << 10
	outputLimit = 64 << 10
)

// Process is a component that runs on a node.
type Process struct {
	// Manifest is what the component was started from.
	Manifest *Manifest

	node  *Node
	log   string
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has ended
	err   error         // why it ended; to be read after ended
}

func (p *Process) start() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has a copy
	p.cmd = exec.Command(filepath.Join(p.node.Programs, p.Manifest.Command[0]), p.Manifest.Command[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = slices.Clone(p.Manifest.Env)
	p.cmd.Dir = p.node.Root
	// A process group of its own: a signal from the terminal is for the program.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if p.node.shared {
		endWithParent(p.cmd.SysProcAttr)
	} else {
		p.cmd.Env = append(p.cmd.Env, node.RootEnv+"="+p.node.Root)
	}
	if err := p.node.place.do(p.cmd.Start); err != nil {
		return err
	}
	p.ended = make(chan struct{})
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return nil
}

// Ready waits until the probe of the component's manifest succeeds, as the
// kubelet judges it: any certificate, and a status from 200 to 399. The error
// tells what the probe saw last and holds the end of the component's log. A
// component without a probe is ready as long as it runs.
func (p *Process) Ready(ctx context.Context) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		seen := p.Probe(ctx)
		if seen == nil {
			return nil
		}
		select {
		case <-p.ended:
			return p.explain(fmt.Errorf("ended before it was ready: %w", p.Exit()))
		case <-ctx.Done():
			return p.explain(fmt.Errorf("not ready in time: %w", seen))
		case <-tick.C:
		}
	}
}

// Probe asks once, as [Process.Ready] does; nil is yes.
func (p *Process) Probe(ctx context.Context) error {
	if p.Manifest.Probe == nil {
		return p.runs()
	}
	client, transport := p.node.Client()
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the kubelet does not verify probes either
	transport.DisableKeepAlives = true
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Manifest.Probe.String(), nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 4<<10))
	if err != nil {
		return err
	}
	if answer.StatusCode < 200 || answer.StatusCode >= 400 {
		return fmt.Errorf("%s answers %s: %s", p.Manifest.Probe, answer.Status, reasons(body))
	}
	return nil
}

// reasons are the failed checks of a health endpoint's answer, each on a line of
// its own among those that passed, or else the whole answer.
func reasons(body []byte) string {
	var failed []string
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, "[-]"); ok {
			failed = append(failed, strings.TrimSpace(rest))
		}
	}
	if failed == nil {
		return strings.TrimSpace(string(body))
	}
	return strings.Join(failed, "; ")
}

// runs tells whether the process has not ended; nil is yes.
func (p *Process) runs() error {
	select {
	case <-p.ended:
		return p.Exit()
	default:
		return nil
	}
}

// Pid is the number of the process in the namespace of the program.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.ended }

// Ended waits until the component has ended by itself and returns how, with
// the end of its log: for components that must refuse to start.
func (p *Process) Ended(ctx context.Context) error {
	select {
	case <-p.ended:
		return p.explain(p.Exit())
	case <-ctx.Done():
		return p.explain(fmt.Errorf("still runs: %w", ctx.Err()))
	}
}

// Succeeds waits until the program has ended by itself; its error tells that it
// did not end well, or not in time, with the end of its log.
func (p *Process) Succeeds(ctx context.Context) error {
	select {
	case <-p.ended:
		if p.err == nil {
			return nil
		}
		return p.explain(p.err)
	case <-ctx.Done():
		return errors.Join(p.explain(ctx.Err()), p.Kill())
	}
}

// Stop ends the process: by SIGTERM, then, after ten seconds, by SIGKILL to
// its process group. It may be called again. Its error tells that the process
// could not be signalled, not how it ended.
func (p *Process) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s on %s: %w", p.Manifest.Name, p.node.Name, err)
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopWait):
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill %s on %s: %w", p.Manifest.Name, p.node.Name, err)
	}
	<-p.ended
	return nil
}

// Kill ends the process at once by SIGKILL, as a crash would.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s on %s: %w", p.Manifest.Name, p.node.Name, err)
	}
	<-p.ended
	return nil
}

// Exit tells how the process ended. It must have: see [Process.Done].
func (p *Process) Exit() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

func (p *Process) explain(err error) error {
	return fmt.Errorf("%s on %s: %w\n--- end of %s ---\n%s", p.Manifest.Name, p.node.Name, err, filepath.Base(p.log), p.Log())
}

// LogFile is the path of the file that the component's output goes to, with
// whatever it says: see [Redact].
func (p *Process) LogFile() string { return p.log }

// Log returns the end of the component's log (the last 6 KiB, whole lines),
// without whatever looks like a key or a token.
func (p *Process) Log() string {
	file, err := os.Open(p.log)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	whole := true
	if info, err := file.Stat(); err == nil && info.Size() > tailBytes {
		whole = false
		if _, err := file.Seek(-tailBytes, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	data, err := io.ReadAll(io.LimitReader(file, outputLimit))
	if err != nil {
		return err.Error()
	}
	if _, rest, ok := bytes.Cut(data, []byte("\n")); ok && !whole {
		data = rest
	}
	return Redact(string(data))
}

// secrets are PEM private keys, JSON web tokens, bootstrap tokens, and base64 of PEM as a
// kubeconfig holds it.
var secrets = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)|eyJ[\w-]+\.[\w-]+\.[\w-]+|LS0tLS1CRUdJTi[\w+/=]+|\b[a-z0-9]{6}\.[a-z0-9]{16}\b`)

// Redact takes whatever looks like a private key or a token out of a text.
func Redact(s string) string { return secrets.ReplaceAllString(s, "[redacted]") }

// Redactor is [Redact] for a text that comes line by line. Its zero value is
// ready; it is not safe for concurrent use.
type Redactor struct{ inKey bool }

// Line returns a line without secrets, and nothing for a line within a private
// key.
func (r *Redactor) Line(line string) string {
	begins, ends := strings.Contains(line, "-----BEGIN "), strings.Contains(line, "PRIVATE KEY-----")
	switch {
	case r.inKey:
		r.inKey = !strings.Contains(line, "-----END ")
		return ""
	case begins && ends && !strings.Contains(line, "-----END "):
		r.inKey = true
		return Redact(line) + "\n"
	}
	return Redact(line)
}
