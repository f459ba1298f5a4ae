package bootstrap

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
)

// hostname holds what names and addresses of servers are made of: what is
// printed for a shell must be nothing else.
var hostname = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9.])?$|^[0-9A-Fa-f:.]+$`)

// Endpoint returns HOST:PORT of the API server's URL, as kubeadm join takes
// it, with the port that https implies.
func Endpoint(server string) (string, error) {
	u, err := url.Parse(server)
	switch {
	case err != nil || u.User != nil: // not repeated: it may hold a password
		return "", errors.New("server is not a URL like https://10.0.0.11:6443")
	case u.Scheme != "https" || !hostname.MatchString(u.Hostname()):
		return "", fmt.Errorf("server %q is not a URL like https://10.0.0.11:6443", server)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("server %q has a path: nodes join at HOST:PORT", server)
	case u.Port() == "":
		return net.JoinHostPort(u.Hostname(), "443"), nil
	}
	return net.JoinHostPort(u.Hostname(), u.Port()), nil
}

// Join is what a node that joins is told.
type Join struct {
	Endpoint       string // HOST:PORT
	Token          Token
	Pins           []Pin
	CertificateKey string // hexadecimal AES-256 key of kubeadm's uploaded certificates; empty: the node is a worker
}

// Command returns the command line of kubeadm join, as kubeadm token create
// --print-join-command prints it (cmd/kubeadm/app/cmd/util/join.go). It holds
// the token.
func (j *Join) Command() string {
	parts := []string{"kubeadm join", j.Endpoint, "--token", j.Token.Reveal()}
	for _, p := range j.Pins {
		parts = append(parts, "--discovery-token-ca-cert-hash", p.String())
	}
	if j.CertificateKey != "" {
		parts = append(parts, "--control-plane --certificate-key", j.CertificateKey)
	}
	return strings.Join(parts, " ")
}
