package acmeissuer

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	"github.com/miekg/dns"
)

// Solvers presents what challenges want to be shown, sees whether others see it, and
// takes it down.
type Solvers struct {
	Client *Client
	// Tokens answers HTTP-01, and Addresses and Port are where ingresses and gateways
	// reach it: the addresses of this process's pod.
	Tokens    *Tokens
	Addresses []netip.Addr
	Port      int32
	// Nameservers are resolvers, as host:port, that are asked for zones, their name
	// servers and addresses. [ReadResolvConf] reads those of the system.
	Nameservers []string
	// RecursiveOnly has the resolvers asked for the records of DNS-01, where the name
	// servers of the zones cannot be reached.
	RecursiveOnly bool
	// Secrets reads the entry of a Secret, for the keys of RFC 2136.
	Secrets func(ctx context.Context, namespace, name, field string) ([]byte, error)
	// Poll is how long a Step waits for others to see something; 0: three seconds.
	Poll time.Duration

	// dial and dnsPort take the place of the network's ways in tests.
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	dnsPort string
}

func (s *Solvers) poll() time.Duration {
	if s.Poll == 0 {
		return 3 * time.Second
	}
	return s.Poll
}

// solver is one way to present a challenge.
type solver interface {
	present(ctx context.Context, c *cmacme.Challenge) error
	// seen returns why a server would not see what was presented.
	seen(ctx context.Context, c *cmacme.Challenge) error
	cleanUp(ctx context.Context, c *cmacme.Challenge) error
}

// solverFor returns the solver of a challenge. The namespace is that of the Secrets
// which its issuer names.
func (s *Solvers) solverFor(c *cmacme.Challenge, namespace string) (solver, error) {
	http, dns01 := c.Spec.Solver.HTTP01, c.Spec.Solver.DNS01
	switch {
	case c.Spec.Type == cmacme.ACMEChallengeTypeHTTP01 && http != nil && http.Ingress != nil:
		return &httpSolver{s, ingressRoute{s.Client, http.Ingress}}, nil
	case c.Spec.Type == cmacme.ACMEChallengeTypeHTTP01 && http != nil && http.GatewayHTTPRoute != nil:
		return &httpSolver{s, gatewayRoute{s.Client, http.GatewayHTTPRoute}}, nil
	case c.Spec.Type == cmacme.ACMEChallengeTypeDNS01 && dns01 != nil && dns01.RFC2136 != nil:
		return &dnsSolver{s, dns01, &updates{config: dns01.RFC2136, namespace: namespace, secrets: s.Secrets}}, nil
	case c.Spec.Type == cmacme.ACMEChallengeTypeDNS01 && dns01 != nil && dns01.Webhook != nil:
		return &dnsSolver{s, dns01, &webhook{client: s.Client, config: dns01.Webhook, namespace: namespace}}, nil
	case c.Spec.Type == cmacme.ACMEChallengeTypeDNS01 && dns01 != nil:
		return nil, errors.New(unsupportedMessage(unsupported(dns01)))
	}
	return nil, errors.New("spec.solver has neither http01.ingress nor http01.gatewayHTTPRoute")
}

func (s *Solvers) present(ctx context.Context, c *cmacme.Challenge, namespace string) error {
	solver, err := s.solverFor(c, namespace)
	if err != nil {
		return err
	}
	return solver.present(ctx, c)
}

// check returns why a server would not see what was presented.
func (s *Solvers) check(ctx context.Context, c *cmacme.Challenge, namespace string) error {
	solver, err := s.solverFor(c, namespace)
	if err != nil {
		return err
	}
	return solver.seen(ctx, c)
}

// cleanUp takes down what was presented. What was never presented, as no solver here
// can, is not there.
func (s *Solvers) cleanUp(ctx context.Context, c *cmacme.Challenge, namespace string) error {
	solver, err := s.solverFor(c, namespace)
	if err != nil {
		if c.Status.Presented {
			return err
		}
		return nil
	}
	return solver.cleanUp(ctx, c)
}

// ReadResolvConf returns the name servers of a text in the form of resolv.conf(5), as
// host:port.
func ReadResolvConf(r io.Reader) ([]string, error) {
	config, err := dns.ClientConfigFromReader(r)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, server := range config.Servers {
		all = append(all, net.JoinHostPort(server, config.Port))
	}
	return all, nil
}
