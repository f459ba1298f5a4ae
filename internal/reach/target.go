package reach

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Target is a machine as the operator names it.
type Target struct {
	// Name is the node's, by which the credentials of its kubelet are called too.
	Name string
	// User and Port are empty where the target does not tell them.
	User, Host, Port string
	// Trusted tells that the operator vouches for what the node says of itself.
	Trusted bool
}

// maxName bounds the names of nodes and hosts, in bytes (RFC 1123). The forms below do
// not count, for that would make them slow to compile.
const maxName = 253

// nodeName is what a node of Kubernetes may be called (RFC 1123 subdomain): such a
// name is safe in a command, a path and a certificate.
var nodeName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)

// userName and hostName keep what a shell, a terminal or ssh_config would read
// otherwise out of targets.
var (
	userName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,63}$`)
	hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)
)

// ParseTarget reads [NAME=][USER@]HOST[:PORT]; an IPv6 address with a port stands in
// brackets. Without NAME the host is the node's name.
func ParseTarget(text string) (Target, error) {
	var t Target
	rest := text
	if name, after, ok := strings.Cut(text, "="); ok {
		t.Name, rest = name, after
	}
	if i := strings.LastIndex(rest, "@"); i >= 0 {
		t.User, rest = rest[:i], rest[i+1:]
		if !userName.MatchString(t.User) {
			return t, fmt.Errorf("%q: %q is no user's name", text, t.User)
		}
	}
	if err := t.address(rest); err != nil {
		return t, fmt.Errorf("%q: %w", text, err)
	}
	if t.Name == "" {
		t.Name = strings.ToLower(t.Host)
	}
	if len(t.Name) > maxName || !nodeName.MatchString(t.Name) {
		return t, fmt.Errorf("%q: %q is no name of a node: put NAME= before it, with the name that kubectl get nodes shows", text, t.Name)
	}
	return t, nil
}

func (t *Target) address(rest string) error {
	t.Host = rest
	bracketed := strings.HasPrefix(rest, "[")
	if bracketed || strings.Count(rest, ":") == 1 {
		host, port, err := net.SplitHostPort(rest)
		if bracketed && err != nil {
			host, port, err = strings.TrimSuffix(rest[1:], "]"), "", nil
		}
		if n, bad := strconv.Atoi(port); err != nil || port != "" && (bad != nil || n < 1 || n > 65535) {
			return fmt.Errorf("%q is not HOST:PORT", rest)
		}
		t.Host, t.Port = host, port
	}
	if net.ParseIP(t.Host) == nil && (len(t.Host) > maxName || !hostName.MatchString(t.Host)) {
		return fmt.Errorf("%q is no host", t.Host)
	}
	return nil
}

// MaxTargets bounds an inventory.
const MaxTargets = 5000

// ParseInventory reads a file of targets, one a line, with the word trusted after
// those that the operator vouches for. Empty lines and what follows a # are passed
// over. The error names the line.
func ParseInventory(data []byte) ([]Target, error) {
	var all []Target
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		if len(fields) > 2 || len(fields) == 2 && fields[1] != "trusted" {
			return nil, fmt.Errorf("line %d: want [NAME=][USER@]HOST[:PORT], and after it nothing or the word trusted", n)
		}
		t, err := ParseTarget(fields[0])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		t.Trusted = len(fields) == 2
		if slices.ContainsFunc(all, func(o Target) bool { return o.Name == t.Name }) {
			return nil, fmt.Errorf("line %d: a second node %s", n, t.Name)
		}
		if all = append(all, t); len(all) > MaxTargets {
			return nil, fmt.Errorf("line %d: more than %d nodes", n, MaxTargets)
		}
	}
	return all, lines.Err()
}

// String is the target without its name, as ssh takes it.
func (t Target) String() string {
	s := t.Host
	if t.Port != "" {
		s = net.JoinHostPort(t.Host, t.Port)
	}
	if t.User != "" {
		s = t.User + "@" + s
	}
	return s
}

// quote makes a text one word of sh.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
