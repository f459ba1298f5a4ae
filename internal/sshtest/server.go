// Package sshtest is an SSH server for tests: it lets one key in, and runs commands by
// sh in a folder that stands for the machine. It can cut connections at a chosen line.
package sshtest

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// Machine is one machine with an SSH server on loopback. Its fields may be changed while
// nobody is logged in.
type Machine struct {
	Addr    string // 127.0.0.1:PORT
	Dir     string // where commands run
	Home    string // HOME and TMPDIR of commands
	HostKey ssh.Signer
	More    []ssh.Signer // host keys of other kinds
	// Line, unless nil, is told of each line before it is handed on, and may end the
	// connection, or the program, by what it returns.
	Line func(Line) Deed
	// Env is added to what commands see.
	Env []string

	mu       sync.Mutex
	commands []string
	conns    []net.Conn
	listener net.Listener
	client   ssh.PublicKey
}

// Line is one line between the two ends of a command that runs.
type Line struct {
	Command string
	ToHere  bool // from the client
	Number  int  // counted from 1, in its direction
	Text    []byte
}

// Deed is what is done about a line.
type Deed int

// The deeds.
const (
	Pass    Deed = iota
	Drop         // the line is lost, and the connection cut
	PassCut      // the line is handed on, and the connection cut
	Kill         // the program is killed, and the connection stays
	Hang         // nothing is handed on any more
)

// Key is a key of a person, in a file as ssh-keygen makes it.
type Key struct {
	File   string
	Signer ssh.Signer
	Raw    ed25519.PrivateKey
}

// NewKey makes a key and its file.
func NewKey(t *testing.T, dir, passphrase string) *Key {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(private, "test")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "test", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	k := &Key{File: filepath.Join(dir, "id_"+rand.Text()[:6]), Signer: signer, Raw: private}
	if err := os.WriteFile(k.File, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return k
}

// Start starts a machine that lets a key in, until the test ends.
func Start(t *testing.T, dir string, client *Key) *Machine {
	t.Helper()
	m := &Machine{Dir: dir, Home: t.TempDir(), HostKey: NewKey(t, t.TempDir(), "").Signer, client: client.Signer.PublicKey()}
	var err error
	if m.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	m.Addr = m.listener.Addr().String()
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			conn, err := m.listener.Accept()
			if err != nil {
				return
			}
			m.mu.Lock()
			m.conns = append(m.conns, conn)
			m.mu.Unlock()
			wait.Go(func() { m.serve(conn) })
		}
	})
	t.Cleanup(func() {
		m.Stop()
		wait.Wait()
	})
	return m
}

// Stop hangs up on everybody, and answers nobody any more.
func (m *Machine) Stop() {
	_ = m.listener.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		c.Close()
	}
}

// Port is the port alone.
func (m *Machine) Port() string {
	_, port, _ := net.SplitHostPort(m.Addr)
	return port
}

// KnownHosts is the line of known_hosts for the machine.
func (m *Machine) KnownHosts() string {
	return knownhosts.Line([]string{knownhosts.Normalize(m.Addr)}, m.HostKey.PublicKey()) + "\n"
}

// Commands are those that were run.
func (m *Machine) Commands() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string{}, m.commands...)
}

func (m *Machine) serve(conn net.Conn) {
	defer conn.Close()
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if bytes.Equal(key.Marshal(), m.client.Marshal()) {
			return &ssh.Permissions{}, nil
		}
		return nil, errors.New("not let in")
	}}
	config.AddHostKey(m.HostKey)
	for _, k := range m.More {
		config.AddHostKey(k)
	}
	server, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	go ssh.DiscardRequests(requests)
	var wait sync.WaitGroup
	for c := range channels {
		switch c.ChannelType() {
		case "session":
			channel, requests, err := c.Accept()
			if err == nil {
				wait.Go(func() { m.session(conn, channel, requests) })
			}
		case "direct-tcpip":
			wait.Go(func() { forward(c) })
		default:
			_ = c.Reject(ssh.UnknownChannelType, "not here")
		}
	}
	wait.Wait()
}

// forward lets the machine be a jump.
func forward(c ssh.NewChannel) {
	var to struct {
		Host     string
		Port     uint32
		From     string
		FromPort uint32
	}
	if err := ssh.Unmarshal(c.ExtraData(), &to); err != nil {
		_ = c.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	conn, err := (&net.Dialer{}).Dial("tcp", net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))))
	if err != nil {
		_ = c.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	channel, requests, err := c.Accept()
	if err != nil {
		conn.Close()
		return
	}
	go ssh.DiscardRequests(requests)
	go func() {
		_, _ = io.Copy(conn, channel)
		conn.Close()
	}()
	_, _ = io.Copy(channel, conn)
	_ = channel.Close()
}

func (m *Machine) session(conn net.Conn, channel ssh.Channel, requests <-chan *ssh.Request) {
	defer func() { _ = channel.Close() }()
	for r := range requests {
		if r.Type != "exec" {
			_ = r.Reply(false, nil)
			continue
		}
		var asked struct{ Command string }
		err := ssh.Unmarshal(r.Payload, &asked)
		_ = r.Reply(err == nil, nil)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		status := m.run(conn, channel, asked.Command)
		_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
		return
	}
}

func (m *Machine) run(conn net.Conn, channel ssh.Channel, command string) uint32 {
	m.mu.Lock()
	m.commands = append(m.commands, command)
	m.mu.Unlock()
	c := exec.Command("sh", "-c", command)
	c.Dir = m.Dir
	c.Env = append([]string{"HOME=" + m.Home, "TMPDIR=" + m.Home, "PATH=" + filepath.Join(m.Home, "bin") + ":" + os.Getenv("PATH")}, m.Env...)
	c.Stderr = channel.Stderr()
	in, err := c.StdinPipe()
	if err != nil {
		return 255
	}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		return 255
	}
	deed := func(l Line) Deed {
		l.Command = command
		if m.Line == nil || !strings.Contains(command, "serve-stdio") {
			return Pass
		}
		d := m.Line(l)
		if d == Kill {
			_ = c.Process.Kill()
		}
		return d
	}
	go func() {
		copyLines(in, channel, true, deed, conn)
		_ = in.Close()
	}()
	copyLines(channel, out, false, deed, conn)
	err = c.Wait()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return uint32(exit.ExitCode())
	case err != nil:
		return 255
	}
	return 0
}

// copyLines hands lines on, and does about each what was said.
func copyLines(to io.Writer, from io.Reader, toHere bool, deed func(Line) Deed, conn net.Conn) {
	r := bufio.NewReaderSize(from, 1<<20)
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			switch deed(Line{ToHere: toHere, Number: n, Text: line}) {
			case Drop:
				conn.Close()
				return
			case PassCut:
				_, _ = to.Write(line)
				conn.Close()
				return
			case Hang:
				_, _ = io.Copy(io.Discard, r)
				return
			case Pass, Kill:
				_, _ = to.Write(line)
			}
		}
		if err != nil {
			return
		}
	}
}

// Note does something that lines of several machines share, one at a time.
func (m *Machine) Note(do func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	do()
}

// Authorized is the public half as a line of authorized_keys.
func (k *Key) Authorized() string { return string(ssh.MarshalAuthorizedKey(k.Signer.PublicKey())) }
