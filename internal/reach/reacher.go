package reach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/kevinburke/ssh_config"
	"golang.org/x/crypto/ssh"
)

// Reacher reaches machines. It is safe for concurrent use.
type Reacher struct {
	Settings
	// Timeout bounds how long a machine may take until somebody is logged in.
	Timeout time.Duration

	config *ssh_config.Config
	keys   *hostKeys
	show   *identities

	mu    sync.Mutex
	jumps map[string]*jump
}

// New reads the configuration, the known host keys and the keys to show. Nothing is
// dialled.
func New(s Settings, timeout time.Duration) (*Reacher, error) {
	r := &Reacher{Settings: s, Timeout: timeout, jumps: map[string]*jump{}}
	var err error
	if r.config, err = s.configFile(); err != nil {
		return nil, err
	}
	configured := ""
	if r.config != nil {
		configured, _ = r.config.Get("*", "UserKnownHostsFile")
		if configured == ssh_config.Default("UserKnownHostsFile") {
			configured = ""
		}
	}
	if r.keys, err = s.hostKeys(configured); err != nil {
		return nil, err
	}
	r.show = s.identities()
	return r, nil
}

// Addresses are the host names and addresses by which a target is reached, as the
// operator and the configuration name them.
func (r *Reacher) Addresses(t Target) []string {
	all := []string{t.Host}
	if s, err := r.settle(t); err == nil {
		if host, _, err := net.SplitHostPort(s.address); err == nil && host != t.Host {
			all = append(all, host)
		}
	}
	return all
}

// Host is a machine that somebody is logged in at. Close ends all that runs there by
// this login.
type Host struct {
	Target Target
	client *ssh.Client
	done   chan struct{}
	close  sync.Once
}

// Dial logs in at a machine. Its host key must be known.
func (r *Reacher) Dial(ctx context.Context, t Target) (*Host, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	client, err := r.client(ctx, t, 0)
	if err != nil {
		return nil, err
	}
	h := &Host{Target: t, client: client, done: make(chan struct{})}
	go h.keepAlive()
	return h, nil
}

// Close hangs up.
func (h *Host) Close() {
	h.close.Do(func() {
		close(h.done)
		_ = h.client.Close()
	})
}

// maxJumps bounds a chain of jumps, which a configuration can make a circle.
const maxJumps = 5

func (r *Reacher) client(ctx context.Context, t Target, depth int) (*ssh.Client, error) {
	s, err := r.settle(t)
	if err != nil {
		return nil, err
	}
	signers, err := r.show.signers(r.Identity, s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.Name, err)
	}
	conn, err := r.connect(ctx, t, s, depth)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.Name, err)
	}
	end, _ := ctx.Deadline()
	_ = conn.SetDeadline(end) // a channel of a jump has none: then stop below is all there is
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c, channels, requests, err := ssh.NewClientConn(conn, s.address, &ssh.ClientConfig{
		User: s.user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signers...)},
		HostKeyCallback: r.keys.callback(t.Name, s.checked), HostKeyAlgorithms: r.keys.algorithms(s.checked),
	})
	if err != nil {
		conn.Close()
		return nil, r.failed(ctx, t, s, len(signers), err)
	}
	_ = conn.SetDeadline(time.Time{})
	return ssh.NewClient(c, channels, requests), nil
}

// failed says why nobody is logged in.
func (r *Reacher) failed(ctx context.Context, t Target, s settled, shown int, err error) error {
	var own *Error
	switch {
	case errors.As(err, &own):
		return own
	case ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded):
		return &Error{fmt.Errorf("%s: %s did not log us in within %s", t.Name, s.address, r.Timeout), "is it overloaded? --ssh-timeout waits longer"}
	case strings.Contains(err.Error(), "unable to authenticate"):
		return &Error{fmt.Errorf("%s: %s lets %s in with none of the %d keys that were shown", t.Name, s.address, s.user, shown), fmt.Sprintf("see that this works: ssh -o BatchMode=yes %s true; --ssh-identity names another key", t)}
	}
	return &Error{fmt.Errorf("%s: %s: %w", t.Name, s.address, err), fmt.Sprintf("see that this works: ssh %s true", t)}
}

func (r *Reacher) connect(ctx context.Context, t Target, s settled, depth int) (net.Conn, error) {
	if s.jump == "" || s.jump == "none" {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.address)
		if err != nil {
			return nil, &Error{dialError(ctx, err, r.Timeout), fmt.Sprintf("is the machine up, and its sshd at %s? ssh %s true", s.address, t)}
		}
		return conn, nil
	}
	if depth >= maxJumps {
		return nil, fmt.Errorf("more than %d jumps", maxJumps)
	}
	client, err := r.jump(ctx, s.jump, depth)
	if err != nil {
		return nil, fmt.Errorf("jump %s: %w", s.jump, err)
	}
	conn, err := client.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, &Error{fmt.Errorf("jump %s does not reach %s: %w", s.jump, s.address, err), fmt.Sprintf("see that this works: ssh -J %s %s true", s.jump, t)}
	}
	return conn, nil
}

// dialError leaves out what package net repeats.
func dialError(ctx context.Context, err error, timeout time.Duration) error {
	var op *net.OpError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("no answer within %s", timeout)
	case errors.As(err, &op):
		return fmt.Errorf("cannot be reached: %w", op.Err)
	}
	return err
}

// jump is a machine over which others are reached, logged in at once for all.
type jump struct {
	once   sync.Once
	client *ssh.Client
	err    error
}

// jump logs in at the last of a list of jumps, over those before it.
func (r *Reacher) jump(ctx context.Context, list string, depth int) (*ssh.Client, error) {
	r.mu.Lock()
	j := r.jumps[list]
	if j == nil {
		j = &jump{}
		r.jumps[list] = j
	}
	r.mu.Unlock()
	j.once.Do(func() { j.client, j.err = r.dialJump(ctx, list, depth) })
	return j.client, j.err
}

func (r *Reacher) dialJump(ctx context.Context, list string, depth int) (*ssh.Client, error) {
	before, last := "", list
	if i := strings.LastIndexByte(list, ','); i >= 0 {
		before, last = list[:i], list[i+1:]
	}
	t, err := ParseTarget(last)
	if err != nil {
		return nil, err
	}
	over := &Reacher{Settings: r.Settings, Timeout: r.Timeout, config: r.config, keys: r.keys, show: r.show, jumps: map[string]*jump{}}
	over.Jump = first(before, "none")
	if before == "" && r.Jump == "" {
		over.Jump = "" // the configuration may say how the jump itself is reached
	}
	return over.client(ctx, t, depth+1)
}

// keepAlive ends a login whose machine does not answer any more: a cable that was
// pulled says nothing.
func (h *Host) keepAlive() {
	const every, patience = 10 * time.Second, 30 * time.Second
	for {
		select {
		case <-h.done:
			return
		case <-time.After(every):
		}
		silent := time.AfterFunc(patience, h.Close)
		_, _, err := h.client.SendRequest("keepalive@openssh.com", true, nil)
		silent.Stop()
		if err != nil {
			h.Close()
			return
		}
	}
}
