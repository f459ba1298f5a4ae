package probe

import (
	"cmp"
	"context"
	"crypto"
	"crypto/tls"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// DefaultTimeout bounds one dial with all that is asked over it.
const DefaultTimeout = 5 * time.Second

// atOnce bounds the connections that are open at one time.
const atOnce = 64

// Dial opens a connection, as [net.Dialer.DialContext] does.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Keys are the private keys at hand, by the place where each stands.
type Keys map[trust.Place]crypto.Signer

// Options of [Run] and [Look].
type Options struct {
	// Dial opens the connections; nil: a plain [net.Dialer].
	Dial Dial
	// Timeout bounds each dial with all that is asked over it; 0: [DefaultTimeout].
	Timeout time.Duration
	// At is the time at which an apiserver's certificate must verify before its
	// word is taken.
	At time.Time
	// Seen is called after each server, one call at a time; nil: nobody asks.
	Seen func(done, all int)
}

type prober struct {
	Options
	graph *trust.Graph
	keys  Keys
	slots chan struct{}

	mu   sync.Mutex
	done int
	all  int
}

func newProber(o Options) *prober {
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	return &prober{Options: o, slots: make(chan struct{}, atOnce)}
}

// Run looks at all servers at once, calls each with the credentials of the
// links that lead there, as far as their keys are at hand, and returns one
// observation per server, in their order. Kubelets come last: where they are is
// asked of the API. It returns early, with what was seen, when ctx ends.
func Run(ctx context.Context, g *trust.Graph, servers []trust.Server, keys Keys, o Options) []trust.Observation {
	p := newProber(o)
	p.graph, p.keys, p.all = g, keys, len(servers)
	seen := make([]trust.Observation, len(servers))
	for i, s := range servers {
		seen[i].Server = s
	}
	isKubelet := func(o *trust.Observation) bool { return o.Server.Kind == trust.ServesKubelet }
	each(seen, func(o *trust.Observation) bool { return !isKubelet(o) }, func(o *trust.Observation) {
		p.observe(ctx, o)
		p.publications(ctx, o)
	})
	each(seen, isKubelet, func(o *trust.Observation) {
		p.locate(ctx, o, seen)
		p.observe(ctx, o)
	})
	return seen
}

// each does something with the observations that are picked, all at once.
func each(seen []trust.Observation, pick func(*trust.Observation) bool, do func(*trust.Observation)) {
	var wg sync.WaitGroup
	for i := range seen {
		if o := &seen[i]; pick(o) {
			wg.Go(func() { do(o) })
		}
	}
	wg.Wait()
}

// observe looks at one server, then calls it.
func (p *prober) observe(ctx context.Context, o *trust.Observation) {
	defer p.count()
	if o.Server.Skip != "" {
		o.Outcome, o.Reason = trust.NotDialled, o.Server.Skip
		return
	}
	credentials := p.callers(o.Server)
	var show *tls.Certificate
	if len(credentials) > 0 {
		show = p.certificate(credentials[0])
	}
	p.look(ctx, o, nameIn(o.Server.Address), show)
	if o.Outcome != trust.Answered {
		return
	}
	o.Alert = "" // of one caller: the calls tell of all
	o.Calls = make([]trust.Call, len(credentials))
	var wg sync.WaitGroup
	for i, c := range credentials {
		wg.Go(func() { o.Calls[i] = p.call(ctx, o.Server, c) })
	}
	wg.Wait()
}

// callers are the credentials of the links to a server, each once, whose keys
// are at hand.
func (p *prober) callers(s trust.Server) []*trust.Credential {
	if requestTo(s.Kind) == nil {
		return nil
	}
	var all []*trust.Credential
	for _, i := range s.Links {
		h := p.graph.Links[i].Client
		if h == nil || h.Credential == nil || slices.Contains(all, h.Credential) || p.certificate(h.Credential) == nil {
			continue
		}
		all = append(all, h.Credential)
	}
	return all
}

func (p *prober) count() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if p.Seen != nil {
		p.Seen(p.done, p.all)
	}
}

// Look looks at one server by its address, HOST:PORT, and waits for its verdict
// on a client that shows no certificate. The name is sent as server name (SNI)
// when it is no address; empty: the host of the address.
func Look(ctx context.Context, address, name string, o Options) trust.Observation {
	p := newProber(o)
	seen := trust.Observation{Server: trust.Server{Address: address}}
	name = cmp.Or(name, nameIn(address))
	p.look(ctx, &seen, name, nil)
	if seen.Outcome == trust.Answered && seen.AsksClient && seen.Alert == "" {
		seen.Alert = alertOf(p.verdict(ctx, address, name, nil, min(p.Timeout, verdictWait)))
	}
	return seen
}
