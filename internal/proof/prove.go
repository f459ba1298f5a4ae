package proof

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"runtime"
	"sync"
	"time"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/trust"
)

// Keys are the private keys at hand, by the place where each stands.
type Keys map[trust.Place]crypto.Signer

// Contradiction is a half that was judged good and yet failed the handshake.
type Contradiction struct {
	Link int // index of the link
	Side string
	Err  error
}

type prover struct {
	graph *trust.Graph
	keys  Keys
	at    time.Time
	// stand is an ephemeral callee for links whose callee is not here.
	stand *tls.Certificate

	mu    sync.Mutex
	done  map[question]*answer
	pools map[string]*x509.CertPool // by content: copies of a bundle are one
}

// question identifies a handshake: many links ask the same one.
type question struct {
	caller, callee       *trust.Credential
	callerBy, calleeBy   *x509.CertPool
	name                 string
	askCaller, askCallee bool
}

type answer struct {
	once                 sync.Once
	callerErr, calleeErr error
}

// Prove proves each half that was seen, by handshake where the keys are at
// hand, and sets how in the links' halves. It uses all cores. What it returns
// should be empty: it means that judgement and crypto/tls disagree.
func Prove(g *trust.Graph, links []check.JudgedLink, keys Keys, at time.Time) ([]Contradiction, error) {
	stand, err := standIn(at)
	if err != nil {
		return nil, err
	}
	p := &prover{graph: g, keys: keys, at: at, stand: stand, done: map[question]*answer{}, pools: map[string]*x509.CertPool{}}
	work := make(chan int)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all []Contradiction
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range work {
				found := p.link(i, &links[i])
				mu.Lock()
				all = append(all, found...)
				mu.Unlock()
			}
		})
	}
	for i := range links {
		work <- i
	}
	close(work)
	wg.Wait()
	return all, nil
}

// link proves the halves of one link: together when both are good, as the
// components do, and one by one otherwise.
func (p *prover) link(i int, l *check.JudgedLink) []Contradiction {
	var server, client *check.Half
	for j := range l.Halves {
		h := &l.Halves[j]
		if h.Proof != check.ByChain {
			continue
		}
		if h.Side == "server" {
			server = h
		} else {
			client = h
		}
	}
	var out []Contradiction
	report := func(h *check.Half, err error) {
		if h.State == check.OK && err != nil {
			out = append(out, Contradiction{Link: i, Side: h.Side, Err: err})
			h.State = check.Broken
		}
		if (h.State == check.OK) == (err == nil) {
			h.Proof = check.ByHandshake
		}
	}
	if server != nil && client != nil && server.State == check.OK && client.State == check.OK {
		if a, ok := p.ask(l.Link, true, true); ok {
			report(server, a.callerErr)
			report(client, a.calleeErr)
			return out
		}
	}
	if server != nil {
		if a, ok := p.ask(l.Link, true, false); ok {
			report(server, a.callerErr)
		}
	}
	if client != nil {
		if a, ok := p.ask(l.Link, false, true); ok {
			report(client, a.calleeErr)
		}
	}
	return out
}

// ask shakes hands once for all links that ask the same. ok tells that the keys
// were at hand.
func (p *prover) ask(l *trust.Link, server, client bool) (*answer, bool) {
	var caller, callee side
	var q question
	callee.shows = p.stand
	var err error
	if server {
		if callee.shows, err = p.shown(l.Server.Credential); err != nil {
			return nil, false
		}
		if caller.anchors, err = p.pool(l.Server.Bundle); err != nil {
			return nil, false
		}
		caller.name = dialled(l.Server.Names, callee.shows.Leaf)
		q.callee, q.callerBy, q.name, q.askCaller = l.Server.Credential, caller.anchors, caller.name, true
	}
	if client {
		if caller.shows, err = p.shown(l.Client.Credential); err != nil {
			return nil, false
		}
		if callee.anchors, err = p.pool(l.Client.Bundle); err != nil {
			return nil, false
		}
		q.caller, q.calleeBy, q.askCallee = l.Client.Credential, callee.anchors, true
	}
	p.mu.Lock()
	a := p.done[q]
	if a == nil {
		a = &answer{}
		p.done[q] = a
	}
	p.mu.Unlock()
	a.once.Do(func() { a.callerErr, a.calleeErr = handshake(caller, callee, p.at) })
	return a, true
}

// dialled is the name of the handshake: the first that is dialled, or, when
// nothing tells what is, one that the certificate holds.
func dialled(names []string, leaf *x509.Certificate) string {
	switch {
	case len(names) > 0:
		return names[0]
	case len(leaf.DNSNames) > 0:
		return leaf.DNSNames[0]
	case len(leaf.IPAddresses) > 0:
		return leaf.IPAddresses[0].String()
	}
	return ""
}

func standIn(at time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key to shake hands with: %w", err)
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stand-in"}, NotBefore: at.Add(-time.Hour), NotAfter: at.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate to shake hands with: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("making a certificate to shake hands with: %w", err)
	}
	return certificateOf([]*x509.Certificate{leaf}, key), nil
}
