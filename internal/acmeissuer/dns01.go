package acmeissuer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	"github.com/miekg/dns"
)

// dnsSolver presents DNS-01 by a record that a provider writes.
type dnsSolver struct {
	*Solvers
	config   *cmacme.ACMEChallengeSolverDNS01
	provider provider
}

// record is one TXT record.
type record struct{ name, zone, value string }

// provider writes records. To write one that is there, or to remove one that is not,
// is no error; others of the same name stay.
type provider interface {
	insert(ctx context.Context, c *cmacme.Challenge, r record) error
	remove(ctx context.Context, c *cmacme.Challenge, r record) error
}

func (d *dnsSolver) present(ctx context.Context, c *cmacme.Challenge) error {
	r, err := d.record(ctx, c)
	if err != nil {
		return err
	}
	return d.provider.insert(ctx, c, r)
}

func (d *dnsSolver) cleanUp(ctx context.Context, c *cmacme.Challenge) error {
	if !c.Status.Presented && !c.Status.Processing {
		// Nothing was written: there may be no such zone.
		return nil
	}
	r, err := d.record(ctx, c)
	if err != nil {
		return err
	}
	return d.provider.remove(ctx, c, r)
}

// record finds where the record of a challenge belongs (RFC 8555 section 8.4).
func (d *dnsSolver) record(ctx context.Context, c *cmacme.Challenge) (record, error) {
	name := recordName(c)
	if d.config.CNAMEStrategy == cmacme.FollowStrategy {
		var err error
		if name, err = d.follow(ctx, name); err != nil {
			return record{}, err
		}
	}
	zone, err := d.zoneOf(ctx, name)
	return record{name, zone, c.Spec.Key}, err
}

func recordName(c *cmacme.Challenge) string {
	return dns.Fqdn("_acme-challenge." + strings.ToLower(c.Spec.DNSName))
}

// seen asks every name server of the zone for the record: an ACME server asks any of
// them, from several places at once.
func (d *dnsSolver) seen(ctx context.Context, c *cmacme.Challenge) error {
	// An ACME server follows CNAMEs whatever the solver does.
	name, err := d.follow(ctx, recordName(c))
	if err != nil {
		return err
	}
	servers := d.Nameservers
	if !d.RecursiveOnly {
		zone, err := d.zoneOf(ctx, name)
		if err != nil {
			return err
		}
		if servers, err = d.authoritative(ctx, zone); err != nil {
			return err
		}
	}
	for _, server := range servers {
		if err := hasRecord(ctx, server, name, c.Spec.Key, d.RecursiveOnly); err != nil {
			return err
		}
	}
	return nil
}

func hasRecord(ctx context.Context, server, name, value string, recursive bool) error {
	in, err := ask(ctx, []string{server}, name, dns.TypeTXT, recursive)
	if err != nil {
		return err
	}
	if in.Rcode != dns.RcodeSuccess && in.Rcode != dns.RcodeNameError {
		return fmt.Errorf("name server %s answers %s for %s", server, dns.RcodeToString[in.Rcode], name)
	}
	for _, rr := range in.Answer {
		if txt, ok := rr.(*dns.TXT); ok && strings.Join(txt.Txt, "") == value {
			return nil
		}
	}
	return fmt.Errorf("name server %s does not have the TXT record of %s yet", server, name)
}

const (
	// maxAliases bounds a chain of CNAMEs.
	maxAliases = 10
	// maxServers bounds the name servers of a zone that are asked: thirteen is what the
	// root has.
	maxServers = 13
	// queryTimeout bounds one question.
	queryTimeout = 5 * time.Second
)

// follow returns the name at the end of a chain of CNAMEs.
func (s *Solvers) follow(ctx context.Context, name string) (string, error) {
	seen := []string{name}
	for range maxAliases {
		in, err := ask(ctx, s.Nameservers, name, dns.TypeCNAME, true)
		if err != nil {
			return "", err
		}
		target := ""
		for _, rr := range in.Answer {
			if c, ok := rr.(*dns.CNAME); ok && strings.EqualFold(c.Hdr.Name, name) {
				target = strings.ToLower(c.Target)
			}
		}
		if target == "" {
			return name, nil
		}
		if slices.Contains(seen, target) {
			return "", fmt.Errorf("the CNAMEs of %s lead in a circle by %s", seen[0], target)
		}
		seen, name = append(seen, target), target
	}
	return "", fmt.Errorf("the CNAMEs of %s are more than %d", seen[0], maxAliases)
}

// zoneOf returns the zone that a name is in: the first name above it, or itself, that
// has an SOA record.
func (s *Solvers) zoneOf(ctx context.Context, name string) (string, error) {
	for _, at := range dns.Split(name) {
		zone := name[at:]
		in, err := ask(ctx, s.Nameservers, zone, dns.TypeSOA, true)
		if err != nil {
			return "", err
		}
		if in.Rcode != dns.RcodeSuccess && in.Rcode != dns.RcodeNameError {
			return "", fmt.Errorf("the resolver answers %s for the SOA record of %s", dns.RcodeToString[in.Rcode], zone)
		}
		for _, rr := range in.Answer {
			// An alias has no zone of its own: the SOA is that of its target.
			if soa, ok := rr.(*dns.SOA); ok && strings.EqualFold(soa.Hdr.Name, zone) {
				return strings.ToLower(zone), nil
			}
		}
	}
	return "", fmt.Errorf("no zone is found for %s: neither it nor a name above it has an SOA record", name)
}

// authoritative returns the name servers of a zone, as host:port.
func (s *Solvers) authoritative(ctx context.Context, zone string) ([]string, error) {
	in, err := ask(ctx, s.Nameservers, zone, dns.TypeNS, true)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, rr := range in.Answer {
		if ns, ok := rr.(*dns.NS); ok && len(names) < maxServers {
			names = append(names, strings.ToLower(ns.Ns))
		}
	}
	var all []string
	for _, name := range names {
		address, err := s.address(ctx, name)
		if err != nil {
			return nil, err
		}
		all = append(all, net.JoinHostPort(address, cmp.Or(s.dnsPort, "53")))
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("the zone %s has no NS records", zone)
	}
	return all, nil
}

// address returns an address of a name server. One of IPv4 comes first: not every
// cluster reaches the others.
func (s *Solvers) address(ctx context.Context, name string) (string, error) {
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		in, err := ask(ctx, s.Nameservers, name, kind, true)
		if err != nil {
			return "", err
		}
		for _, rr := range in.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				return rr.A.String(), nil
			case *dns.AAAA:
				return rr.AAAA.String(), nil
			}
		}
	}
	return "", fmt.Errorf("the name server %s has no address", name)
}

// ask asks servers in turn, by UDP and, for an answer that does not fit, by TCP, until
// one answers.
func ask(ctx context.Context, servers []string, name string, kind uint16, recursive bool) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(name, kind)
	m.SetEdns0(1232, false)
	m.RecursionDesired = recursive
	err := errors.New("no resolvers are known: set the controller's flag --dns01-recursive-nameservers")
	for _, server := range servers {
		var in *dns.Msg
		in, _, err = (&dns.Client{Net: "udp", Timeout: queryTimeout}).ExchangeContext(ctx, m, server)
		if err == nil && in.Truncated {
			in, _, err = (&dns.Client{Net: "tcp", Timeout: queryTimeout}).ExchangeContext(ctx, m, server)
		}
		if err == nil {
			return in, nil
		}
		err = fmt.Errorf("name server %s, asked for %s of %s: %w", server, dns.TypeToString[kind], name, err)
	}
	return nil, err
}
