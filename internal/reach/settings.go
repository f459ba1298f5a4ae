package reach

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kevinburke/ssh_config"
)

// Settings are how the machines are reached; the zero value does as ssh does.
type Settings struct {
	// Config is a file like ~/.ssh/config; "": that one where it is there, "none":
	// none is read.
	Config string
	// KnownHosts is a file of host keys; "": those of the configuration, or else
	// ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts.
	KnownHosts string
	// Identity is a file with a private key to show, before all others.
	Identity string
	// Jump is [USER@]HOST[:PORT], several with commas between them; "": as the
	// configuration's ProxyJump says, "none": none.
	Jump string
	// Agent is the socket of an ssh-agent; "": none.
	Agent string
	// Ask asks a person for a passphrase; nil where nobody is there.
	Ask func(prompt string) ([]byte, error)
}

// settled is how one machine is reached.
type settled struct {
	address, user, checked string // checked is HOST:PORT as known_hosts names it
	identities             []string
	only                   bool // show the identities alone, not all that the agent has
	jump                   string
}

// configFile reads the configuration; nil where there is none.
func (s *Settings) configFile() (*ssh_config.Config, error) {
	name := s.Config
	if name == "none" {
		return nil, nil
	}
	if name == "" {
		name = home(".ssh/config")
	}
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && s.Config == "" {
		return nil, nil
	}
	if err == nil {
		var c *ssh_config.Config
		if c, err = ssh_config.DecodeBytes(data); err == nil {
			return c, nil
		}
		err = fmt.Errorf("%s: %w", name, err)
	}
	return nil, &Error{err, "give another file with --ssh-config, or --ssh-config none and all in --ssh"}
}

// settle tells how a target is reached: its own words, then the configuration's.
func (r *Reacher) settle(t Target) (settled, error) {
	get := func(key string) string {
		if r.config == nil {
			return ""
		}
		v, err := r.config.Get(t.Host, key)
		if err != nil {
			return ""
		}
		return v
	}
	s := settled{user: first(t.User, get("User"), currentUser()), jump: first(r.Jump, get("ProxyJump"))}
	if command := get("ProxyCommand"); command != "" && command != "none" && r.Jump == "" {
		return s, &Error{fmt.Errorf("%s: the configuration reaches it by a ProxyCommand, which is not run here", t.Name), "give --ssh-jump HOST, or another file with --ssh-config"}
	}
	host, port := first(strings.ReplaceAll(get("HostName"), "%h", t.Host), t.Host), first(t.Port, get("Port"), "22")
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return s, fmt.Errorf("%s: %q is no port", t.Name, port)
	}
	s.address = net.JoinHostPort(host, port)
	s.checked = s.address
	if alias := get("HostKeyAlias"); alias != "" {
		s.checked = net.JoinHostPort(alias, "22")
	}
	s.only = strings.EqualFold(get("IdentitiesOnly"), "yes")
	if r.config != nil {
		files, _ := r.config.GetAll(t.Host, "IdentityFile")
		for _, f := range files {
			if f != "" && f != "none" {
				s.identities = append(s.identities, expand(f))
			}
		}
	}
	return s, nil
}

func first(all ...string) string {
	for _, s := range all {
		if s != "" {
			return s
		}
	}
	return ""
}

func currentUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return os.Getenv("USER")
}

// home is a path below the home folder of who runs this.
func home(name string) string {
	dir, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, name)
}

// expand resolves ~/ as ssh_config does.
func expand(name string) string {
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		return home(rest)
	}
	return name
}

// Error is an error with what to do about it.
type Error struct {
	Err  error
	Help string
}

// Error says what is wrong.
func (e *Error) Error() string { return e.Err.Error() }

// Hint says what to do.
func (e *Error) Hint() string { return e.Help }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
