package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/acmeissuer"
	"github.com/kubepki/kubepki/internal/controller"
)

// acmeFlags are those of the part "acme".
type acmeFlags struct {
	http01        []string
	nameservers   []string
	recursiveOnly bool
	renewalInfo   bool
}

// http01Port is that of the answers to HTTP-01, as cert-manager's solvers have it.
const http01Port = 8089

func (o *acmeFlags) add(f *pflag.FlagSet) {
	f.StringSliceVar(&o.http01, "acme-http01-address", nil,
		"ADDRESS or ADDRESS:PORT at which ingresses reach this process for HTTP-01; the port is listened at (default: those in POD_IPS, port "+strconv.Itoa(http01Port)+"; none: no HTTP-01)")
	f.StringSliceVar(&o.nameservers, "dns01-recursive-nameservers", nil, "ADDRESS:PORT of resolvers for DNS-01 (default: those of /etc/resolv.conf)")
	f.BoolVar(&o.recursiveOnly, "dns01-recursive-nameservers-only", false, "look for the records of DNS-01 at these resolvers alone")
	f.BoolVar(&o.renewalInfo, "acme-renewal-info", true, "ask ACME servers that offer it when they wish certificates to be renewed (RFC 9773), and renew then")
}

// acmePart is what the part "acme" has opened.
type acmePart struct {
	enabled  bool
	settings acmeissuer.Settings
	listener net.Listener // nil: no HTTP-01
	orders   *acmeissuer.Orders
}

func (o *controllerOptions) prepareACME(r *controllerRun) error {
	if !slices.Contains(o.enable, "workloads") {
		return usagef("--enable: acme works for the part workloads: name that too")
	}
	addresses, port, err := http01Addresses(o.acme.http01, os.Getenv("POD_IPS"))
	if err != nil {
		return err
	}
	nameservers, err := o.acme.resolvers()
	if err != nil {
		return err
	}
	r.acme.enabled = true
	r.acme.settings = acmeissuer.Settings{
		ClusterNamespace: o.workloads.clusterNamespace, UserAgent: "kubepki-controller", Addresses: addresses, Port: int32(port), //nolint:gosec // a port
		Nameservers: nameservers, RecursiveOnly: o.acme.recursiveOnly, Log: r.log, Now: time.Now,
	}
	if len(addresses) > 0 {
		if r.acme.listener, err = net.Listen("tcp", ":"+strconv.Itoa(int(port))); err != nil {
			return err
		}
	}
	return nil
}

// http01Addresses reads --acme-http01-address, or what the pod says of itself.
func http01Addresses(flags []string, pod string) ([]netip.Addr, uint16, error) {
	if len(flags) == 0 && pod != "" {
		flags = strings.Split(pod, ",")
	}
	port := uint16(http01Port)
	var all []netip.Addr
	for i, text := range flags {
		if a, err := netip.ParseAddr(text); err == nil {
			all = append(all, a)
			continue
		}
		at, err := netip.ParseAddrPort(text)
		if err != nil || at.Port() == 0 {
			return nil, 0, usagef("--acme-http01-address: %q is neither ADDRESS nor ADDRESS:PORT", text)
		}
		if i > 0 && at.Port() != port {
			return nil, 0, usagef("--acme-http01-address: all addresses have one port, as one Service leads to them")
		}
		port = at.Port()
		all = append(all, at.Addr())
	}
	return all, port, nil
}

// resolvers are those of the flag, or of the system.
func (o *acmeFlags) resolvers() ([]string, error) {
	for _, at := range o.nameservers {
		if _, _, err := net.SplitHostPort(at); err != nil {
			return nil, usagef("--dns01-recursive-nameservers: %q is not ADDRESS:PORT", at)
		}
	}
	if len(o.nameservers) > 0 {
		return o.nameservers, nil
	}
	f, err := os.Open("/etc/resolv.conf")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return acmeissuer.ReadResolvConf(f)
}

// open connects the part "acme", and returns the loop that answers HTTP-01, whether this
// process is the leader or not: the ACME server may ask any.
func (p *acmePart) open(config *rest.Config) ([]controller.Loop, error) {
	client, err := acmeissuer.NewClient(config)
	if err != nil {
		return nil, err
	}
	p.orders = acmeissuer.New(client, p.settings)
	if p.listener == nil {
		return nil, nil
	}
	return []controller.Loop{loopFunc(func(ctx context.Context) error { return p.orders.Solvers.Tokens.Serve(ctx, p.listener) })}, nil
}

// acmeLoops is empty: the loops of the part "workloads" move requests.
func (r *controllerRun) acmeLoops() ([]controller.Loop, error) { return nil, nil }
