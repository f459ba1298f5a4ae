package reach

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// Process is a program that runs on a machine.
type Process struct {
	In  io.WriteCloser
	Out io.Reader

	session *ssh.Session
	talk    *tail
}

// Start runs a command of the machine's shell. Nothing of it is on a terminal, and
// nothing of this machine is forwarded.
func (h *Host) Start(command string) (*Process, error) {
	session, err := h.client.NewSession()
	if err != nil {
		return nil, fmt.Errorf("%s: no session: %w", h.Target.Name, err)
	}
	p := &Process{session: session, talk: &tail{}}
	session.Stderr = p.talk
	if p.In, err = session.StdinPipe(); err == nil {
		p.Out, err = session.StdoutPipe()
	}
	if err == nil {
		err = session.Start(command)
	}
	if err != nil {
		_ = session.Close()
		return nil, fmt.Errorf("%s: the command was not started: %w", h.Target.Name, err)
	}
	return p, nil
}

// Wait returns how the program ended: nil for exit code 0.
func (p *Process) Wait() error {
	err := p.session.Wait()
	var exit *ssh.ExitError
	var missing *ssh.ExitMissingError
	switch {
	case errors.As(err, &exit):
		return fmt.Errorf("ended with %d", exit.ExitStatus())
	case errors.As(err, &missing):
		return errors.New("the connection was cut")
	}
	return err
}

// Close ends the program's session.
func (p *Process) Close() { _ = p.session.Close() }

// Talk is the end of what the program said on stderr.
func (p *Process) Talk() string { return p.talk.String() }

// maxTalk bounds what is kept of a program's talk, in bytes.
const maxTalk = 2048

// tail keeps the end of what is written.
type tail struct {
	mu   sync.Mutex
	data []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, b...)
	if over := len(t.data) - maxTalk; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.data))
}

// maxAnswer bounds what a short command answers, in bytes.
const maxAnswer = 16 << 10

// answer runs a script of sh, with an input, and returns what it wrote.
func (h *Host) answer(script string, in io.Reader) (string, error) {
	p, err := h.Start("sh -c " + quote(script))
	if err != nil {
		return "", err
	}
	defer p.Close()
	if in != nil {
		if _, err := io.Copy(p.In, in); err != nil {
			return "", fmt.Errorf("%s: sending: %w", h.Target.Name, err)
		}
	}
	_ = p.In.Close()
	data, err := io.ReadAll(io.LimitReader(p.Out, maxAnswer))
	if err != nil {
		return "", fmt.Errorf("%s: %w", h.Target.Name, err)
	}
	if err := p.Wait(); err != nil {
		return string(data), said(h.Target.Name, err, p.Talk())
	}
	return string(data), nil
}

// said adds a program's own words to an error.
func said(name string, err error, talk string) error {
	if talk == "" {
		return fmt.Errorf("%s: %w", name, err)
	}
	return fmt.Errorf("%s: %w: %s", name, err, talk)
}
