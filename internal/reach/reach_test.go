package reach_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/kubepki/kubepki/internal/reach"
	"github.com/kubepki/kubepki/internal/sshtest"
)

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]string{
		"cp1=root@10.0.0.11:2222":   "cp1 root 10.0.0.11 2222",
		"10.0.0.11":                 "10.0.0.11  10.0.0.11 ",
		"W1.example":                "w1.example  W1.example ",
		"w1=[2001:db8::1]:22":       "w1  2001:db8::1 22",
		"w1=[2001:db8::1]":          "w1  2001:db8::1 ",
		"w1=2001:db8::1":            "w1  2001:db8::1 ",
		`w1=DOM\op@host`:            `w1 DOM\op host `,
		"w1=a@b@host":               "w1 a@b host ",
		"":                          "error",
		"w1=":                       "error",
		"=host":                     "host  host ",
		"w1=root@":                  "error",
		"w1=-oProxyCommand=id":      "error",
		"w1=-J@host":                "error",
		"w1=host:0":                 "error",
		"w1=host:x":                 "error",
		"w1=$(id)":                  "error",
		"../w1=host":                "error",
		"w1\x1b[31m=host":           "error",
		"2001:db8::1":               "error", // no name of a node: it needs NAME=
		"w1=host name":              "error",
		"system:node:w1=host":       "error",
		strings.Repeat("a", 300):    "error",
		"w1=[2001:db8::1]:99999999": "error",
	} {
		got := "error"
		if target, err := reach.ParseTarget(text); err == nil {
			got = strings.Join([]string{target.Name, target.User, target.Host, target.Port}, " ")
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// site is a few machines, and who wants to reach them.
type site struct {
	t     *testing.T
	known string
	reach.Settings
}

func newSite(t *testing.T, machines ...*sshtest.Machine) *site {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	s := &site{t: t, known: filepath.Join(home, "known")}
	s.Settings = reach.Settings{Config: "none", KnownHosts: s.known}
	s.know(machines...)
	return s
}

func (s *site) know(machines ...*sshtest.Machine) {
	s.t.Helper()
	var text string
	for _, m := range machines {
		text += m.KnownHosts()
	}
	s.write(s.known, text)
}

func (s *site) write(file, text string) {
	s.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// says runs a command on a machine, and returns what it says.
func (s *site) says(target, command string) (string, error) {
	s.t.Helper()
	t, err := reach.ParseTarget(target)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := reach.New(s.Settings, 5*time.Second)
	if err != nil {
		return "", err
	}
	h, err := r.Dial(s.t.Context(), t)
	if err != nil {
		return "", err
	}
	defer h.Close()
	p, err := h.Start(command)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(p.Out)
	return strings.TrimSpace(string(data)), errors.Join(err, p.Wait())
}

func (s *site) must(target, command, want string) {
	s.t.Helper()
	if got, err := s.says(target, command); err != nil || got != want {
		s.t.Errorf("%s: %q (%v), want %q", target, got, err, want)
	}
}

func (s *site) refused(target string, says ...string) {
	s.t.Helper()
	_, err := s.says(target, "true")
	if err == nil {
		s.t.Fatal("it was let in")
	}
	text := err.Error()
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		text += " | " + h.Hint()
	}
	for _, want := range says {
		if !strings.Contains(text, want) {
			s.t.Errorf("%q is missing from %s", want, text)
		}
	}
}

func TestReachesByTheConfiguration(t *testing.T) {
	key := sshtest.NewKey(t, t.TempDir(), "")
	m := sshtest.Start(t, t.TempDir(), key)
	s := newSite(t, m)
	s.Config = filepath.Join(t.TempDir(), "config")
	s.write(s.Config, fmt.Sprintf("Host cp*\n  HostName 127.0.0.1\n  Port %s\n  User root\n  IdentityFile %s\nHost w1\n  HostName 127.0.0.1\n  Port %s\n  HostKeyAlias other\n  IdentityFile %s\nHost w2\n  ProxyCommand nc %%h %%p\n", m.Port(), key.File, m.Port(), key.File))
	s.must("cp1", "echo yes", "yes")
	s.refused("w1", reach.ErrUnknownHost.Error(), "other")
	s.write(s.known, strings.Replace(m.KnownHosts(), "[127.0.0.1]:"+m.Port(), "other", 1))
	s.must("w1", "echo yes", "yes")
	s.refused("cp1", reach.ErrUnknownHost.Error())
	s.refused("w2", "ProxyCommand, which is not run here", "--ssh-jump")
	s.write(s.Config, "Host *\n\x00 {{{\n")
	if _, err := s.says("cp1", "true"); err == nil {
		t.Error("a configuration that does not parse was taken")
	}
}

func TestReachesOverJumps(t *testing.T) {
	key := sshtest.NewKey(t, t.TempDir(), "")
	jump, second, m := sshtest.Start(t, t.TempDir(), key), sshtest.Start(t, t.TempDir(), key), sshtest.Start(t, t.TempDir(), key)
	s := newSite(t, jump, second, m)
	s.Identity, s.Jump = key.File, "op@"+jump.Addr
	s.must("w1="+m.Addr, "echo over", "over")
	s.Jump = "op@" + jump.Addr + ",op@" + second.Addr
	s.must("w1="+m.Addr, "echo over two", "over two")
	s.know(second, m)
	s.refused("w1="+m.Addr, "jump", reach.ErrUnknownHost.Error())
	s.know(jump, second)
	s.refused("w1="+m.Addr, "w1", reach.ErrUnknownHost.Error())
	s.know(jump, second, m)
	m.Stop()
	s.refused("w1="+m.Addr, "does not reach "+m.Addr)
}

func TestShowsKeysOfAnAgent(t *testing.T) {
	key, other := sshtest.NewKey(t, t.TempDir(), ""), sshtest.NewKey(t, t.TempDir(), "")
	m := sshtest.Start(t, t.TempDir(), key)
	s := newSite(t, m)
	s.refused("w1="+m.Addr, "there is no key to show", "ssh-add")
	ring := agent.NewKeyring()
	for _, k := range []*sshtest.Key{other, key} {
		if err := ring.Add(agent.AddedKey{PrivateKey: k.Raw}); err != nil {
			t.Fatal(err)
		}
	}
	s.Agent = filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", s.Agent)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(ring, conn) }()
		}
	}()
	s.must("w1="+m.Addr, "echo yes", "yes")
	s.Agent = filepath.Join(t.TempDir(), "gone")
	s.refused("w1="+m.Addr, "there is no key to show")
}

func TestAsksForAPassphraseOnce(t *testing.T) {
	key := sshtest.NewKey(t, t.TempDir(), "secret words")
	m := sshtest.Start(t, t.TempDir(), key)
	s := newSite(t, m)
	s.Identity = key.File
	asked := 0
	s.Ask = func(prompt string) ([]byte, error) {
		asked++
		if !strings.Contains(prompt, key.File) {
			t.Errorf("the prompt is %q", prompt)
		}
		return []byte("secret words"), nil
	}
	r, err := reach.New(s.Settings, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		target, _ := reach.ParseTarget("w1=" + m.Addr)
		h, err := r.Dial(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		h.Close()
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	s.Ask = func(string) ([]byte, error) { return []byte("wrong"), nil }
	s.refused("w1="+m.Addr, "the passphrase is not right")
	s.Identity = key.File + ".pub"
	s.write(s.Identity, string(ssh.MarshalAuthorizedKey(key.Signer.PublicKey())))
	s.refused("w1="+m.Addr, "does not parse as a private key", "no .pub at its end")
}

// TestHostKeysOfSeveralKinds: a host of which one kind is known may have others.
func TestHostKeysOfSeveralKinds(t *testing.T) {
	key := sshtest.NewKey(t, t.TempDir(), "")
	m := sshtest.Start(t, t.TempDir(), key)
	s := newSite(t, m)
	s.Identity = key.File
	long, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(long)
	if err != nil {
		t.Fatal(err)
	}
	m.More = []ssh.Signer{signer}
	first := m.HostKey
	m.HostKey = signer
	s.write(s.known, m.KnownHosts())
	m.HostKey = first
	s.must("w1="+m.Addr, "echo rsa", "rsa")

	t.Run("a host certificate of a known authority", func(t *testing.T) {
		authority := sshtest.NewKey(t, t.TempDir(), "").Signer
		certificate := &ssh.Certificate{Key: m.HostKey.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"127.0.0.1"}, ValidBefore: ssh.CertTimeInfinity}
		if err := certificate.SignCert(rand.Reader, authority); err != nil {
			t.Fatal(err)
		}
		certified, err := ssh.NewCertSigner(certificate, m.HostKey)
		if err != nil {
			t.Fatal(err)
		}
		m.More = []ssh.Signer{certified}
		s.write(s.known, "@cert-authority [127.0.0.1]:"+m.Port()+" "+string(ssh.MarshalAuthorizedKey(authority.PublicKey())))
		s.must("w1="+m.Addr, "echo certified", "certified")
		s.write(s.known, "@cert-authority [127.0.0.1]:"+m.Port()+" "+string(ssh.MarshalAuthorizedKey(key.Signer.PublicKey())))
		s.refused("w1=" + m.Addr)
	})
	t.Run("a revoked key is refused", func(t *testing.T) {
		s.write(s.known, m.KnownHosts()+"@revoked * "+string(ssh.MarshalAuthorizedKey(m.HostKey.PublicKey())))
		s.refused("w1="+m.Addr, "the host key is refused")
	})
	t.Run("a line that does not parse is an error, not passed over", func(t *testing.T) {
		s.write(s.known, m.KnownHosts()+"[127.0.0.1]:1 ssh-ed25519 AAAA\n")
		s.refused("w1=" + m.Addr)
	})
}

// TestSlowHosts are not waited for: one that takes the connection and says nothing.
func TestSlowHosts(t *testing.T) {
	s := newSite(t)
	s.Identity = sshtest.NewKey(t, t.TempDir(), "").File
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r, err := reach.New(s.Settings, 300*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	target, _ := reach.ParseTarget("w1=" + l.Addr().String())
	if _, err := r.Dial(t.Context(), target); err == nil || !strings.Contains(err.Error(), "did not log us in within 300ms") {
		t.Errorf("got %v", err)
	}
}

func program(t *testing.T) *reach.Program {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tool")
	text := "#!/bin/sh\necho \"ran $*\"\nfor a; do [ \"$a\" = --gone ] && rm -rf \"$(dirname \"$0\")\"; done\ntrue\n"
	if err := os.WriteFile(file, []byte(text+strings.Repeat("# padding\n", 100000)), 0o700); err != nil {
		t.Fatal(err)
	}
	return &reach.Program{Name: "tool", Path: file, Remove: "--gone"}
}

func TestCopiesProgramsAndLeavesNothing(t *testing.T) {
	key := sshtest.NewKey(t, t.TempDir(), "")
	m := sshtest.Start(t, t.TempDir(), key)
	s := newSite(t, m)
	s.Identity = key.File
	r, err := reach.New(s.Settings, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	target, _ := reach.ParseTarget("w1=" + m.Addr)
	run := func(p *reach.Program, o reach.Options) (string, error) {
		h, err := r.Dial(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		process, err := p.Run(ctx, h, o)
		if err != nil {
			return "", err
		}
		data, err := io.ReadAll(process.Out)
		return strings.TrimSpace(string(data)), errors.Join(err, process.Wait())
	}
	left := func() []string {
		all, _ := filepath.Glob(filepath.Join(m.Home, ".kubepki*"))
		return all
	}
	p := program(t)
	t.Run("a program that is not there is copied and removes itself", func(t *testing.T) {
		got, err := run(p, reach.Options{Args: []string{"a b", "$(id)"}})
		if err != nil || got != "ran a b $(id) --gone" {
			t.Errorf("%q (%v)", got, err)
		}
		if len(left()) > 0 {
			t.Errorf("left %v", left())
		}
	})
	t.Run("what a killed run left an hour ago goes away, and what is new stays", func(t *testing.T) {
		old, young := filepath.Join(m.Home, ".kubepki-ssh-aaaaaaaaaa"), filepath.Join(m.Home, ".kubepki-ssh-bbbbbbbbbb")
		for _, dir := range []string{old, young} {
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		hours := time.Now().Add(-2 * time.Hour)
		if err := os.Chtimes(old, hours, hours); err != nil {
			t.Fatal(err)
		}
		if _, err := run(p, reach.Options{}); err != nil {
			t.Fatal(err)
		}
		if got := left(); len(got) != 1 || got[0] != young {
			t.Errorf("left %v", got)
		}
		_ = os.Remove(young)
	})
	t.Run("the same program that is installed there is used", func(t *testing.T) {
		data, err := os.ReadFile(p.Path)
		if err == nil {
			err = os.MkdirAll(filepath.Join(m.Home, "bin"), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(m.Home, "bin", "tool"), data, 0o700)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := run(p, reach.Options{Args: []string{"x"}}); err != nil || got != "ran x" {
			t.Errorf("%q (%v)", got, err)
		}
		if err := os.WriteFile(filepath.Join(m.Home, "bin", "tool"), append(data, "# other\n"...), 0o700); err != nil {
			t.Fatal(err)
		}
		if got, err := run(p, reach.Options{Args: []string{"x"}}); err != nil || got != "ran x --gone" {
			t.Errorf("another version was run: %q (%v)", got, err)
		}
	})
	t.Run("a machine of another kind is refused", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(m.Home, "bin", "uname"), []byte("#!/bin/sh\necho sparc64\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(filepath.Join(m.Home, "bin", "uname"))
		if _, err := run(p, reach.Options{}); err == nil || !strings.Contains(err.Error(), "machine of") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a copy that does not come whole is removed", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(m.Home, "bin", "gzip"), []byte("#!/bin/sh\ncat >/dev/null; echo spoiled\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(filepath.Join(m.Home, "bin", "gzip"))
		if _, err := run(p, reach.Options{}); err == nil || !strings.Contains(err.Error(), "the copy did not come whole") {
			t.Errorf("got %v", err)
		}
		if len(left()) > 0 {
			t.Errorf("left %v", left())
		}
	})
	t.Run("a shell that talks, and a machine that names a folder of its own, do no harm", func(t *testing.T) {
		m.Env = []string{"ENV=/nowhere"}
		if err := os.WriteFile(filepath.Join(m.Home, "bin", "sh"), []byte("#!/bin/sh\ncat >/dev/null & echo '/tmp/x; rm -rf /'\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(filepath.Join(m.Home, "bin", "sh"))
		if _, err := run(p, reach.Options{}); err == nil {
			t.Error("it was believed")
		}
	})
}

// TestTalkIsBounded: a program that says much keeps nobody's memory.
func TestTalkIsBounded(t *testing.T) {
	key := sshtest.NewKey(t, t.TempDir(), "")
	m := sshtest.Start(t, t.TempDir(), key)
	s := newSite(t, m)
	s.Identity = key.File
	r, err := reach.New(s.Settings, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	target, _ := reach.ParseTarget("w1=" + m.Addr)
	h, err := r.Dial(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	p, err := h.Start("head -c 3000000 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, p.Out)
	if err := p.Wait(); err == nil || err.Error() != "ended with 3" {
		t.Errorf("got %v", err)
	}
	if talk := p.Talk(); len(talk) > 3000 || !strings.HasSuffix(talk, "end") || !bytes.Contains([]byte(talk), []byte("xxx")) {
		t.Errorf("%d bytes of talk", len(talk))
	}
}
